package main

import (
	"context"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const defaultEndpoint = "127.0.0.1:7400"

// run carries out a command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return a.finish(cmd, err)
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "kiloraft",
		Short: "A sharded, strongly consistent, ordered key-value store",
		Long:  "Kiloraft is a sharded, strongly consistent, ordered key-value store in one binary.",
		Example: `  kiloraft demo
  kiloraft kv put hello world`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.prepare,
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usagef("%v", err) })
	root.SetHelpFunc(a.help)
	root.CompletionOptions.HiddenDefaultCmd = true

	flags := root.PersistentFlags()
	flags.StringSliceVar(&a.global.endpoints, "endpoints", []string{defaultEndpoint}, "`ADDRESSES` of some nodes, host:port,host:port,...")
	flags.StringVar(&a.global.certsDir, "certs-dir", "", "`DIR` of the certificates; without it plaintext is spoken, to loopback addresses only")
	flags.StringVar(&a.global.client, "client", "", "`NAME` of the client whose certificate to use, if --certs-dir holds several")
	a.global.output = "table"
	flags.VarP(&choice{value: &a.global.output, of: []string{"table", "json"}}, "output", "o", "`FORMAT` of what is printed: table or json")
	flags.DurationVar(&a.global.timeout, "timeout", 10*time.Second, "give up after `DURATION`")

	root.AddCommand(a.startCommand(), a.demoCommand(), a.kvCommand(), a.statusCommand(), a.nodeCommand(), a.shardCommand(),
		a.opsCommand(), a.placementCommand(), a.settingsCommand(), a.topCommand(), a.doctorCommand(), a.benchCommand(), a.certCommand(), a.debugCommand(), a.versionCommand())
	return root
}

// group makes a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	names := make([]string, len(commands))
	for i, c := range commands {
		names[i] = c.Name()
	}
	g := &cobra.Command{Use: use, Short: short, Long: short + ".", Args: noSuchCommand,
		RunE: func(*cobra.Command, []string) error { return usagef("which one? %s", strings.Join(names, ", ")) }}
	g.AddCommand(commands...)
	g.Example = firstExamples(commands, 2)
	return g
}

// firstExamples takes an example of each of the first commands.
func firstExamples(commands []*cobra.Command, n int) string {
	var lines []string
	for _, c := range commands {
		if first, _, _ := strings.Cut(c.Example, "\n"); first != "" && len(lines) < n {
			lines = append(lines, first)
		}
	}
	return strings.Join(lines, "\n")
}

// noSuchCommand refuses what is left when no subcommand has that name.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usagef("there is no command %q; did you mean %s?", args[0], strings.Join(near, " or "))
	}
	return usagef("there is no command %q", args[0])
}

// takes checks the number of arguments, which it names.
func takes(least int, names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("%s is missing", strings.Join(names[len(args):least], " and "))
		case len(args) > len(names):
			return usagef("%q is one argument too many", args[len(names)])
		}
		return nil
	}
}

// prepare runs before every command: flags from the environment, then what all
// commands check.
func (a *app) prepare(cmd *cobra.Command, _ []string) error {
	if err := a.flagsFromEnv(cmd); err != nil {
		return err
	}
	if a.global.timeout <= 0 {
		return usagef("--timeout: it is %v and must be above 0", a.global.timeout)
	}
	return nil
}

// flagsFromEnv sets every flag that is not on the command line from its
// environment variable, if that is set.
func (a *app) flagsFromEnv(cmd *cobra.Command) (err error) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || err != nil || f.Name == "help" {
			return
		}
		name := envName(f.Name)
		if text, ok := a.lookupEnv(name); ok && text != "" {
			if setErr := cmd.Flags().Set(f.Name, text); setErr != nil {
				err = usagef("environment variable %s: %v", name, setErr)
			}
		}
	})
	return err
}

// envName is the environment variable of a flag.
func envName(flag string) string {
	return "KILORAFT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// endpoints are the addresses to talk to: without certificates only loopback
// addresses will do.
func (a *app) endpoints() ([]string, error) {
	if len(a.global.endpoints) == 0 {
		return nil, usagef("--endpoints: it names no node")
	}
	for _, e := range a.global.endpoints {
		if err := checkAddress("--endpoints", e); err != nil {
			return nil, err
		}
		if a.global.certsDir == "" && !loopback(e) {
			return nil, usagef("--endpoints: %s is not a loopback address, and plaintext is for those only; name certificates by --certs-dir", e)
		}
	}
	return a.global.endpoints, nil
}

// checkAddress refuses what is not host:port.
func checkAddress(flag, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err == nil && host == "" {
		return usagef("%s: %q has no host: it is host:port", flag, address)
	}
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil || port == "" {
		return usagef("%s: %q is not host:port", flag, address)
	}
	return nil
}

// loopback tells whether an address can only be this machine.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// within bounds ctx by --timeout.
func (a *app) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.global.timeout)
}

// choice is a flag whose value is one of a few words.
type choice struct {
	value *string
	of    []string
}

func (c *choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}
func (c *choice) Type() string { return "string" }
func (c *choice) Set(s string) error {
	for _, w := range c.of {
		if s == w {
			*c.value = s
			return nil
		}
	}
	return usagef("it is one of %s", strings.Join(c.of, ", "))
}

// programName is how the user called this program, for texts to copy.
func programName() string {
	if len(os.Args) > 0 && strings.Contains(os.Args[0], "/") {
		return os.Args[0]
	}
	return "kiloraft"
}
