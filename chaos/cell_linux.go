package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// A cell is a network, mounts and process IDs of the run's own: the command starts
// itself once more, within new namespaces. Nothing that is made in there is seen
// outside, and the kernel takes all of it back when the inner command, its first
// process, ends, however it does.

// cellVariable tells the inner command that it is the inner one.
const cellVariable = "KILORAFT_CHAOS_CELL"

// reportFile is where the inner command says why it cannot go on, if it cannot. It is
// closed when it can.
const reportFile = 3

// inCell runs the command in a cell and gives its exit code; or, ran false, leaves
// it to the caller to run it: within the cell, or without one and with the reason in cfg.
func inCell(cfg *config) (code int, ran bool) {
	if os.Getenv(cellVariable) != "" {
		report := os.NewFile(reportFile, "report")
		if err := furnish(); err != nil {
			fmt.Fprint(report, err)
			os.Exit(1)
		}
		_ = report.Close()
		return 0, false
	}
	if cfg.noCell != "" {
		return 0, false
	}
	if _, err := exec.LookPath("ip"); err != nil {
		cfg.noCell = "there is no command ip (Debian's package iproute2)"
		return 0, false
	}
	code, err := spawn(cfg)
	if err != nil {
		cfg.noCell = err.Error()
		return 0, false
	}
	return code, true
}

// spawn runs the inner command. An error says that it could not begin.
func spawn(cfg *config) (code int, err error) {
	// The kernel kills the inner command when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// An interrupt is for the inner command, which ends in an orderly way.
	interrupts := make(chan os.Signal, 8)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	report, write, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer report.Close()
	// The seed was drawn here, if it was: both commands are to speak of the same one.
	cmd := exec.Command("/proc/self/exe", append(os.Args[1:], fmt.Sprintf("--seed=%d", cfg.seed))...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), cellVariable+"=1")
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // Ctrl-C reaches it once, from here
	}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		return 0, fmt.Errorf("namespaces are refused: %w", err)
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-interrupts:
				_ = cmd.Process.Signal(s)
			case <-ended:
				return
			}
		}
	}()
	why, readErr := io.ReadAll(report)
	err = cmd.Wait()
	switch {
	case len(why) > 0:
		return 0, errors.New(string(why))
	case readErr != nil:
		return 0, readErr
	case err != nil && cmd.ProcessState.ExitCode() < 0:
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1, nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// furnish gives the cell what is needed in it.
func furnish() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("process %d is not the first one of a cell", os.Getpid())
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE}, // what is mounted here stays here
		{"proc", "/proc", "proc", 0},
		{"run", "/run", "tmpfs", 0}, // the names of network namespaces
	} {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mounting %s is refused: %w", m.target, err)
		}
	}
	return ip("link", "set", "lo", "up")
}

// ip runs the command of that name.
func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, out)
	}
	return nil
}

// smallDisk mounts a file system of the given size.
func smallDisk(folder string, bytes int64) error {
	return syscall.Mount("store", folder, "tmpfs", 0, fmt.Sprintf("size=%d", bytes))
}

func removeDisk(folder string) error { return syscall.Unmount(folder, 0) }

// dieWithParent has the kernel kill a child when the thread that started it ends.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
