package main

import (
	"errors"

	"google.golang.org/grpc/credentials"

	"github.com/kiloraft/kiloraft/internal/certs"
)

// target is the nodes that a command talks to, and how.
type target struct {
	endpoints []string
	creds     credentials.TransportCredentials
	certsDir  string // "": plaintext
}

// at is the same way to another address.
func (t target) at(address string) target {
	t.endpoints = []string{address}
	return t
}

// target is that of the global flags.
func (a *app) target() (target, error) {
	endpoints, err := a.endpoints()
	if err != nil {
		return target{}, err
	}
	creds, err := a.credentials()
	return target{endpoints, creds, a.global.certsDir}, err
}

// credentials are the client's certificates or, without --certs-dir, plaintext.
func (a *app) credentials() (credentials.TransportCredentials, error) {
	if a.global.certsDir == "" {
		if a.global.client != "" {
			return nil, usagef("--client: it names a certificate in --certs-dir, which is missing")
		}
		return certs.Plaintext(), nil
	}
	source, err := certs.OpenClient(a.global.certsDir, a.global.client, a.logger("warn"))
	var several *certs.SeveralClientsError
	if errors.As(err, &several) {
		return nil, usagef("--client is missing: %v", err)
	}
	if err != nil {
		return nil, err
	}
	return source.Dialing(), nil
}
