package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/client"
)

// casFlags choose the condition of a compare-and-set.
type casFlags struct {
	value    string
	revision revisionFlag
	absent   bool
}

func (a *app) kvCasCommand() *cobra.Command {
	var f casFlags
	cmd := &cobra.Command{
		Use:   "cas KEY NEW (--if-value V | --if-revision R | --if-absent)",
		Short: "Write a value if a condition on the present one holds",
		Long: "Compare and set: write NEW under a key if the condition on its present value holds, atomically, and print\n" +
			"the revision of the write. If the condition does not hold nothing is written, and the exit code is 1." + keyHelp,
		Example: `  kiloraft kv cas hello world --if-absent
  kiloraft kv cas hello again --if-value world -o json`,
		Args: takes(2, "KEY", "NEW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := keyArgument(args[0])
			if err != nil {
				return err
			}
			condition, text, err := f.condition(cmd)
			if err != nil {
				return err
			}
			return a.onStore(cmd.Context(), operationOn("cas", key), func(ctx context.Context, s store) error {
				swap, err := s.CompareAndSwap(ctx, key, condition, []byte(args[1]))
				switch {
				case err != nil:
					return err
				case !swap.Swapped:
					return fmt.Errorf("%s does not hold: %s; nothing was written", text, presentText(swap.Current))
				}
				return a.printWrite(key, swap.Revision)
			})
		},
	}
	cmd.Flags().StringVar(&f.value, "if-value", "", "if the key has the value `V`; an empty one is a value, too")
	cmd.Flags().Var(&f.revision, "if-revision", "if the key has a value, written at revision `R`")
	cmd.Flags().BoolVar(&f.absent, "if-absent", false, "if the key has no value")
	grouped(cmd, "Condition, one of", "if-value", "if-revision", "if-absent")
	return cmd
}

// condition is the one that was given, and how it is called in an error.
func (f *casFlags) condition(cmd *cobra.Command) (c client.Condition, text string, err error) {
	given := 0
	if cmd.Flags().Changed("if-value") {
		c, text = client.IfValue([]byte(f.value)), `--if-value "`+cut(printable([]byte(f.value)), 60)+`"`
		given++
	}
	if cmd.Flags().Changed("if-revision") {
		c, text = client.IfRevision(f.revision.revision), fmt.Sprintf("--if-revision %d", f.revision.revision)
		given++
	}
	if f.absent {
		c, text = client.IfAbsent(), "--if-absent"
		given++
	}
	switch given {
	case 0:
		return c, "", usagef("a condition is missing: --if-value, --if-revision or --if-absent")
	case 1:
		return c, text, nil
	}
	return c, "", usagef("give one condition: --if-value, --if-revision or --if-absent")
}

// presentText says what a key has. Values may be long and secret; a revision
// finds them.
func presentText(kv client.KeyValue) string {
	if kv.Revision == 0 {
		return "the key has no value"
	}
	return fmt.Sprintf("the key has a value of revision %d", kv.Revision)
}
