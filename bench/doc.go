// Package bench is the load generator behind `kiloraft bench`: workloads over
// the client library's public interface, and the report about them.
//
// A run has up to three phases. Load writes every key once. Warmup runs the
// workload without recording. The measured phase follows, as a closed loop (each
// of N clients starts an operation when its last one is answered) or, given a
// rate, as an open loop: operations are due at fixed moments whatever the cluster
// does, and latency counts from the moment an operation was due. A closed loop
// that waits for a slow answer does not ask meanwhile, and so hides the wait from
// its percentiles; quote latencies under a rate.
//
// The generator usually shares its machine with the servers that it measures, so
// it is frugal: no allocation for keys and values, few timers, few histograms.
//
// The caller opens the client and chooses where progress goes. The package never
// prints while it runs, never retries a measured operation, and counts every
// error.
package bench
