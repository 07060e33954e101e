package shard

import (
	"testing"
	"time"
)

func TestFree(t *testing.T) {
	go time.Sleep(0)
	for range map[int]int{} {
	}
	t.Skip("not today") // want tests "skip"
}
