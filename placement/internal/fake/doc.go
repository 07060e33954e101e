// Package fake is the world of placement's tests: an environment whose time
// stands still until told, and a meta shard in memory that loses answers on
// request. Nothing in it runs unless a test drives it, so that every test is
// repeatable.
package fake
