// Package raftgrouptest writes logs for the tests of rooms that do not know raft's types.
package raftgrouptest
