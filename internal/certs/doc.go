// Package certs is how Kiloraft's processes know each other: certificates in a
// folder, made by `kiloraft cert`, and mutual TLS 1.3 with them.
//
// # Files
//
// A folder of certificates has mode 0700 and holds, all in PEM:
//
//	ca.crt                            the authorities that are trusted, one or more
//	ca.key                            the authority's key; only `kiloraft cert` reads it, and no node or client needs it
//	node.crt, node.key                of a node
//	client.NAME.crt, client.NAME.key  of a client; a folder may hold several
//
// Keys are ECDSA on P-256. Key files have mode 0600; one that others may read is
// refused. Nothing that exists is overwritten unless that is asked for.
//
// # Roles
//
// What the owner of a certificate may do is its role. It stands in the
// certificate as a URI among the subject's alternative names, exactly one of
//
//	urn:kiloraft:role:node     a node: speaks to nodes as one of them, and may do what clients may
//	urn:kiloraft:role:client   a client: reads and writes keys, and looks at the cluster
//	urn:kiloraft:role:admin    a client that may change the cluster, too
//
// A URI of our own was chosen over the organizational unit, which companies fill
// with words of their own: a certificate that an authority made for something
// else has no role here, and may do nothing. So may one with two roles, or with one
// that is not known. Certificates of other tools will do if they carry the URI;
// those of nodes also need the usages serverAuth and clientAuth, those of clients
// clientAuth.
//
// A node's certificate names the hosts at which it is reached, as DNS names or IP
// addresses; whoever dials checks the host that it dialled, and that the role is a
// node's. Nodes get their IDs from the cluster after they have certificates, so that
// a certificate does not name an ID: the holder of a node's certificate can act as any
// node. A client's name, in the common name, is for logs.
//
// # Handshakes
//
// A server's Listener completes handshakes before it hands connections out. Each
// has HandshakeTimeout; of more than handshakesMax at a time the oldest gives way, so
// that connections that never say anything keep nobody out. Sessions are not
// resumed: each connection shows certificates that are valid when it begins.
// A connection lives on when its certificates expire or are replaced.
//
// # Reloading
//
// A Source looks at its files when a handshake begins, at most every checkEvery,
// and loads them again if they have changed. New files that cannot be used are logged,
// and the old certificates stay in use. To change the authority append the new
// one's certificate to every ca.crt first, then replace the certificates, then remove
// the old one. There are no revocation lists: a certificate is valid until it
// expires, or until its authority is no longer in ca.crt.
//
// # Refusals
//
// A connection that is refused is refused in words, on both sides: the server logs
// the reason with the address, and the dialling side returns a shard.DeniedError. Plaintext
// on a TLS port and TLS on a plaintext port are recognized, too. Plaintext is spoken
// on loopback addresses only.
package certs
