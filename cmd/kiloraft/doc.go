// Command kiloraft is the one binary of Kiloraft: it runs nodes, talks to them,
// and measures them.
//
// main.go is tiny; root.go has the flags that all commands share; beyond that
// there is a file for each command family: start.go, demo.go, kv.go, status.go,
// node.go, shard.go, ops.go, placement.go, settings.go, top.go, doctor.go (which judges by the rules of diagnose.go),
// bench.go, cert.go, debug.go, version.go. What is printed goes through
// output.go, what is shown to those who wait through progress.go, how a command ends through exit.go, and every question to a cluster
// but for keys and values through cluster.go.
//
// The command line is a contract that scripts depend on: flags, exit codes and
// the fields of JSON documents are added to, never changed.
package main
