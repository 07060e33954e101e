package certs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFilesAndModes(t *testing.T) {
	dir := folder(t)
	want := map[string]os.FileMode{"ca.crt": 0o644, "ca.key": 0o600, "node.crt": 0o644, "node.key": 0o600,
		"client.alice.crt": 0o644, "client.alice.key": 0o600, "client.root.crt": 0o644, "client.root.key": 0o600}
	entries, err := os.ReadDir(dir)
	ok(t, err)
	if len(entries) != len(want) {
		t.Errorf("there are %v", entries)
	}
	for name, mode := range want {
		if got := modeOf(t, filepath.Join(dir, name)); got != mode {
			t.Errorf("%s has mode %o, want %o", name, got, mode)
		}
	}
	if got := modeOf(t, dir); got != 0o700 {
		t.Errorf("the folder has mode %o", got)
	}
	names, err := ClientNames(dir)
	if err != nil || !slices.Equal(names, []string{"alice", "root"}) {
		t.Errorf("clients %v, %v", names, err)
	}
}

// What a certificate says: role, hosts, time.
func TestWhatIsCreated(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	r := Request{Dir: t.TempDir(), ValidFor: 100 * day, Now: now}
	ca, err := CreateCA(r)
	ok(t, err)
	node, err := CreateNode(Request{Dir: r.Dir, ValidFor: 10 * day, Now: now}, []string{"n1.example.org", "10.0.0.1", "::1", "n1.example.org", "*.example.com"})
	ok(t, err)
	client, err := CreateClient(Request{Dir: r.Dir, Now: now}, "a.b-c_1", false)
	ok(t, err)
	if ca.Role != NoRole || node.Role != Node || client.Role != Client || client.Name != "a.b-c_1" {
		t.Errorf("made %+v, %+v, %+v", ca, node, client)
	}
	if want := []string{"n1.example.org", "10.0.0.1", "::1", "*.example.com"}; !slices.Equal(node.Hosts, want) {
		t.Errorf("hosts %v, want %v", node.Hosts, want)
	}
	if !node.Until.Equal(now.Add(10*day)) || !node.From.Equal(now.Add(-skew)) || !ca.Until.Equal(now.Add(100*day)) {
		t.Errorf("valid from %v to %v, the authority to %v", node.From, node.Until, ca.Until)
	}
	if !client.Until.Equal(ca.Until) {
		t.Errorf("a client outlives its authority: until %v, %v", client.Until, ca.Until)
	}
	if ca.Serial == node.Serial || node.Serial == client.Serial || len(node.Serial) < 16 {
		t.Errorf("serials %s, %s, %s", ca.Serial, node.Serial, client.Serial)
	}
	certs, err := readCerts(r.Dir, nodeName)
	ok(t, err)
	for host, want := range map[string]bool{"n1.example.org": true, "10.0.0.1": true, "::1": true, "x.example.com": true,
		"n2.example.org": false, "10.0.0.2": false, "127.0.0.1": false} {
		if err := covers(certs[0], host); (err == nil) != want {
			t.Errorf("host %s: %v", host, err)
		}
	}
	says(t, covers(certs[0], "n9"), "is for n1.example.org, *.example.com, 10.0.0.1, ::1 and not for n9")
}

func TestNothingIsOverwritten(t *testing.T) {
	dir := folder(t)
	content := func() string {
		var all strings.Builder
		entries, err := os.ReadDir(dir)
		ok(t, err)
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			ok(t, err)
			all.Write(b)
		}
		return all.String()
	}
	before := content()
	r := Request{Dir: dir}
	_, err := CreateCA(r)
	says(t, err, "ca.key exists already", "--overwrite")
	_, err = CreateNode(r, []string{"n"})
	says(t, err, "node.key exists already")
	_, err = CreateClient(r, "alice", true)
	says(t, err, "client.alice.key exists already")
	ok(t, os.Remove(keyFile(dir, nodeName)))
	_, err = CreateNode(r, []string{"n"})
	says(t, err, "node.crt exists already")
	if _, err := os.Stat(keyFile(dir, nodeName)); err == nil {
		t.Error("a key was made for a certificate that was not")
	}
	r.Overwrite = true
	_, err = CreateNode(r, []string{"n"})
	ok(t, err)
	if content() == before || modeOf(t, keyFile(dir, nodeName)) != 0o600 || modeOf(t, certFile(dir, nodeName)) != 0o644 {
		t.Error("--overwrite did not replace the files as they should be")
	}
	if _, err := load(dir, nodeName, "n", time.Now()); err != nil {
		t.Error(err)
	}
}

