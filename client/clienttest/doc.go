// Package clienttest is for tests of what talks to a cluster through package
// client: one suite of a client's promises (Run), to be run against any cluster,
// in one process or over the network; and a cluster that is only pretended
// (Cluster), with the network (Network) and the environment (Env) that drive a
// client against it deterministically.
//
// It is imported by tests alone.
package clienttest
