package server

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
)

// logWatch is a log that tells when a line with certain words was written.
type logWatch struct {
	mu   sync.Mutex
	want string
	seen chan struct{}
}

func (w *logWatch) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.want != "" && strings.Contains(string(line), w.want) {
		w.want = ""
		close(w.seen)
	}
	return len(line), nil
}

// await is closed by the next line with the given words.
func (w *logWatch) await(words string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.want, w.seen = words, make(chan struct{})
	return w.seen
}

// A setting is checked, kept, listed, and followed by a running node.
func TestSettingsOverGRPC(t *testing.T) {
	log := &logWatch{}
	conn := startServerWith(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	admin, cluster := pb.NewAdminClient(conn), pb.NewClusterClient(conn)
	list := func() map[string]*pb.Setting {
		t.Helper()
		r, err := cluster.ListSettings(ctx, &pb.ListSettingsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		byName := map[string]*pb.Setting{}
		for _, s := range r.Settings {
			byName[s.Name] = s
		}
		return byName
	}
	if s := list()["kv.retention"]; s.GetValue() != "10m" || s.GetSet() || s.GetKind() != "duration" || s.GetMin() != "1s" || s.GetMax() != "30d" || s.GetDoc() == "" {
		t.Errorf("at the start: %v", s)
	}
	followed := log.await("name=kv.retention value=5s")
	r, err := admin.SetSetting(ctx, &pb.SetSettingRequest{Name: "kv.retention", Value: "5000ms"})
	if err != nil || r.Setting.GetValue() != "5s" || !r.Setting.GetSet() {
		t.Fatalf("%v, %v", r, err)
	}
	if s := list(); s["kv.retention"].GetValue() != "5s" || !s["kv.retention"].GetSet() || s["kv.drop_rate"].GetValue() != "50000" {
		t.Errorf("after the change: %v", s)
	}
	select {
	case <-followed:
	case <-ctx.Done():
		t.Error("the node does not follow the setting")
	}
	for name, value := range map[string]string{"kv.retention": "0s", "kv.drop_rate": "-1", "kv.nope": "1"} {
		_, err := admin.SetSetting(ctx, &pb.SetSettingRequest{Name: name, Value: value})
		refused(t, name+" "+value, err, codes.InvalidArgument, nil)
		if !strings.Contains(api.Error(err).Error(), "kv.") {
			t.Errorf("%s: %v does not name it", name, err)
		}
	}
	if s := list(); s["kv.retention"].GetValue() != "5s" || s["kv.drop_rate"].GetSet() {
		t.Errorf("after refused changes: %v", s)
	}
}
