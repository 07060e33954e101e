package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// Exit codes, a contract.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
)

// usageError is a command line that cannot be carried out.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...)}
}

// namedError is an error that already says which operation it is about.
type namedError struct {
	operation string
	err       error
}

func (e *namedError) Error() string {
	text := e.err.Error()
	if strings.HasPrefix(text, e.operation+": ") { // the client library names it, too
		return text
	}
	return e.operation + ": " + text
}
func (e *namedError) Unwrap() error { return e.err }

// exitError ends the program with a code of somebody else's choice, and without
// a word.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// finish prints err, if any, as the one line that ends a failed command, and
// returns the exit code. cmd is the command that ran.
func (a *app) finish(cmd *cobra.Command, err error) int {
	var exit *exitError
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage):
		fmt.Fprintf(a.stderr, "%s: %s (see %s --help)\n", commandName(cmd), usage.text, cmd.CommandPath())
		return exitUsage
	}
	var invalid *shard.InvalidError
	if errors.As(err, &invalid) && strings.HasPrefix(invalid.Field, "--") {
		fmt.Fprintf(a.stderr, "%s: %v\n", commandName(cmd), err)
		return exitUsage // of a flag that only the server could judge
	}
	name, text := commandName(cmd), a.plain(err)
	var named *namedError
	if errors.As(err, &named) {
		name = cmd.Root().Name()
	}
	fmt.Fprintf(a.stderr, "%s: %s\n", name, text)
	if errors.Is(err, client.ErrNotFound) {
		return exitNotFound
	}
	return exitFailed
}

// commandName is "kiloraft: shard list", or "kiloraft" for the root.
func commandName(cmd *cobra.Command) string {
	root := cmd.Root().Name()
	if rest := strings.TrimPrefix(cmd.CommandPath(), root+" "); rest != cmd.CommandPath() {
		return root + ": " + rest
	}
	return root
}

// grpcNoise is how gRPC wraps the cause of a failed connection.
var grpcNoise = regexp.MustCompile(`(?:last connection error: )?connection error: desc = "(?:transport: )?(?:Error while dialing: )?(?:dial tcp \S+: )?(?:connect: )?([^"]*)"`)

// plain is an error's text for people.
func (a *app) plain(err error) string {
	text := err.Error()
	var failure *nodeFailure
	if errors.As(err, &failure) {
		return text
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		text = replaceCause(text, context.DeadlineExceeded.Error(), "gave up after "+duration(a.global.timeout)+" (--timeout)")
	case errors.Is(err, context.Canceled):
		text = replaceCause(text, context.Canceled.Error(), "interrupted")
	}
	text = grpcNoise.ReplaceAllString(text, "$1")
	return strings.TrimSpace(strings.ReplaceAll(text, "\n", "; "))
}

// replaceCause puts words for people in the place of a cause's own text.
func replaceCause(text, cause, words string) string {
	if strings.Contains(text, cause) {
		return strings.Replace(text, cause, words, 1)
	}
	return words + ": " + text
}

// duration writes d without the trailing zero units of time.Duration.
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
