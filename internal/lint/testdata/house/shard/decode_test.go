package shard

import "testing"

func FuzzFirst(f *testing.F) { f.Fuzz(func(_ *testing.T, b []byte) { _ = decodeFirst(b) }) }

func TestSecond(*testing.T) { _ = decodeSecond(nil) }
