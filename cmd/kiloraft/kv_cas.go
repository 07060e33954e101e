package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
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
			"the revision of the write. If the condition does not hold nothing is written, and the exit code is 1;\n" +
			"with -o json it is printed then what the key has." + keyHelp,
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
				if err != nil {
					return err
				}
				swap.Current.Key = key
				if err := a.printSwap(key, &swap); err != nil || swap.Swapped {
					return err
				}
				return fmt.Errorf("%s does not hold: %s; nothing was written", text, presentText(swap.Current))
			})
		},
	}
	cmd.Flags().StringVar(&f.value, "if-value", "", "if the key has the value `V`; an empty one is a value, too")
	cmd.Flags().Var(&f.revision, "if-revision", "if the key has a value, written at revision `R`")
	cmd.Flags().BoolVar(&f.absent, "if-absent", false, "if the key has no value")
	grouped(cmd, "Condition, one of", "if-value", "if-revision", "if-absent")
	return cmd
}

// swapRecord is what a compare-and-set prints as JSON.
type swapRecord struct {
	Key       string         `json:"key"`
	Succeeded bool           `json:"succeeded"`
	Revision  shard.Revision `json:"revision"`
}

// unswappedRecord is what it prints if the condition did not hold.
type unswappedRecord struct {
	Key       string          `json:"key"`
	Succeeded bool            `json:"succeeded"`
	Current   *keyValueRecord `json:"current"` // null: the key has no value
}

// printSwap writes the one document of a compare-and-set; without JSON one that
// has written nothing has none.
func (a *app) printSwap(key []byte, swap *client.SwapResult) error {
	name := shard.FormatUserKey(key)
	if swap.Swapped {
		return a.print(swapRecord{name, true, swap.Revision}, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "revision %d\n", swap.Revision)
			return err
		})
	}
	record := unswappedRecord{Key: name}
	if swap.Current.Revision != 0 {
		current := recordOf(swap.Current)
		record.Current = &current
	}
	return a.print(record, func(io.Writer) error { return nil })
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
