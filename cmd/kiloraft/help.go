package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagGroup is the annotation that says under which heading help shows a flag.
const flagGroup = "group"

// grouped puts flags under a heading of their command's help.
func grouped(cmd *cobra.Command, heading string, names ...string) {
	for _, name := range names {
		if err := cmd.Flags().SetAnnotation(name, flagGroup, []string{heading}); err != nil {
			panic(err) // no such flag
		}
	}
}

// help prints a sentence, examples, the commands or the usage, and the flags by
// purpose.
func (a *app) help(cmd *cobra.Command, _ []string) {
	var b strings.Builder
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	fmt.Fprintf(&b, "%s\n", strings.TrimSpace(long))
	if cmd.Example != "" {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	fmt.Fprintf(&b, "\nUsage:\n  %s\n", usageLine(cmd))
	var commands []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			commands = append(commands, fmt.Sprintf("  %-16s %s", c.Name(), c.Short))
		}
	}
	if len(commands) > 0 {
		fmt.Fprintf(&b, "\nCommands:\n%s\n", strings.Join(commands, "\n"))
	}
	for _, g := range flagsByGroup(cmd) {
		fmt.Fprintf(&b, "\n%s:\n%s", g.heading, g.flags.FlagUsagesWrapped(100))
	}
	b.WriteString("\nEvery flag has an environment variable: --some-flag is KILORAFT_SOME_FLAG.\n")
	fmt.Fprint(cmd.OutOrStdout(), b.String())
}

func usageLine(cmd *cobra.Command) string {
	if cmd.HasAvailableSubCommands() {
		return cmd.CommandPath() + " COMMAND"
	}
	return cmd.UseLine()
}

type headedFlags struct {
	heading string
	flags   *pflag.FlagSet
}

// flagsByGroup lists a command's flags by heading, in the order in which the
// headings first appear among the flags as they were defined; those of all
// commands come last.
func flagsByGroup(cmd *cobra.Command) []headedFlags {
	var groups []headedFlags
	add := func(heading string, f *pflag.Flag) {
		i := slices.IndexFunc(groups, func(g headedFlags) bool { return g.heading == heading })
		if i < 0 {
			i = len(groups)
			set := pflag.NewFlagSet("", pflag.ContinueOnError)
			set.SortFlags = false
			groups = append(groups, headedFlags{heading, set})
		}
		groups[i].flags.AddFlag(f)
	}
	cmd.Flags().SortFlags = false
	local := cmd.LocalNonPersistentFlags()
	local.SortFlags = false
	local.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		heading := "Flags"
		if h := f.Annotations[flagGroup]; len(h) > 0 {
			heading = h[0]
		}
		add(heading, f)
	})
	all := cmd.InheritedFlags()
	if !cmd.HasParent() {
		all = cmd.PersistentFlags()
	}
	all.SortFlags = false
	all.VisitAll(func(f *pflag.Flag) { add("Flags of all commands", f) })
	return groups
}
