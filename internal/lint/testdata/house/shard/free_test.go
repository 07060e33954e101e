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
	t.Skip("not here")  //lacking: a disk of its own
	//lacking:
	t.Skip("nor there") // want tests "skip"
}
