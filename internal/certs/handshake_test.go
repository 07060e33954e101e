package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/kiloraft/kiloraft/shard"
)

// port listens on loopback.
func port(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	return l
}

// served is a listener whose connections are answered with a byte and kept until
// the end of the test.
type served struct {
	address string
	log     *notes
	infos   chan Info
}

func serveOn(t *testing.T, l net.Listener, log *notes) *served {
	t.Helper()
	s := &served{address: l.Addr().String(), log: log, infos: make(chan Info, 100)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if _, secure := conn.(*tls.Conn); secure {
				_, info, err := Accepting().ServerHandshake(conn)
				if err != nil {
					t.Error(err)
					return
				}
				s.infos <- info.(Info)
			}
			_, _ = conn.Write([]byte("!"))
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		<-ended
	})
	return s
}

// serve serves with the node's certificates in dir.
func serve(t *testing.T, dir string) *served {
	t.Helper()
	log := newNotes()
	s, err := OpenNode(dir, "", log.logger())
	ok(t, err)
	return serveOn(t, s.ListenGRPC(port(t), log.logger()), log)
}

// dial connects with creds to a name, wherever that leads, and reads a byte.
func dial(t *testing.T, creds credentials.TransportCredentials, address, name string) (Info, error) {
	t.Helper()
	raw, err := net.Dial("tcp", address)
	ok(t, err)
	defer raw.Close()
	ctx := within(t)
	_, number, err := net.SplitHostPort(address)
	ok(t, err)
	conn, info, err := creds.ClientHandshake(ctx, net.JoinHostPort(name, number), raw)
	if err != nil {
		return Info{}, err
	}
	defer conn.Close()
	ok(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	// gRPC speaks first. What is wrong is read, if anything is.
	_, _ = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return Info{}, err
	}
	known, _ := info.(Info)
	return known, nil
}

// within is a context with more time than anything should take.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func clientOf(t *testing.T, dir, name string) credentials.TransportCredentials {
	t.Helper()
	s, err := OpenClient(dir, name, newNotes().logger())
	ok(t, err)
	return s.Dialing()
}

// unchecked are credentials from files that nobody would load.
func unchecked(t *testing.T, dir, name string) *Source {
	t.Helper()
	trusted, err := readAuthorities(dir)
	ok(t, err)
	chain, err := readCerts(dir, name)
	ok(t, err)
	key, err := readKey(dir, name)
	ok(t, err)
	b := &bundle{roots: x509.NewCertPool(), file: certFile(dir, name), identity: IdentityOf(chain[0])}
	b.cert = tls.Certificate{Certificate: [][]byte{chain[0].Raw}, PrivateKey: key, Leaf: chain[0]}
	for _, c := range trusted {
		b.roots.AddCert(c)
	}
	s := &Source{log: newNotes().logger(), current: b, now: func() time.Time { return time.Time{} }}
	return s
}

func wasDenied(t *testing.T, err error, words ...string) {
	t.Helper()
	var denied *shard.DeniedError
	if !errors.As(err, &denied) {
		t.Errorf("the error is %T, want a DeniedError", err)
	}
	says(t, err, words...)
}

func TestHandshake(t *testing.T) {
	dir := folder(t)
	s := serve(t, dir)
	for name, role := range map[string]Role{"alice": Client, "root": Admin} {
		for _, host := range []string{"127.0.0.1", "localhost"} {
			info, err := dial(t, clientOf(t, dir, name), s.address, host)
			if err != nil || info.Identity.Role != Node {
				t.Errorf("%s at %s: %v, %v", name, host, info.Identity, err)
				continue
			}
			if got := (<-s.infos).Identity; got.Role != role || got.Name != name {
				t.Errorf("%s is seen as %v", name, got)
			}
		}
	}
	node, err := OpenNode(dir, "localhost", s.log.logger())
	ok(t, err)
	if _, err := dial(t, node.Dialing(), s.address, "localhost"); err != nil {
		t.Errorf("a node at a node: %v", err)
	}
	if got := (<-s.infos); got.Identity.Role != Node || got.Covers("127.0.0.1") != nil {
		t.Errorf("a node is seen as %v", got.Identity)
	} else {
		wasDenied(t, got.Covers("10.0.0.1"), "and not for 10.0.0.1")
	}
	if s.log.count("refused") != 0 {
		t.Errorf("refused somebody:\n%s", s.log.text.String())
	}
}

