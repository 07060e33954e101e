package client

import (
	"log/slog"

	"github.com/kiloraft/kiloraft/internal/certs"
	"github.com/kiloraft/kiloraft/shard"
)

// chooseDialer sees to it that there is a dialer: with certificates or, to
// loopback addresses, without.
func (o *Options) chooseDialer() error {
	switch {
	case o.Dialer != nil && o.CertsDir != "":
		return &shard.InvalidError{Field: "options", Reason: "name a dialer and certificates; a dialer brings its own"}
	case o.Dialer != nil:
		return nil
	case o.CertsDir != "":
		log := o.Logger
		if log == nil {
			log = slog.Default()
		}
		source, err := certs.OpenClient(o.CertsDir, o.CertName, log)
		if err != nil {
			return err
		}
		o.Dialer = NewGRPCDialer(source.Dialing())
		return nil
	}
	for _, e := range o.Endpoints {
		if err := certs.CheckLoopback(e); err != nil {
			return err
		}
	}
	o.Dialer = NewGRPCDialer(nil)
	return nil
}
