package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// socketInode is the kernel's name of the local socket that is bound to local and
// connected to remote, both IPv4; or "".
func socketInode(local, remote *net.TCPAddr) string {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	from, to := procAddress(local), procAddress(remote)
	for line := range strings.Lines(string(table)) {
		// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
		if f := strings.Fields(line); len(f) > 9 && f[1] == from && f[2] == to {
			return f[9]
		}
	}
	return ""
}

// procAddress is an address as /proc/net/tcp has it: bytes in the machine's order,
// which is little-endian wherever Kiloraft runs.
func procAddress(a *net.TCPAddr) string {
	ip := slices.Clone(a.IP.To4())
	slices.Reverse(ip)
	return fmt.Sprintf("%X:%04X", []byte(ip), a.Port)
}

// hasSocket tells whether a process has a socket open.
func hasSocket(pid int, inode string) bool {
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	files, err := os.ReadDir(folder)
	if err != nil {
		return false // it has ended
	}
	return slices.ContainsFunc(files, func(f os.DirEntry) bool {
		target, err := os.Readlink(filepath.Join(folder, f.Name()))
		return err == nil && target == "socket:["+inode+"]"
	})
}
