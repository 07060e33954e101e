package node

import (
	"errors"
	"log/slog"
	"maps"
	"testing"

	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// What the records say of nodes reaches the address book, and the store: those that
// were decommissioned are forgotten, and a node that is one of them ends.
func TestDecommissionedNodesAreForgotten(t *testing.T) {
	engine, _ := recoverable(t)
	book, err := OpenAddressBook(engine)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := book.Learn(map[shard.NodeID]string{1: "a:1", 2: "b:1", 3: "c:1"}); err != nil {
		t.Fatal(err)
	}
	var stopped error
	stops := 0
	n := &Node{addresses: book, log: slog.New(slog.DiscardHandler)}
	n.cfg.Identity = storage.Identity{Node: 2}
	n.cfg.Stop = func(why error) { stopped = why; stops++ }
	if !n.learnRecords([]router.Node{{ID: 1, Address: "a:1"}, {ID: 2, Address: "b:1"}, {ID: 3, Address: "c:1", State: shard.Removed}}) {
		t.Fatal("a node that serves ends")
	}
	want := map[shard.NodeID]string{1: "a:1", 2: "b:1"}
	if got := book.All(); !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	again, err := OpenAddressBook(engine)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.All(); !maps.Equal(got, want) {
		t.Errorf("after a restart: %v", got)
	}
	if n.learnRecords([]router.Node{{ID: 1, Address: "a:1"}, {ID: 2, Address: "b:1", State: shard.Removed}}) || stops != 1 || !errors.Is(stopped, catalog.ErrRemoved) {
		t.Errorf("stopped %d times: %v", stops, stopped)
	}
}

// Whoever writes the book may have to wait for the store. Those who look something up,
// and those who have nothing new to tell, do not wait for that.
func TestAddressBookIsReadWhileItIsWritten(t *testing.T) {
	engine, _ := recoverable(t)
	book, err := OpenAddressBook(engine)
	if err != nil {
		t.Fatal(err)
	}
	news := map[shard.NodeID]string{1: "a:1"}
	if changed, err := book.Learn(news); err != nil || !changed {
		t.Fatal(changed, err)
	}
	book.writing.Lock() // as while a change is committed
	defer book.writing.Unlock()
	if got := book.Lookup(1); got != "a:1" {
		t.Errorf("%q", got)
	}
	if changed, err := book.Learn(news); err != nil || changed {
		t.Error(changed, err)
	}
	if err := book.Forget([]shard.NodeID{2}); err != nil {
		t.Error(err)
	}
}
