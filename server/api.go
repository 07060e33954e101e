package server

import (
	"context"
	"errors"
	"log/slog"
)

// Config of a server.
type Config struct {
	Store         string   // folder
	Listen        string   // host:port
	Advertise     string   // host:port that others reach; empty: Listen
	HTTP          string   // host:port; empty: none
	Join          []string // host:port of nodes of the cluster to join; empty: create one
	InitialShards int
	Insecure      bool
	MemoryBytes   int64
	Locality      map[string]string
	Version       string
	Logger        *slog.Logger
}

// Run serves until ctx ends.
func Run(ctx context.Context, c Config) error { return errors.New("contract") }
