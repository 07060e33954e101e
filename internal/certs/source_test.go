package certs

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// stepped is a clock that a test moves.
type stepped struct{ t time.Time }

func (c *stepped) now() time.Time { return c.t }

// openStepped opens a node's source with such a clock.
func openStepped(t *testing.T, dir string) (*Source, *stepped, *notes) {
	t.Helper()
	clock, log := &stepped{time.Now()}, newNotes()
	s, err := open(dir, nodeName, "127.0.0.1", log.logger(), clock.now)
	ok(t, err)
	return s, clock, log
}

func renew(t *testing.T, dir string, hosts ...string) string {
	t.Helper()
	c, err := CreateNode(Request{Dir: dir, Overwrite: true}, hosts)
	ok(t, err)
	return c.Serial
}

func serial(s *Source) string { return s.bundle().cert.Leaf.SerialNumber.Text(16) }

func TestReload(t *testing.T) {
	dir := folder(t)
	s, clock, log := openStepped(t, dir)
	first := serial(s)
	second := renew(t, dir, "127.0.0.1")
	if got := serial(s); got != first {
		t.Error("files were looked at before it was time")
	}
	clock.t = clock.t.Add(checkEvery)
	if got := serial(s); got != second {
		t.Errorf("the certificate in use is %s, want the new one, %s", got, second)
	}
	log.await(t, "certificates loaded again")
	clock.t = clock.t.Add(checkEvery)
	if serial(s) != second || log.count("loaded again") != 1 {
		t.Error("loaded again although nothing has changed")
	}
	// A second authority beside the first one.
	before := s.bundle().roots
	other := Request{Dir: t.TempDir()}
	_, err := CreateCA(other)
	ok(t, err)
	f, err := os.OpenFile(certFile(dir, caName), os.O_APPEND|os.O_WRONLY, 0)
	ok(t, err)
	more, err := os.ReadFile(certFile(other.Dir, caName))
	ok(t, err)
	_, err = f.Write(more)
	ok(t, err)
	ok(t, f.Close())
	clock.t = clock.t.Add(checkEvery)
	if s.bundle().roots.Equal(before) {
		t.Error("a new authority is not trusted")
	}
}

// New files that cannot be used change nothing, and are said once.
func TestReloadKeepsWhatWorks(t *testing.T) {
	dir := folder(t)
	s, clock, log := openStepped(t, dir)
	first := serial(s)
	tick := func() string {
		clock.t = clock.t.Add(checkEvery)
		return serial(s)
	}
	for what, harm := range map[string]func(){
		"cut in the middle of the file": func() { ok(t, os.Truncate(certFile(dir, nodeName), 300)) },
		"for another host":              func() { renew(t, dir, "n9") },
		"gone":                          func() { ok(t, os.Remove(keyFile(dir, nodeName))) },
		"readable by others":            func() { renew(t, dir, "127.0.0.1"); ok(t, os.Chmod(keyFile(dir, nodeName), 0o644)) },
	} {
		logged := log.count("cannot be used")
		harm()
		at, later := tick(), tick()
		if at != first || later != first {
			t.Errorf("%s: the certificate of before is not in use", what)
		}
		if got := log.count("cannot be used"); got != logged+1 {
			t.Errorf("%s: logged %d times, want once", what, got-logged)
		}
	}
	if good := renew(t, dir, "127.0.0.1"); tick() != good {
		t.Error("good files after bad ones are not used")
	}
}

func TestExpirySoonIsLogged(t *testing.T) {
	dir := folder(t)
	r := Request{Dir: dir, Overwrite: true, ValidFor: 40 * day}
	_, err := CreateNode(r, []string{"127.0.0.1"})
	ok(t, err)
	log := newNotes()
	_, err = open(dir, nodeName, "", log.logger(), time.Now)
	ok(t, err)
	if log.count("expires soon") != 0 {
		t.Error("40 days are soon")
	}
	_, err = open(dir, nodeName, "", log.logger(), func() time.Time { return time.Now().Add(20 * day) })
	ok(t, err)
	log.await(t, "expires soon")
	log.await(t, filepath.Base(certFile(dir, nodeName)))
}
