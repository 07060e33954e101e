package api

import (
	"errors"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

func TestDescriptorThereAndBack(t *testing.T) {
	want := testDescriptor()
	b, err := proto.Marshal(FromDescriptor(&want))
	if err != nil {
		t.Fatal(err)
	}
	var m kiloraftpb.Descriptor
	if err := proto.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	got, err := ToDescriptor(&m)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	m.Start[0] ^= 0xff
	if !reflect.DeepEqual(got, want) {
		t.Error("the descriptor shares memory with its message")
	}
}

func TestDescriptorRefused(t *testing.T) {
	if _, err := ToDescriptor(nil); !errors.Is(err, shard.ErrMalformed) {
		t.Errorf("nil: %v", err)
	}
	for name, spoil := range map[string]func(*kiloraftpb.Descriptor){
		"shard 0":          func(m *kiloraftpb.Descriptor) { m.Id = 0 },
		"no epoch":         func(m *kiloraftpb.Descriptor) { m.Epoch = nil },
		"version 0":        func(m *kiloraftpb.Descriptor) { m.Epoch.Version = 0 },
		"conf version 0":   func(m *kiloraftpb.Descriptor) { m.Epoch.ConfVersion = 0 },
		"inverted span":    func(m *kiloraftpb.Descriptor) { m.Start, m.End = m.End, m.Start },
		"empty span":       func(m *kiloraftpb.Descriptor) { m.End = m.Start },
		"unbounded":        func(m *kiloraftpb.Descriptor) { m.End = nil },
		"two keyspaces":    func(m *kiloraftpb.Descriptor) { m.Start = []byte{shard.SystemKeyspace} },
		"role 0":           func(m *kiloraftpb.Descriptor) { m.Replicas[0].Role = 0 },
		"role 5":           func(m *kiloraftpb.Descriptor) { m.Replicas[0].Role = 5 },
		"role 257":         func(m *kiloraftpb.Descriptor) { m.Replicas[0].Role = 257 },
		"node 0":           func(m *kiloraftpb.Descriptor) { m.Replicas[0].Node = 0 },
		"replica 0":        func(m *kiloraftpb.Descriptor) { m.Replicas[0].Id = 0 },
		"nil replica":      func(m *kiloraftpb.Descriptor) { m.Replicas[0] = nil },
		"unordered":        func(m *kiloraftpb.Descriptor) { m.Replicas[0].Id = 4 },
		"next replica low": func(m *kiloraftpb.Descriptor) { m.NextReplica = 4 },
		"too many":         func(m *kiloraftpb.Descriptor) { m.Replicas = manyReplicas(65); m.NextReplica = 100 },
	} {
		d := testDescriptor()
		m := FromDescriptor(&d)
		spoil(m)
		if got, err := ToDescriptor(m); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func manyReplicas(n int) []*kiloraftpb.Replica {
	var rs []*kiloraftpb.Replica
	for i := range n {
		rs = append(rs, &kiloraftpb.Replica{Id: uint64(i + 1), Node: uint64(i + 1), Role: uint32(shard.Voter)})
	}
	return rs
}

// FuzzDescriptor: foreign messages are refused or give a descriptor that keeps
// its meaning when it is sent on.
func FuzzDescriptor(f *testing.F) {
	d := testDescriptor()
	seed, err := proto.Marshal(FromDescriptor(&d))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m kiloraftpb.Descriptor
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		got, err := ToDescriptor(&m)
		if err != nil {
			if !errors.Is(err, shard.ErrMalformed) {
				t.Fatalf("an error outside the closed set: %v", err)
			}
			return
		}
		again, err := ToDescriptor(FromDescriptor(&got))
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("%+v became %+v, %v", got, again, err)
		}
	})
}

func TestClusterID(t *testing.T) {
	want := shard.ClusterID{1, 2, 3}
	if got, err := ToClusterID(want[:]); err != nil || got != want {
		t.Errorf("%v, %v", got, err)
	}
	for _, b := range [][]byte{nil, make([]byte, 15), make([]byte, 16), make([]byte, 17)} {
		if _, err := ToClusterID(b); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
}
