// Package e2e tests Kiloraft from outside: real processes of the real binary,
// real disks, loopback sockets. It holds no code of its own, only tests.
//
// Every cluster is started on free ports in a temporary folder. Every process is
// stopped by its own ID, and dies with the test.
package e2e
