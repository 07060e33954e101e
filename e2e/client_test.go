package e2e

import (
	"testing"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/client/clienttest"
)

// TestClientSuite runs the client library's own suite against real processes.
func TestClientSuite(t *testing.T) {
	c := startCluster(t, 3, 8)
	clienttest.Run(t, func(*testing.T) *client.Client { return c.client() })
}
