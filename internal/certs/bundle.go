package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// bundle is what one look at the files has found: everything that handshakes
// need. It is never changed.
type bundle struct {
	roots    *x509.CertPool
	cert     tls.Certificate // with its Leaf
	identity Identity
	file     string // of the certificate
}

// load reads the files of a node (name nodeName) or client from dir, and refuses
// what nobody would accept: certificates that are broken, of another authority or
// another role, or not valid now. A node's must cover host, unless that is "".
func load(dir, name, host string, now time.Time) (*bundle, error) {
	authorities, err := readAuthorities(dir)
	if err != nil {
		return nil, err
	}
	chain, err := readCerts(dir, name)
	if err != nil {
		return nil, err
	}
	key, err := readKey(dir, name)
	if err != nil {
		return nil, err
	}
	leaf, file := chain[0], certFile(dir, name)
	if !samePublic(leaf.PublicKey, key.Public()) {
		return nil, unusable(file, "does not belong to the key in %s; both are made together", keyFile(dir, name))
	}
	b := &bundle{roots: x509.NewCertPool(), file: file, identity: IdentityOf(leaf)}
	b.cert = tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, c := range authorities {
		b.roots.AddCert(c)
	}
	between := x509.NewCertPool()
	for i, c := range chain {
		b.cert.Certificate = append(b.cert.Certificate, c.Raw)
		if i > 0 {
			between.AddCert(c)
		}
	}
	uses := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if name == nodeName {
		uses = append(uses, x509.ExtKeyUsageServerAuth)
	}
	for _, use := range uses {
		options := x509.VerifyOptions{Roots: b.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}}
		if _, err := leaf.Verify(options); err != nil {
			return nil, unusable(file, "%s; %s", why(err, leaf, now), made(name))
		}
	}
	return b, b.check(name, host)
}

// check judges what the certificate is for.
func (b *bundle) check(name, host string) error {
	role := b.identity.Role
	switch {
	case name == nodeName && role != Node:
		return unusable(b.file, "is of %v, and a node's is needed; %s", b.identity, made(name))
	case name != nodeName && role != Client && role != Admin:
		return unusable(b.file, "is of %v, and a client's or admin's is needed; %s", b.identity, made(name))
	}
	if host == "" {
		return nil
	}
	if err := covers(b.cert.Leaf, host); err != nil {
		return unusable(b.file, "%v; %s", err, made(name))
	}
	return nil
}

// covers tells whether a node with the certificate may be at host.
func covers(c *x509.Certificate, host string) error {
	if err := c.VerifyHostname(host); err != nil {
		return errors.New(why(err, c, time.Time{}))
	}
	return nil
}

// Covers tells whether a node that showed its certificate may be at host, a name
// or address without a port. If not, it returns a shard.DeniedError.
func (i Info) Covers(host string) error {
	if err := covers(i.cert, host); err != nil {
		return &shard.DeniedError{Reason: fmt.Sprintf("the certificate of %v %v", i.Identity, err)}
	}
	return nil
}

// why says in words what is wrong with a certificate; the words follow its name.
func why(err error, c *x509.Certificate, now time.Time) string {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &name):
		return "is for " + hostsOf(c) + " and not for " + name.Host
	case errors.As(err, &unknown):
		return fmt.Sprintf("is not signed by an authority that is trusted here (it says it is by %+q)", c.Issuer.CommonName)
	case errors.As(err, &invalid):
		if invalid.Cert != nil {
			c = invalid.Cert
		}
		switch {
		case invalid.Reason == x509.Expired && now.Before(c.NotBefore):
			return "is not valid before " + date(c.NotBefore)
		case invalid.Reason == x509.Expired:
			return "expired on " + date(c.NotAfter)
		case invalid.Reason == x509.IncompatibleUsage:
			return "is not made for this use (serverAuth of nodes, clientAuth of nodes and clients)"
		}
	}
	return "cannot be verified: " + strings.TrimPrefix(err.Error(), "x509: ")
}

// hostsOf lists what a certificate is for.
func hostsOf(c *x509.Certificate) string {
	const most = 10
	hosts := c.DNSNames
	for _, ip := range c.IPAddresses {
		hosts = append(hosts[:len(hosts):len(hosts)], ip.String())
	}
	switch n := len(hosts); {
	case n == 0:
		return "no host"
	case n > most:
		return fmt.Sprintf("%s and %d more", strings.Join(hosts[:most], ", "), n-most)
	}
	return strings.Join(hosts, ", ")
}
