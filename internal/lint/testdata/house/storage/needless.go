package storage

import _ "go.etcd.io/raft/v3/raftpb"
