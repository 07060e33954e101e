module github.com/kiloraft/kiloraft

go 1.26

require go.etcd.io/raft/v3 v3.6.0

replace go.etcd.io/raft/v3 => ./fakeraft
