package raftgroup

import (
	_ "go.etcd.io/raft/v3/raftpb"
)
