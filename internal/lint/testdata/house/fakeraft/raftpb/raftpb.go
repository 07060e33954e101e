// Package raftpb stands for raft's messages.
package raftpb

// Message is one.
type Message struct{}
