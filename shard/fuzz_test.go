package shard

import (
	"bytes"
	"errors"
	"testing"
)

// Each decoder refuses what it cannot read with ErrMalformed, and what it can
// read it writes again in a form that it reads alike.

func refused(t *testing.T, err error) bool {
	t.Helper()
	if err != nil && !errors.Is(err, ErrMalformed) {
		t.Fatalf("error %v does not wrap ErrMalformed", err)
	}
	return err != nil
}

func FuzzDecodeCommand(f *testing.F) {
	for _, s := range sampleCommands() {
		b := AppendCommand(nil, &s.c)
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c, again Command
		if refused(t, DecodeCommand(b, &c)) {
			return
		}
		_ = c.Check()
		if err := DecodeCommand(AppendCommand(nil, &c), &again); err != nil || !sameCommand(&c, &again) {
			t.Fatalf("%+v became %+v, %v", c, again, err)
		}
	})
}

func FuzzDecodeRequests(f *testing.F) {
	b := BeginRequests(nil)
	f.Add(b)
	for i, s := range sampleCommands() {
		b = AppendRequest(b, &Request{ID: uint64(i), Target: Target{1, 2, 3, 4}, Command: AppendCommand(nil, &s.c)})
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		again, n := BeginRequests(nil), 0
		err := DecodeRequests(b, func(q Request) { again = AppendRequest(again, &q); n++ })
		if refused(t, err) {
			return
		}
		twice, m := BeginRequests(nil), 0
		if err := DecodeRequests(again, func(q Request) { twice = AppendRequest(twice, &q); m++ }); err != nil || m != n || !bytes.Equal(again, twice) {
			t.Fatalf("%d requests became %d, %v", n, m, err)
		}
	})
}

func FuzzDecodeResponses(f *testing.F) {
	b := BeginResponses(nil, 77)
	f.Add(b)
	for i, s := range sampleErrors() {
		b = AppendResponse(b, &Response{ID: uint64(i), Err: s.err, Result: Result{Revision: 5, Found: true, Value: []byte("v"),
			Rows: []Row{{Key: []byte("\x02k"), Value: []byte("v"), Revision: 1}}, Resume: []byte("r"), Count: 3}})
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	// A row count that no page can have.
	f.Add([]byte{frameResponses, 77, 1, byte(codeOK), resultRows, 0, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		again, n := BeginResponses(nil, 77), 0
		newest, err := DecodeResponses(b, func(p Response) {
			if len(p.Result.Rows) > PageRowsMax {
				t.Fatalf("%d rows", len(p.Result.Rows))
			}
			again = AppendResponse(again, &p)
			n++
		})
		if refused(t, err) {
			return
		}
		if newest > MaxRevision {
			t.Fatalf("newest %d", newest)
		}
		twice, m := BeginResponses(nil, 77), 0
		if _, err := DecodeResponses(again, func(p Response) { twice = AppendResponse(twice, &p); m++ }); err != nil || m != n || !bytes.Equal(again, twice) {
			t.Fatalf("%d responses became %d, %v", n, m, err)
		}
	})
}

func FuzzDecodeGreeting(f *testing.F) {
	b := AppendGreeting(nil, Greeting{Cluster: ClusterID{1}, Node: 2, Incarnation: 3})
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := DecodeGreeting(b)
		if refused(t, err) {
			return
		}
		if again, err := DecodeGreeting(AppendGreeting(nil, g)); err != nil || again != g {
			t.Fatalf("%+v became %+v, %v", g, again, err)
		}
	})
}

func FuzzDecodeHello(f *testing.F) {
	b := AppendHello(nil, Hello{Cluster: ClusterID{1}, Session: 3, Node: 2})
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeHello(b)
		if refused(t, err) {
			return
		}
		if again, err := DecodeHello(AppendHello(nil, h)); err != nil || again != h {
			t.Fatalf("%+v became %+v, %v", h, again, err)
		}
	})
}

func FuzzDecodeDescriptor(f *testing.F) {
	d := sampleDescriptor()
	b := AppendDescriptor(nil, &d)
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DecodeDescriptor(b)
		if refused(t, err) {
			return
		}
		if again, err := DecodeDescriptor(AppendDescriptor(nil, &d)); err != nil || !sameDescriptor(&d, &again) {
			t.Fatalf("%+v became %+v, %v", d, again, err)
		}
	})
}

func FuzzDecodeMembershipChange(f *testing.F) {
	m := MembershipChange{Shard: 42, Epoch: Epoch{3, 500}, Changes: []Change{{Kind: Promote, Replica: 300}, {Kind: Demote, Replica: 1}}}
	b := AppendMembershipChange(nil, &m)
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add([]byte{membershipFormat, 1, 1, 1, 0xff, 0x7f})
	d := sampleDescriptor()
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMembershipChange(b)
		if refused(t, err) {
			return
		}
		again := AppendMembershipChange(nil, &m)
		if m2, err := DecodeMembershipChange(again); err != nil || !bytes.Equal(AppendMembershipChange(nil, &m2), again) {
			t.Fatalf("%+v became %+v, %v", m, m2, err)
		}
		// Whatever a change makes of a descriptor can be written and read.
		m.Shard, m.Epoch = d.ID, d.Epoch
		if next, err := m.Apply(&d); err == nil {
			if _, err := DecodeDescriptor(AppendDescriptor(nil, &next)); err != nil {
				t.Fatalf("%+v made %+v: %v", m, next, err)
			}
		}
	})
}

func FuzzDecodeError(f *testing.F) {
	for _, s := range sampleErrors() {
		b := AppendError(nil, s.err)
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte{200})
	f.Fuzz(func(t *testing.T, b []byte) {
		sent, err := DecodeError(b)
		if refused(t, err) {
			return
		}
		if again, err := DecodeError(AppendError(nil, sent)); err != nil || !sameError(again, sent) {
			t.Fatalf("%v became %v, %v", sent, again, err)
		}
	})
}

func FuzzParseUserKey(f *testing.F) {
	for _, s := range []string{"", "plain", `a\\b`, `\x00\xff`, `\x0`, `\`, `\xzz`, `\x+1`, "é", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, err := ParseUserKey(s)
		if err != nil {
			var invalid *InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("%q: %v is no InvalidError", s, err)
			}
			return
		}
		again, err := ParseUserKey(FormatUserKey(key))
		if err != nil || !bytes.Equal(again, key) {
			t.Fatalf("%q is %x, printed %q, read back %x, %v", s, key, FormatUserKey(key), again, err)
		}
	})
}

func FuzzParseClusterID(f *testing.F) {
	f.Add(ClusterID{1, 2, 3}.String())
	f.Add("00010203-0405-0607-0809-0a0b0c0d0e0g")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseClusterID(s)
		if err != nil {
			return
		}
		if again, err := ParseClusterID(id.String()); err != nil || again != id {
			t.Fatalf("%q: %v became %v, %v", s, id, again, err)
		}
	})
}
