package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestElasticExample has the tour of examples/elastic.sh run against a demo of four
// nodes. It checks every step itself; here every document that it got has to be JSON,
// and one document.
func TestElasticExample(t *testing.T) {
	script, err := filepath.Abs("../examples/elastic.sh")
	if err != nil {
		t.Fatal(err)
	}
	documents := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "demo", "--nodes", "4", "--shards", "1", "--exec", "sh '"+script+"'")
	cmd.Env = append(os.Environ(), "ELASTIC_JSON="+documents)
	// The demo stops its nodes; they die with it if it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "elastic: all as it should be") {
		t.Errorf("it ends with 0 and does not say that all is well:\n%s", out.String())
	}
	names, err := filepath.Glob(filepath.Join(documents, "*.json"))
	if err != nil || len(names) < 60 {
		t.Errorf("%d documents, %v\n%s", len(names), err, out.String())
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil || !json.Valid(b) {
			t.Errorf("%s is not one JSON document: %v\n%s", name, err, b)
		}
	}
}
