package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/internal/env/prod"
	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Offline is the store of a node that does not run, open for repairs. Close it.
type Offline struct {
	dir    string
	env    *prod.Env
	engine *storage.Engine
}

// OpenOffline opens the store of a stopped node. It makes nothing: a folder that holds
// no store is refused, and so is one that a process has open.
func OpenOffline(dir string) (*Offline, error) {
	files, err := os.ReadDir(dir)
	if err == nil && len(files) == 0 {
		err = errors.New("the folder is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	o := &Offline{dir: dir, env: prod.New()}
	o.engine, err = storage.Open(storage.Config{Dir: dir, Env: o.env, Logger: slog.New(slog.DiscardHandler),
		Fatal: func(err error) {
			fmt.Fprintf(os.Stderr, "kiloraft: store %s: %v; the process ends\n", dir, err)
			os.Exit(1)
		}})
	if err != nil {
		o.env.Close()
		if errors.Is(err, storage.ErrLocked) {
			err = fmt.Errorf("%w; stop the node first", err)
		}
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	return o, nil
}

// Close closes the store.
func (o *Offline) Close() error {
	o.env.Close()
	return o.engine.Close()
}

// Identity is whose store it is.
func (o *Offline) Identity() (storage.Identity, error) {
	id, ok, err := o.engine.Identity()
	if err == nil && !ok {
		err = node.ErrNoIdentity
	}
	return id, err
}

// PlanRecovery says what recovering each shard would mean; see node.PlanRecovery.
func (o *Offline) PlanRecovery(gone []shard.NodeID) ([]node.Recovery, error) {
	return node.PlanRecovery(o.engine, o.env, gone)
}

// Recover carries plans out.
func (o *Offline) Recover(ctx context.Context, plans []node.Recovery) error {
	_, err := await(ctx, func(done func(struct{}, error)) {
		if err := node.Recover(o.engine, plans, func() { done(struct{}{}, nil) }); err != nil {
			done(struct{}{}, err)
		}
	})
	return err
}

// answerTimeout is how long a node that is said to be gone has to show that it is not.
const answerTimeout = 2 * time.Second

// Answering finds which of the given nodes have an address in the store's address book
// at which something answers, and returns those addresses.
func (o *Offline) Answering(nodes []shard.NodeID) ([]string, error) {
	book, err := node.OpenAddressBook(o.engine)
	if err != nil {
		return nil, err
	}
	answers := make(chan string, len(nodes))
	for _, id := range nodes {
		go func() {
			address := book.Lookup(id)
			if address != "" {
				c, err := net.DialTimeout("tcp", address, answerTimeout)
				if err != nil {
					address = ""
				} else {
					_ = c.Close()
					address = fmt.Sprintf("node %d at %s", id, address)
				}
			}
			answers <- address
		}()
	}
	var found []string
	for range nodes {
		if a := <-answers; a != "" {
			found = append(found, a)
		}
	}
	slices.Sort(found)
	return found, nil
}
