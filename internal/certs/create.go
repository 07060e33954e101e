package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// How long certificates are valid unless a Request says otherwise.
const (
	day            = 24 * time.Hour
	CAValidity     = 3650 * day
	NodeValidity   = 5 * 365 * day
	ClientValidity = 365 * day
	validityMax    = 100 * 365 * day

	// skew is how much the clocks of machines may differ at most: certificates are
	// valid from that much before they were made.
	skew = time.Hour

	nameBytesMax = 64 // what a common name may have
	hostsMax     = 100
)

// Request says where a certificate goes, and for how long it is valid.
type Request struct {
	Dir       string
	CADir     string        // where ca.crt and ca.key are; "": Dir
	ValidFor  time.Duration // 0: the default of its kind
	Overwrite bool          // replace files that exist
	Now       time.Time     // the time to count from; zero: the present
}

// Created is what a request has made.
type Created struct {
	Role     Role // NoRole for an authority
	Name     string
	Hosts    []string // of a node
	Serial   string   // hexadecimal
	From     time.Time
	Until    time.Time
	CertFile string
	KeyFile  string
}

func (r *Request) check(validity time.Duration) error {
	if r.Dir == "" {
		return &shard.InvalidError{Field: "--certs-dir", Reason: "is missing: the folder for the certificates"}
	}
	if r.ValidFor == 0 {
		r.ValidFor = validity
	}
	if r.ValidFor < time.Minute || r.ValidFor > validityMax {
		return &shard.InvalidError{Field: "--valid-for", Reason: fmt.Sprintf("is %v and must be between 1m and %dd", r.ValidFor, validityMax/day)}
	}
	if r.CADir == "" {
		r.CADir = r.Dir
	}
	if r.Now.IsZero() {
		r.Now = time.Now()
	}
	return makeDir(r.Dir)
}

// CreateCA makes an authority: ca.crt and ca.key.
func CreateCA(r Request) (Created, error) {
	if err := r.check(CAValidity); err != nil {
		return Created{}, err
	}
	// Two authorities have different names, so that people can tell them apart.
	mark := make([]byte, 4)
	if _, err := rand.Read(mark); err != nil {
		return Created{}, err
	}
	t := r.template("kiloraft CA "+hex.EncodeToString(mark), r.Now.Add(r.ValidFor))
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return r.issue(t, caName, NoRole, nil)
}

// CreateNode makes the certificate of a node that is reached at hosts, each a
// DNS name or an IP address: node.crt and node.key.
func CreateNode(r Request, hosts []string) (Created, error) {
	hosts, err := checkHosts(hosts)
	if err != nil {
		return Created{}, err
	}
	if err := r.check(NodeValidity); err != nil {
		return Created{}, err
	}
	return r.sign(nodeName, hosts[0], Node, hosts)
}

// CreateClient makes the certificate of a client: client.NAME.crt and .key.
func CreateClient(r Request, name string, admin bool) (Created, error) {
	if !clientNames.MatchString(name) || len(name) > nameBytesMax {
		return Created{}, &shard.InvalidError{Field: "NAME", Reason: fmt.Sprintf("cannot be %+q: it is 1 to %d letters, digits, '-', '_' and '.', and begins with a letter or digit", name, nameBytesMax)}
	}
	if err := r.check(ClientValidity); err != nil {
		return Created{}, err
	}
	role := Client
	if admin {
		role = Admin
	}
	return r.sign(clientPrefix+name, name, role, nil)
}

var (
	clientNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	hostNames   = regexp.MustCompile(`^(\*\.)?([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?$`)
)

