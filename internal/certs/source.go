package certs

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

const (
	// checkEvery is how often a Source looks at its files at most.
	checkEvery = 2 * time.Second
	// expirySoon is how long before the end of a certificate logs say so.
	expirySoon = 30 * day
)

// Source has the certificates of one node or client, and follows their files.
// It is safe for concurrent use.
type Source struct {
	dir, name, host string
	log             *slog.Logger
	now             func() time.Time

	mu      sync.Mutex
	checked time.Time // when the files were looked at
	stamps  [3]stamp  // of what is loaded
	failed  [3]stamp  // of what could not be loaded, and was logged
	current *bundle
}

// stamp changes when a file does.
type stamp struct {
	there    bool
	modified time.Time
	bytes    int64
	mode     fs.FileMode
}

// OpenNode loads a node's certificate, which must be valid and cover host: that
// of the address at which others reach the node. log must not be nil.
func OpenNode(dir, host string, log *slog.Logger) (*Source, error) {
	return open(dir, nodeName, host, log, time.Now)
}

// OpenClient loads the certificate of client name or, if that is "", of the only
// client in the folder. log is told of reloads.
func OpenClient(dir, name string, log *slog.Logger) (*Source, error) {
	if name == "" {
		names, err := ClientNames(dir)
		switch {
		case err != nil:
			return nil, err
		case len(names) == 0:
			return nil, unusable(dir, "holds no certificate of a client; kiloraft cert create-client NAME makes one")
		case len(names) > 1:
			return nil, &SeveralClientsError{Dir: dir, Names: names}
		}
		name = names[0]
	}
	if !clientNames.MatchString(name) { // it becomes part of a path
		return nil, &shard.InvalidError{Field: "client", Reason: "is no name of a client's certificate"}
	}
	return open(dir, clientPrefix+name, "", log, time.Now)
}

// SeveralClientsError: a folder holds several clients' certificates, and none was named.
type SeveralClientsError struct {
	Dir   string
	Names []string // in order
}

func (e *SeveralClientsError) Error() string {
	return e.Dir + " holds the certificates of several clients, " + strings.Join(e.Names, ", ") + "; name one"
}

func open(dir, name, host string, log *slog.Logger, now func() time.Time) (*Source, error) {
	s := &Source{dir: dir, name: name, host: host, log: log, now: now}
	s.checked, s.stamps = s.now(), s.look()
	var err error
	if s.current, err = load(dir, name, host, s.now()); err != nil {
		return nil, err
	}
	s.logExpiry()
	return s, nil
}

// Identity is that of the certificate.
func (s *Source) Identity() Identity { return s.bundle().identity }

// Expires is when the certificate does.
func (s *Source) Expires() time.Time { return s.bundle().cert.Leaf.NotAfter }

// bundle is what handshakes use now. It looks at the files if it is time to.
func (s *Source) bundle() *bundle {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if now.Sub(s.checked) < checkEvery {
		return s.current
	}
	s.checked = now
	found := s.look()
	if found == s.stamps {
		return s.current
	}
	b, err := load(s.dir, s.name, s.host, now)
	switch {
	case err == nil:
		s.current, s.stamps, s.failed = b, found, [3]stamp{}
		s.log.Info("certificates loaded again", "file", b.file, "identity", b.identity, "until", b.cert.Leaf.NotAfter)
		s.logExpiry()
	case found != s.failed:
		// Said once; they are tried again at the next look.
		s.failed = found
		s.log.Error("new certificates cannot be used; the ones of before stay in use", "err", err)
	}
	return s.current
}

func (s *Source) logExpiry() {
	leaf := s.current.cert.Leaf
	if left := leaf.NotAfter.Sub(s.now()); left < expirySoon && leaf.NotAfter.Sub(leaf.NotBefore) > expirySoon {
		s.log.Warn("a certificate expires soon", "file", s.current.file, "until", leaf.NotAfter)
	}
}

// look takes the stamps of all files.
func (s *Source) look() [3]stamp {
	var found [3]stamp
	for i, path := range []string{certFile(s.dir, caName), certFile(s.dir, s.name), keyFile(s.dir, s.name)} {
		if info, err := os.Stat(path); err == nil {
			found[i] = stamp{there: true, modified: info.ModTime(), bytes: info.Size(), mode: info.Mode()}
		} else if !errors.Is(err, fs.ErrNotExist) {
			found[i] = stamp{modified: s.checked} // try to read it: the error says more
		}
	}
	return found
}
