// Package lint keeps the house rules of Kiloraft as tests over its source: which
// room may import which, what code below package node may not do, and how
// packages and files are laid out. go vet and staticcheck look for mistakes that
// any Go program can make; this package looks for those that only Kiloraft can.
//
// A rule is a function from the loaded module to findings. The rules run on the
// whole module in house_test.go, and each on small bad examples, in testdata,
// where a comment `want "text"` marks the lines that must be found.
//
// To add a room, put it into the table in rooms.go. To add a file that touches
// the world on behalf of steps, put it into the table of adapters in steps.go,
// with the reason. Nothing in the module imports this package.
package lint