// What a client does not accept in a node.
func TestClientRefusesNodes(t *testing.T) {
	dir := folder(t)
	alice := clientOf(t, dir, "alice")
	t.Run("another authority", func(t *testing.T) {
		s := serve(t, folder(t))
		_, err := dial(t, alice, s.address, "localhost")
		wasDenied(t, err, "the certificate of the node at localhost:", "is not signed by an authority that is trusted here")
		s.log.await(t, "it refuses this node: tls:")
	})
	t.Run("another name", func(t *testing.T) {
		s := serve(t, dir)
		_, err := dial(t, alice, s.address, "127.0.0.2")
		wasDenied(t, err, "is for localhost, 127.0.0.1 and not for 127.0.0.2")
		s.log.await(t, "it refuses this node: tls:")
	})
	for what, c := range map[string]struct {
		role   Role
		change func(*x509.Certificate)
		says   string
	}{
		"expired":          {Node, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, "expired on 2"},
		"not yet valid":    {Node, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, "is not valid before 2"},
		"not for servers":  {Node, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }, "is not made for this use"},
		"a client's":       {Client, func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }, "(role client), and a node's is needed"},
		"without any role": {Node, func(c *x509.Certificate) { c.URIs = nil }, "(no role), and a node's is needed"},
	} {
		t.Run(what, func(t *testing.T) {
			forge(t, dir, "odd", c.role, []string{"localhost"}, c.change)
			log := newNotes()
			s := serveOn(t, unchecked(t, dir, "odd").ListenGRPC(port(t), log.logger()), log)
			_, err := dial(t, alice, s.address, "localhost")
			wasDenied(t, err, c.says)
			s.log.await(t, "it refuses this node: tls:")
		})
	}
	t.Run("never ends", func(t *testing.T) {
		l := port(t)
		defer l.Close()
		raw, err := net.Dial("tcp", l.Addr().String())
		ok(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, _, err = alice.ClientHandshake(ctx, "localhost:1", raw)
		says(t, err, "localhost:1 does not finish the TLS handshake")
	})
	t.Run("hangs up", func(t *testing.T) {
		l := port(t)
		defer l.Close()
		go func() {
			if conn, err := l.Accept(); err == nil {
				_ = conn.Close()
			}
		}()
		raw, err := net.Dial("tcp", l.Addr().String())
		ok(t, err)
		_, _, err = alice.ClientHandshake(within(t), "localhost:1", raw)
		says(t, err, "localhost:1 ended the connection during the TLS handshake")
	})
}

// What a node does not accept in a client: both sides say why.
func TestNodeRefusesClients(t *testing.T) {
	dir := folder(t)
	s := serve(t, dir)
	for what, c := range map[string]struct {
		change       func(*x509.Certificate)
		client, node string
	}{
		"expired":         {func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, "it has expired or is not valid yet", "expired on 2"},
		"not yet valid":   {func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, "it has expired or is not valid yet", "is not valid before 2"},
		"not for clients": {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "it is not acceptable", "is not made for this use"},
	} {
		t.Run(what, func(t *testing.T) {
			forge(t, dir, "odd", Client, nil, c.change)
			_, err := dial(t, unchecked(t, dir, "odd").Dialing(), s.address, "localhost")
			wasDenied(t, err, "the node at localhost:", "refuses "+certFile(dir, "odd"), c.client)
			s.log.await(t, c.node)
		})
	}
	t.Run("another authority", func(t *testing.T) {
		other := folder(t)
		text, err := os.ReadFile(certFile(dir, caName)) // the client trusts the node's
		ok(t, err)
		ok(t, os.WriteFile(certFile(other, caName), text, 0o600))
		_, err = dial(t, unchecked(t, other, "client.alice").Dialing(), s.address, "localhost")
		wasDenied(t, err, "the node at localhost:", "it is not signed by an authority that the node trusts")
		s.log.await(t, `of \"alice\" (role client), is not signed by an authority that is trusted here`)
	})
	t.Run("no certificate", func(t *testing.T) {
		conn, err := tls.Dial("tcp", s.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
		ok(t, err)
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
		says(t, err, "certificate required")
		s.log.await(t, "client didn't provide a certificate")
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		_, err := tls.Dial("tcp", s.address, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
		says(t, err, "protocol version")
		s.log.await(t, "unsupported versions")
	})
	t.Run("another protocol", func(t *testing.T) {
		_, err := tls.Dial("tcp", s.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"acme"}})
		says(t, err, "no application protocol")
		s.log.await(t, "unsupported application protocols")
	})
	t.Run("plaintext", func(t *testing.T) {
		_, err := dial(t, Plaintext(), s.address, "localhost")
		wasDenied(t, err, "speaks TLS", "--certs-dir")
		s.log.await(t, "it does not speak TLS; clients need --certs-dir")
	})
	t.Run("plaintext HTTP", func(t *testing.T) {
		raw, err := net.Dial("tcp", s.address)
		ok(t, err)
		defer raw.Close()
		_, err = io.WriteString(raw, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
		ok(t, err)
		answer, err := io.ReadAll(raw)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.0 400 ") || !strings.Contains(string(answer), "speaks TLS") {
			t.Errorf("answered %q, %v", answer, err)
		}
	})
	if _, err := dial(t, clientOf(t, dir, "alice"), s.address, "localhost"); err != nil {
		t.Errorf("a good client after all these: %v", err)
	}
}

