package sim

import _ "go.etcd.io/raft/v3/raftpb" // want imports "raftpb stays"
