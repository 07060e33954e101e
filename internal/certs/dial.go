package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/kiloraft/kiloraft/shard"
)

// protocol is what gRPC's connections agree on.
const protocol = "h2"

// Dialing are the credentials of gRPC connections to nodes: the node must show a
// node's certificate for the host that was dialled. A side that refuses the other
// makes the connection fail with a shard.DeniedError.
func (s *Source) Dialing() credentials.TransportCredentials { return &dialing{source: s} }

type dialing struct{ source *Source }

func (d *dialing) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	b, address := d.source.bundle(), authority
	host := authority
	if h, _, err := net.SplitHostPort(authority); err == nil {
		host = h
	}
	conn := tls.Client(raw, b.dial(host))
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, nil, b.failed(ctx, address, err)
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != protocol {
		_ = raw.Close()
		return nil, nil, denied("the node at %s does not speak gRPC on this port", address)
	}
	return &dialled{Conn: conn, address: address, bundle: b}, infoOf(&state), nil
}

// dial is the configuration of one connection to host.
func (b *bundle) dial(host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    b.roots,
		ServerName: host,
		NextProtos: []string{protocol},
		// Shown whoever asks: a node that trusts another authority is to say so.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &b.cert, nil },
		VerifyConnection: func(s tls.ConnectionState) error {
			if id := IdentityOf(s.PeerCertificates[0]); id.Role != Node {
				return &roleError{id}
			}
			return nil
		},
		DynamicRecordSizingDisabled: true, // small first records are for browsers
	}
}

// roleError: who answers is no node.
type roleError struct{ identity Identity }

func (e *roleError) Error() string {
	return fmt.Sprintf("it is of %v, and a node's is needed", e.identity)
}

func denied(format string, args ...any) error {
	return &shard.DeniedError{Reason: fmt.Sprintf(format, args...)}
}

// failed puts a failed handshake into words.
func (b *bundle) failed(ctx context.Context, address string, err error) error {
	var verify *tls.CertificateVerificationError
	var role *roleError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &verify) && len(verify.UnverifiedCertificates) > 0:
		return denied("the certificate of the node at %s %s", address, why(verify.Err, verify.UnverifiedCertificates[0], time.Now()))
	case errors.As(err, &role):
		return denied("the certificate of the node at %s cannot be used: %v", address, role)
	case errors.As(err, &record):
		return denied("%s does not speak TLS; leave --certs-dir out if it was started with --insecure", address)
	case ctx.Err() != nil:
		return fmt.Errorf("%s does not finish the TLS handshake: %w", address, ctx.Err())
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%s ended the connection during the TLS handshake; does it speak TLS?", address)
	}
	if refusal := b.refused(address, err); refusal != nil {
		return refusal
	}
	return fmt.Errorf("TLS handshake with %s: %w", address, err)
}

// refused recognizes an alert by which the other side refuses this one's
// certificate; nil if err is something else.
func (b *bundle) refused(address string, err error) error {
	var alert *net.OpError
	if !errors.As(err, &alert) || alert.Op != "remote error" {
		return nil
	}
	reason, ok := alerts[alert.Err.Error()]
	if !ok {
		reason = alert.Err.Error()
	}
	return denied("the node at %s refuses %s: %s; its log says more", address, b.file, reason)
}

// alerts are those that package tls sends for certificates.
var alerts = map[string]string{
	"tls: unknown certificate authority": "it is not signed by an authority that the node trusts",
	"tls: expired certificate":           "it has expired or is not valid yet",
	"tls: bad certificate":               "it is not acceptable",
	"tls: certificate required":          "none was shown",
}

// dialled is a connection on which the other side may still refuse this one's
// certificate: in TLS 1.3 that comes after the handshake.
type dialled struct {
	net.Conn
	address string
	bundle  *bundle
}

func (c *dialled) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		if refusal := c.bundle.refused(c.address, err); refusal != nil {
			err = refusal
		}
	}
	return n, err
}

func (d *dialing) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for dialling")
}

func (d *dialing) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (d *dialing) Clone() credentials.TransportCredentials { return d }

// OverrideServerName implements credentials.TransportCredentials: the address
// that is dialled decides, and nothing else.
func (d *dialing) OverrideServerName(string) error {
	return errors.New("the name of a node is that of its address")
}