// A caller that speaks TLS on a plaintext port is told so, and so is the log.
func TestTLSOnAPlaintextPort(t *testing.T) {
	log := newNotes()
	l := ListenPlaintext(port(t), log.logger())
	defer l.Close()
	read := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, err = conn.Read(make([]byte, 4096))
			_ = conn.Close()
		}
		read <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	ok(t, err)
	_, _, err = clientOf(t, folder(t), "alice").ClientHandshake(within(t), "localhost:1", raw)
	wasDenied(t, err, "localhost:1 does not speak TLS")
	if err := <-read; err != errSpeaksTLS {
		t.Errorf("the port read %v", err)
	}
	log.await(t, "it speaks TLS, and this node was started with --insecure")
}

// silent connects and says nothing.
func silent(t *testing.T, address string) net.Conn {
	t.Helper()
	raw, err := net.Dial("tcp", address)
	ok(t, err)
	t.Cleanup(func() { _ = raw.Close() })
	ok(t, raw.SetReadDeadline(time.Now().Add(20*time.Second)))
	return raw
}

// ends waits until the other side has ended a connection.
func ends(t *testing.T, conn net.Conn) {
	t.Helper()
	var late net.Error
	if _, err := io.Copy(io.Discard, conn); errors.As(err, &late) && late.Timeout() {
		t.Error("the connection was kept")
	}
}

func TestHandshakeThatNeverEnds(t *testing.T) {
	dir, log := folder(t), newNotes()
	s, err := OpenNode(dir, "", log.logger())
	ok(t, err)
	v := serveOn(t, s.listen(port(t), log.logger(), 50*time.Millisecond, 10, protocol), log)
	ends(t, silent(t, v.address))
	half := silent(t, v.address)
	_, err = half.Write([]byte("\x16\x03\x01\x02\x00")) // the head of a hello
	ok(t, err)
	ends(t, half)
	log.await(t, "it did not show who it is within")
}

// Of too many handshakes the oldest gives way, and who can show a certificate
// still gets in.
func TestHandshakesAreBounded(t *testing.T) {
	dir, log := folder(t), newNotes()
	s, err := OpenNode(dir, "", log.logger())
	ok(t, err)
	l := s.listen(port(t), log.logger(), time.Hour, 2, protocol)
	v := serveOn(t, l, log)
	first, second, third := silent(t, v.address), silent(t, v.address), silent(t, v.address)
	ends(t, first)
	log.await(t, "oldest of too many")
	if _, err := dial(t, clientOf(t, dir, "alice"), v.address, "localhost"); err != nil {
		t.Error(err)
	}
	ends(t, second)
	l.mu.Lock()
	if n := l.pending.Len(); n > 2 {
		t.Errorf("%d handshakes at a time", n)
	}
	l.mu.Unlock()
	ok(t, l.Close())
	ends(t, third)
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after the end: %v", err)
	}
}

// Refusals are logged at a bounded rate.
func TestRefusalsAreBounded(t *testing.T) {
	log := newNotes()
	r := &Refusals{Log: log.logger()}
	for range 3 * refusalsLogged {
		r.Say(&net.TCPAddr{}, "odd")
	}
	if got := log.count("reason=odd"); got != refusalsLogged {
		t.Errorf("logged %d times, want %d", got, refusalsLogged)
	}
	r.began = r.began.Add(-refusalsEvery)
	r.Say(&net.TCPAddr{}, "odd")
	log.await(t, "count=40")
}

// leadsTo is a connection that says where it leads.
type leadsTo struct {
	net.Conn
	address net.Addr
}

func (c leadsTo) RemoteAddr() net.Addr { return c.address }

// A name may lead anywhere, so the connection itself is looked at, before
// anything is sent on it.
func TestPlaintextStaysOnLoopback(t *testing.T) {
	creds := Plaintext()
	for ip, stays := range map[string]bool{"127.0.0.1": true, "127.8.9.1": true, "::1": true, "192.0.2.7": false, "2001:db8::1": false, "0.0.0.0": false} {
		conn := leadsTo{address: &net.TCPAddr{IP: net.ParseIP(ip), Port: 7400}}
		_, _, err := creds.Clone().ClientHandshake(context.Background(), "name", conn)
		if stays != (err == nil) || err != nil && !strings.Contains(err.Error(), "--certs-dir") {
			t.Errorf("a connection to %s: %v", ip, err)
		}
	}
	for address, fine := range map[string]bool{"localhost:7400": true, "127.0.0.1:7400": true, "[::1]:7400": true, "some-name:7400": true, "192.0.2.7:7400": false, "7400": false} {
		if err := CheckLoopback(address); fine != (err == nil) {
			t.Errorf("address %s: %v", address, err)
		}
	}
}

// A watched connection gives the reason back that gRPC would flatten.
func TestWatched(t *testing.T) {
	w := Watch(clientOf(t, folder(t), "alice"))
	flat := errors.New("flat")
	if w.Reason(flat) != flat || w.Reason(nil) != nil {
		t.Error("nothing was denied")
	}
	s := serve(t, folder(t))
	if _, err := dial(t, w.Clone(), s.address, "localhost"); err == nil {
		t.Error("another authority was accepted")
	}
	wasDenied(t, w.Reason(flat), "is not signed by")
	if w.Reason(nil) != nil {
		t.Error("no error has a reason")
	}
}
