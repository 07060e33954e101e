package main

import (
	"net"
	"path/filepath"
	"strings"

	"github.com/kiloraft/kiloraft/internal/certs"
)

// demoClient is who uses a demo's cluster.
const demoClient = "demo"

func (d *demo) certsDir() string { return filepath.Join(d.dir, "certs") }

func (d *demo) scheme() string {
	if d.secure {
		return "https"
	}
	return "http"
}

// makeCerts makes an authority, a certificate for all nodes and one of an admin,
// if the demo is to be secure.
func (d *demo) makeCerts() error {
	if !d.secure {
		d.creds = certs.Plaintext()
		return nil
	}
	r := certs.Request{Dir: d.certsDir()}
	if _, err := certs.CreateCA(r); err != nil {
		return err
	}
	if _, err := certs.CreateNode(r, []string{"localhost", net.IPv4(127, 0, 0, 1).String(), net.IPv6loopback.String()}); err != nil {
		return err
	}
	if _, err := certs.CreateClient(r, demoClient, true); err != nil {
		return err
	}
	source, err := certs.OpenClient(r.Dir, demoClient, d.logger("warn"))
	if err != nil {
		return err
	}
	d.creds = source.Dialing()
	return nil
}

// withoutSecurity drops the variables that name certificates: those of the user
// are for another cluster.
func withoutSecurity(environ []string) []string {
	var kept []string
	for _, e := range environ {
		if name, _, _ := strings.Cut(e, "="); name != envName("certs-dir") && name != envName("client") {
			kept = append(kept, e)
		}
	}
	return kept
}
