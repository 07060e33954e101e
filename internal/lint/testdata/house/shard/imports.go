package shard

import (
	"testing" // want imports "does not import testing"

	"github.com/kiloraft/kiloraft/storage" // want imports "only rooms to its left"
	_ "go.etcd.io/raft/v3/raftpb"          // want imports "raftpb stays"
)

var _ = storage.Engine
var _ testing.T