// An authority in another folder signs, and its certificate comes along.
func TestAuthorityElsewhere(t *testing.T) {
	ca := Request{Dir: t.TempDir()}
	_, err := CreateCA(ca)
	ok(t, err)
	r := Request{Dir: filepath.Join(t.TempDir(), "n1"), CADir: ca.Dir}
	_, err = CreateNode(r, []string{"n1"})
	ok(t, err)
	_, err = CreateClient(r, "bob", false)
	ok(t, err)
	if _, err := os.Stat(keyFile(r.Dir, caName)); err == nil {
		t.Error("the authority's key went along")
	}
	if _, err := load(r.Dir, nodeName, "n1", time.Now()); err != nil {
		t.Error(err)
	}
	other := Request{Dir: t.TempDir()}
	_, err = CreateCA(other)
	ok(t, err)
	r.CADir = other.Dir
	_, err = CreateClient(r, "eve", false)
	says(t, err, certFile(r.Dir, caName), "does not hold the authority", "cat "+certFile(other.Dir, caName))
	// Both are trusted once both are there, and each finds its own key.
	both, err := os.ReadFile(certFile(ca.Dir, caName))
	ok(t, err)
	second, err := os.ReadFile(certFile(other.Dir, caName))
	ok(t, err)
	ok(t, os.WriteFile(certFile(r.Dir, caName), append(both, second...), 0o644))
	_, err = CreateClient(r, "eve", false)
	ok(t, err)
	for _, name := range []string{"client.bob", "client.eve"} {
		if _, err := load(r.Dir, name, "", time.Now()); err != nil {
			t.Error(err)
		}
	}
}

func TestBadRequests(t *testing.T) {
	dir := folder(t)
	r := Request{Dir: dir}
	for _, hosts := range [][]string{nil, {""}, {"a b"}, {"n1:7400"}, {"0.0.0.0"}, {"::"}, {"-a"}, {"a..b"}, {"a/b"}, {strings.Repeat("a.", 127) + "aa"}, {"fe80::1%eth0"}, {"*"}, {"ok", "\x00"}} {
		if _, err := CreateNode(r, hosts); err == nil || !strings.HasPrefix(err.Error(), "HOST ") {
			t.Errorf("hosts %q: %v", hosts, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "../a", "-a", "a b", "ä", strings.Repeat("a", 65)} {
		if _, err := CreateClient(r, name, false); err == nil || !strings.HasPrefix(err.Error(), "NAME ") {
			t.Errorf("name %q: %v", name, err)
		}
	}
	for _, d := range []time.Duration{-time.Hour, time.Second, 101 * 365 * day} {
		_, err := CreateCA(Request{Dir: dir, ValidFor: d})
		says(t, err, "--valid-for")
	}
	_, err := CreateCA(Request{})
	says(t, err, "--certs-dir is missing")
	_, err = CreateNode(Request{Dir: t.TempDir()}, []string{"n"})
	says(t, err, "ca.crt does not exist; kiloraft cert create-ca makes it")
	_, err = CreateNode(Request{Dir: dir, Now: time.Now().Add(20 * 365 * day)}, []string{"n"})
	says(t, err, "ca.crt expired on 2")
	open := t.TempDir()
	ok(t, os.Chmod(open, 0o777))
	_, err = CreateCA(Request{Dir: open})
	says(t, err, "can be changed by others (mode 0777)", "chmod 700")
	ok(t, os.Chmod(keyFile(dir, caName), 0o640))
	_, err = CreateClient(r, "new", false)
	says(t, err, "ca.key can be read or written by others (mode 0640)", "chmod 600")
	ok(t, os.Remove(keyFile(dir, caName)))
	_, err = CreateClient(r, "new", false)
	says(t, err, "ca.key does not exist")
}

// A file that cannot be put in its place is not left beside it: it may be a key.
func TestNothingIsLeftOfAFileThatCannotBeReplaced(t *testing.T) {
	dir := t.TempDir()
	blocked := filepath.Join(dir, "node.key")
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := write(true, output{blocked, []byte("secret"), 0o600}); err == nil {
		t.Fatal("a folder was replaced")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}
