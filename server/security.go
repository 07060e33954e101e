package server

import (
	"log/slog"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/internal/certs"
	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/shard"
)

// security is how a node's ports and connections are protected: by certificates
// or, in plaintext, by staying on loopback addresses.
type security struct {
	source   *certs.Source // nil: plaintext
	refusals *certs.Refusals
	log      *slog.Logger
}

// openSecurity loads the node's certificates, if it has any; they must be for the
// address at which others reach it.
func openSecurity(certsDir, advertise string, log *slog.Logger) (*security, error) {
	s := &security{refusals: &certs.Refusals{Log: log}, log: log}
	if certsDir == "" {
		return s, nil
	}
	host, _, err := net.SplitHostPort(advertise)
	if err != nil {
		return nil, &shard.InvalidError{Field: "--advertise", Reason: err.Error()}
	}
	if s.source, err = certs.OpenNode(certsDir, host, log); err != nil {
		return nil, err
	}
	log.Info("certificates", "folder", certsDir, "identity", s.source.Identity(), "until", s.source.Expires())
	return s, nil
}

// secure tells whether there are certificates.
func (s *security) secure() bool { return s.source != nil }

// gauges are figures of the certificates.
func (s *security) gauges() []node.Gauge {
	if s.source == nil {
		return nil
	}
	return []node.Gauge{{Name: "certificate_expiry_seconds", Help: "When the node's certificate expires, in Unix time.", Value: float64(s.source.Expires().Unix())}}
}

// dialing are the credentials of connections to other nodes.
func (s *security) dialing() credentials.TransportCredentials {
	if s.source == nil {
		return certs.Plaintext()
	}
	return s.source.Dialing()
}

// dialOptions are those of a connection to a node that outlives a change of
// certificates.
func (s *security) dialOptions() []grpc.DialOption {
	return append(api.DialOptions(), grpc.WithTransportCredentials(s.dialing()))
}

// serverOptions are those of the gRPC server: who calls, and who may.
func (s *security) serverOptions() []grpc.ServerOption {
	// It counts from the connection to the first frame of HTTP/2.
	options := append(api.ServerOptions(), grpc.ConnectionTimeout(certs.HandshakeTimeout))
	if s.source != nil {
		options = append(options, grpc.Creds(certs.Accepting()))
	}
	return append(options, s.gate().options()...)
}

func (s *security) gate() *gate { return &gate{secure: s.secure(), refusals: s.refusals} }

// grpcPort and httpPort put what they serve behind handshakes.
func (s *security) grpcPort(l net.Listener) net.Listener {
	if s.source == nil {
		return certs.ListenPlaintext(l, s.log)
	}
	return s.source.ListenGRPC(l, s.log)
}

func (s *security) httpPort(l net.Listener) net.Listener {
	if s.source == nil {
		return certs.ListenPlaintext(l, s.log)
	}
	return s.source.ListenHTTP(l, s.log)
}
