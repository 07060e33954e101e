package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Info is what is known of the other side of a connection with certificates.
type Info struct {
	credentials.CommonAuthInfo
	Identity Identity
	cert     *x509.Certificate
}

// AuthType implements credentials.AuthInfo.
func (Info) AuthType() string { return "kiloraft" }

// infoOf reads a connection whose handshake is done, and for which the other side
// has shown a certificate.
func infoOf(s *tls.ConnectionState) Info {
	leaf := s.PeerCertificates[0]
	return Info{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, Identity: IdentityOf(leaf), cert: leaf}
}

// CallerOf tells who calls an RPC; false if its connection has no certificates.
func CallerOf(ctx context.Context) (Info, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Info{}, false
	}
	info, ok := p.AuthInfo.(Info)
	return info, ok
}

// CallerOfHTTP tells who makes an HTTP request; false if its connection has no
// certificates. s is that of the request.
func CallerOfHTTP(s *tls.ConnectionState) (Info, bool) {
	if s == nil || len(s.PeerCertificates) == 0 {
		return Info{}, false
	}
	return infoOf(s), true
}
