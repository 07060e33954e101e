package main

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A demo that is killed without notice cannot stop its nodes; the operating
// system does.
func TestNodesDieWithTheDemo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // nobody is left to remove the demo's own
	t.Setenv(fakeNodeVariable, "fine")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	demo := exec.Command(self, "demo", "--nodes", "2")
	stdout, err := demo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	var endpoints []string
	for lines := bufio.NewScanner(stdout); endpoints == nil && lines.Scan(); {
		if _, list, ok := strings.Cut(lines.Text(), "KILORAFT_ENDPOINTS="); ok {
			endpoints = strings.Split(list, ",")
		}
	}
	_ = demo.Process.Kill()
	_ = demo.Wait()
	if len(endpoints) != 2 {
		t.Fatalf("the demo did not begin: endpoints %v", endpoints)
	}
	for _, e := range endpoints {
		for deadline := time.Now().Add(30 * time.Second); ; {
			conn, err := net.Dial("tcp", e)
			if err != nil {
				break
			}
			_ = conn.Close()
			if time.Now().After(deadline) {
				t.Fatalf("the node at %s outlives its demo", e)
			}
		}
	}
}
