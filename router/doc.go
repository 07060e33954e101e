// Package router maps keys to shards, and shards to their leaders.
//
// Cache is a client's memory of the cluster's layout: it holds one Route per
// shard, never two that overlap, at most as many as it was made for, and accepts
// only what is newer than what it holds. It never dials and never asks: whoever
// owns it feeds it from typed errors and from the shard directory.
//
// The shard directory and the nodes' records are ordinary records of the system
// keyspace. Their keys and values are fixed here, because both the client, which
// reads them, and the placement rooms, which write them, stand to the right:
//
//	SystemKeyspace "dir/" start     the shard that starts at the full key start
//	SystemKeyspace "node/" id       the node, its ID as 8 bytes, big endian
//
// Every value begins with a format byte. The directory is an index that may lag;
// the authority for a descriptor is its shard's own log, which is why a server
// checks epoch, replica and term of every attempt.
package router
