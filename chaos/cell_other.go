//go:build !linux

package main

import (
	"errors"
	"syscall"
)

var errLinuxOnly = errors.New("there are namespaces on Linux only")

// inCell leaves it to the caller to run the command, without a cell.
func inCell(cfg *config) (code int, ran bool) {
	cfg.noCell = errLinuxOnly.Error()
	return 0, false
}

func ip(...string) error { return errLinuxOnly }

func smallDisk(string, int64) error { return errLinuxOnly }

func removeDisk(string) error { return errLinuxOnly }

// dieWithParent can do nothing here.
func dieWithParent(*syscall.SysProcAttr) {}
