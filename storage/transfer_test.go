package storage

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// export is all chunks of a shard's snapshot.
func export(t testing.TB, e *Engine, id shard.ID) [][]byte {
	t.Helper()
	s := e.NewSnapshot()
	defer s.Close()
	x, err := s.Export(id)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	return drain(t, x)
}

func drain(t testing.TB, x *Export) [][]byte {
	t.Helper()
	var chunks [][]byte
	for {
		chunk, err := x.Next()
		if errors.Is(err, io.EOF) {
			return chunks
		}
		if err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, bytes.Clone(chunk))
	}
}

// receive is an import with all chunks added.
func receive(t testing.TB, e *Engine, id shard.ID, replica shard.ReplicaID, chunks [][]byte) *Import {
	t.Helper()
	i, err := e.NewImport(id, replica)
	if err != nil {
		t.Fatal(err)
	}
	for _, chunk := range chunks {
		if err := i.Add(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := i.Finish(); err != nil {
		t.Fatal(err)
	}
	return i
}