// checkHosts refuses what is no host, and drops what is said twice.
func checkHosts(hosts []string) ([]string, error) {
	bad := func(h, why string) error {
		return &shard.InvalidError{Field: "HOST", Reason: fmt.Sprintf("cannot be %+q: %s", h, why)}
	}
	var kept []string
	for _, h := range hosts {
		if a, err := netip.ParseAddr(h); err == nil {
			if a.Zone() != "" || a.IsUnspecified() {
				return nil, bad(h, "it is no address that leads to one node")
			}
			h = a.Unmap().String()
		} else if _, _, err := net.SplitHostPort(h); err == nil {
			return nil, bad(h, "name the host without a port")
		} else if len(h) > 253 || !hostNames.MatchString(h) {
			return nil, bad(h, "it is neither a DNS name nor an IP address")
		}
		if !slices.Contains(kept, h) {
			kept = append(kept, h)
		}
	}
	switch {
	case len(kept) == 0:
		return nil, &shard.InvalidError{Field: "HOST", Reason: "is missing: the names and addresses at which the node is reached"}
	case len(kept) > hostsMax:
		return nil, &shard.InvalidError{Field: "HOST", Reason: fmt.Sprintf("is given %d times, the limit is %d", len(kept), hostsMax)}
	}
	return kept, nil
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// template is what all certificates have in common.
func (r *Request) template(commonName string, until time.Time) *x509.Certificate {
	if len(commonName) > nameBytesMax {
		commonName = commonName[:nameBytesMax] // it is for people; names that count are elsewhere
	}
	// Without a serial number x509 draws one of 20 random bytes.
	return &x509.Certificate{Subject: pkix.Name{CommonName: commonName}, NotBefore: r.Now.Add(-skew), NotAfter: until}
}

// sign makes a certificate that the authority of CADir vouches for.
func (r *Request) sign(file, commonName string, role Role, hosts []string) (Created, error) {
	ca, err := r.authority()
	if err != nil {
		return Created{}, err
	}
	until := r.Now.Add(r.ValidFor)
	if until.After(ca.cert.NotAfter) {
		until = ca.cert.NotAfter // nobody would accept it longer
	}
	created, err := r.issue(r.certificate(commonName, role, hosts, until), file, role, ca)
	created.Hosts = hosts
	return created, err
}

// certificate is one of a node or client, to be signed.
func (r *Request) certificate(commonName string, role Role, hosts []string, until time.Time) *x509.Certificate {
	t := r.template(commonName, until)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.BasicConstraintsValid = true // it says: no authority
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	t.URIs = []*url.URL{role.uri()}
	if role == Node {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return t
}

// issue makes a key and its certificate, signed by ca or, without one, by
// itself, and writes both.
func (r *Request) issue(t *x509.Certificate, file string, role Role, ca *authority) (Created, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Created{}, err
	}
	if ca == nil {
		ca = &authority{cert: t, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, key.Public(), ca.key)
	if err != nil {
		return Created{}, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Created{}, err
	}
	keyOut, err := pemKey(keyFile(r.Dir, file), key)
	if err != nil {
		return Created{}, err
	}
	// The key first: a reader that finds a new certificate finds its key, too.
	if err := write(r.Overwrite, keyOut, pemCert(certFile(r.Dir, file), der)); err != nil {
		return Created{}, err
	}
	return Created{Role: role, Name: c.Subject.CommonName, Serial: fmt.Sprintf("%x", c.SerialNumber), From: c.NotBefore, Until: c.NotAfter,
		CertFile: certFile(r.Dir, file), KeyFile: keyFile(r.Dir, file)}, nil
}

// authority finds the certificate that belongs to ca.key, and sees to it that
// Dir trusts it, too.
func (r *Request) authority() (*authority, error) {
	certs, err := readAuthorities(r.CADir)
	if err != nil {
		return nil, err
	}
	key, err := readKey(r.CADir, caName)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return samePublic(c.PublicKey, key.Public()) })
	switch {
	case i < 0:
		return nil, unusable(keyFile(r.CADir, caName), "belongs to no certificate in %s", certFile(r.CADir, caName))
	case r.Now.After(certs[i].NotAfter):
		return nil, unusable(certFile(r.CADir, caName), "expired on %s; make a new authority", date(certs[i].NotAfter))
	}
	return &authority{cert: certs[i], key: key}, r.trust(certs[i])
}

// trust gives Dir a ca.crt with the authority, or checks the one that is there.
func (r *Request) trust(ca *x509.Certificate) error {
	if r.Dir == r.CADir {
		return nil
	}
	path := certFile(r.Dir, caName)
	if err := pemCert(path, ca.Raw).create(); !errors.Is(err, fs.ErrExist) {
		return err
	}
	trusted, err := readAuthorities(r.Dir)
	if err == nil && !slices.ContainsFunc(trusted, func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, ca.Raw) }) {
		err = unusable(path, "does not hold the authority in %s; to trust both, append that one: cat %[1]s >> %s", certFile(r.CADir, caName), path)
	}
	return err
}

// samePublic compares two public keys.
func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
