//go:build !linux

package main

import "syscall"

// dieWithParent can do nothing here: nodes of a demo that is killed without
// notice go on, and must be stopped by hand.
func dieWithParent(*syscall.SysProcAttr) {}
