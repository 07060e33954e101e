package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

const keyHelp = `

Keys are written as text; \xNN is any byte, and \\ a backslash.`

func (a *app) kvCommand() *cobra.Command {
	return group("kv", "Read and write keys", a.kvPutCommand(), a.kvGetCommand(), a.kvDelCommand(), a.kvCasCommand(),
		a.kvScanCommand(), a.kvDelRangeCommand())
}

// onStore runs an operation on a key within --timeout. Errors name both.
func (a *app) onStore(ctx context.Context, operation string, do func(context.Context, store) error) error {
	t, err := a.target()
	if err != nil {
		return err
	}
	ctx, cancel := a.within(ctx)
	defer cancel()
	s, err := a.openStore(ctx, t, a.global.timeout)
	if err != nil {
		return &namedError{operation, err}
	}
	err = do(ctx, s)
	if closeErr := s.Close(); err == nil {
		err = closeErr
	}
	var usage *usageError
	if err == nil || errors.As(err, &usage) {
		return err
	}
	return &namedError{operation, withoutOperation(err)}
}

// withoutOperation is an error of the client library without its own name of the
// operation: once is enough.
func withoutOperation(err error) error {
	var named *client.OpError
	if errors.As(err, &named) {
		return named.Err
	}
	return err
}

// operationOn names an operation on a key, for errors.
func operationOn(operation string, key []byte) string {
	return operation + ` "` + cut(shard.FormatUserKey(key), 100) + `"`
}

// keyArgument reads a key from the command line.
func keyArgument(text string) ([]byte, error) {
	key, err := shard.ParseUserKey(text)
	if err != nil {
		return nil, usagef("%v", err)
	}
	return key, nil
}

// writeRecord is what a write prints.
type writeRecord struct {
	Key      string         `json:"key"`
	Revision shard.Revision `json:"revision"`
}

func (a *app) printWrite(key []byte, r shard.Revision) error {
	return a.print(writeRecord{shard.FormatUserKey(key), r}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "revision %d\n", r)
		return err
	})
}

func (a *app) kvPutCommand() *cobra.Command {
	var valueFile string
	cmd := &cobra.Command{
		Use:   "put KEY VALUE",
		Short: "Write a value and print its revision",
		Long:  "Write a value under a key and print the revision of the write." + keyHelp,
		Example: `  kiloraft kv put hello world
  echo 'a long text' | kiloraft kv put notes/1 --value-file -`,
		Args: takes(1, "KEY", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := keyArgument(args[0])
			if err != nil {
				return err
			}
			value, err := a.valueArgument(args[1:], valueFile)
			if err != nil {
				return err
			}
			return a.onStore(cmd.Context(), operationOn("put", key), func(ctx context.Context, s store) error {
				r, err := s.Put(ctx, key, value)
				if err != nil {
					return err
				}
				return a.printWrite(key, r)
			})
		},
	}
	cmd.Flags().StringVar(&valueFile, "value-file", "", "read the value from `FILE` instead; - is standard input")
	return cmd
}

// valueArgument is the value of a put: an argument or a file.
func (a *app) valueArgument(args []string, file string) ([]byte, error) {
	switch {
	case len(args) == 1 && file == "":
		return []byte(args[0]), nil
	case len(args) == 1:
		return nil, usagef("give VALUE or --value-file, not both")
	case file == "":
		return nil, usagef("VALUE is missing")
	}
	in := a.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("--value-file: %w", err)
		}
		defer f.Close()
		in = f
	}
	// A value that is somewhat too long gets the limit's own error, with its
	// length; a file without end must not fill the memory.
	value, err := io.ReadAll(io.LimitReader(in, 2*shard.ValueBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("--value-file %s: %w", file, err)
	}
	if len(value) > 2*shard.ValueBytesMax {
		return nil, fmt.Errorf("--value-file %s: the value has more than %s bytes, the limit is %s", file, count(2*shard.ValueBytesMax), count(shard.ValueBytesMax))
	}
	return value, nil
}

// keyValueRecord is a key as JSON. A value that is not text is written like a
// key, and in base64 beside that.
type keyValueRecord struct {
	Key         string         `json:"key"`
	Value       string         `json:"value"`
	ValueBase64 *string        `json:"value_base64,omitempty"`
	Revision    shard.Revision `json:"revision"`
}

func recordOf(kv client.KeyValue) keyValueRecord {
	r := keyValueRecord{Key: shard.FormatUserKey(kv.Key), Value: string(kv.Value), Revision: kv.Revision}
	if !utf8.Valid(kv.Value) {
		encoded := base64.StdEncoding.EncodeToString(kv.Value)
		r.Value, r.ValueBase64 = shard.FormatUserKey(kv.Value), &encoded
	}
	return r
}

func (a *app) kvGetCommand() *cobra.Command {
	var at revisionFlag
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Read a value; exit 3 if there is none",
		Long: "Read the latest value of a key, linearizably, or the one that it had at a revision, and print it.\n" +
			"The exit code is 3 if the key has no value." + keyHelp,
		Example: `  kiloraft kv get hello
  kiloraft kv get hello -o json`,
		Args: takes(1, "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := keyArgument(args[0])
			if err != nil {
				return err
			}
			if err := at.check(); err != nil {
				return err
			}
			return a.onStore(cmd.Context(), operationOn("get", key), func(ctx context.Context, s store) error {
				kv, err := at.get(ctx, s, key)
				if err != nil {
					return at.explain(withoutOperation(err))
				}
				kv.Key = key
				return a.print(recordOf(kv), func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%s\n", a.valueText(w, kv.Value))
					return err
				})
			})
		},
	}
	at.addTo(cmd)
	return cmd
}

// valueText is a value as it is, but for a terminal, which arbitrary bytes could
// upset.
func (a *app) valueText(w io.Writer, value []byte) string {
	if terminal(w) && !utf8.Valid(value) {
		return shard.FormatUserKey(value)
	}
	return string(value)
}

func (a *app) kvDelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "del KEY",
		Short: "Delete a key and print the revision of the deletion",
		Long:  "Delete a key, whether it has a value or not, and print the revision of the deletion." + keyHelp,
		Example: `  kiloraft kv del hello
  kiloraft kv del 'bytes\x00\xff' -o json`,
		Args: takes(1, "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := keyArgument(args[0])
			if err != nil {
				return err
			}
			return a.onStore(cmd.Context(), operationOn("del", key), func(ctx context.Context, s store) error {
				r, err := s.Delete(ctx, key)
				if err != nil {
					return err
				}
				return a.printWrite(key, r)
			})
		},
	}
}

func (a *app) kvScanCommand() *cobra.Command {
	var o client.ScanOptions
	var at revisionFlag
	cmd := &cobra.Command{
		Use:   "scan [START [END]]",
		Short: "List keys and values in order",
		Long: "List keys from START to END in order, START included and END not; without them, all keys.\n" +
			"All of it is read as it was at one moment: a revision drawn for the scan, or that of --revision." + keyHelp,
		Example: `  kiloraft kv scan
  kiloraft kv scan user/ user0 --limit 10 --reverse`,
		Args: takes(0, "START", "END"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.Limit < 0 {
				return usagef("--limit: it is %d and must not be below 0", o.Limit)
			}
			for i, bound := range []*[]byte{&o.Start, &o.End} {
				if i < len(args) {
					if *bound, err = keyArgument(args[i]); err != nil {
						return err
					}
				}
			}
			if err := at.check(); err != nil {
				return err
			}
			o.Revision, o.AnyReplica = at.revision, at.anyReplica
			return a.onStore(cmd.Context(), "scan", func(ctx context.Context, s store) error {
				return at.explain(withoutOperation(a.printScan(ctx, s, o)))
			})
		},
	}
	cmd.Flags().IntVar(&o.Limit, "limit", 0, "at most `N` keys; 0 is all")
	cmd.Flags().BoolVar(&o.Reverse, "reverse", false, "from END down to START")
	cmd.Flags().BoolVar(&o.KeysOnly, "keys-only", false, "leave the values out")
	at.addTo(cmd)
	return cmd
}

// printScan writes rows as they come: a scan may be larger than memory. The JSON
// array is one document all the same; a scan that fails half-way leaves it
// unfinished, so that nobody takes it for the whole.
func (a *app) printScan(ctx context.Context, s store, o client.ScanOptions) error {
	asJSON := a.global.output == "json"
	separator := "["
	for kv, err := range s.Scan(ctx, o) {
		if err != nil {
			return err
		}
		if asJSON {
			err = a.writeScanRecord(separator, kv, o.KeysOnly)
			separator = ","
		} else {
			err = a.writeScanLine(kv, o.KeysOnly)
		}
		if err != nil {
			return err
		}
	}
	if !asJSON {
		return nil
	}
	end := "\n]\n"
	if separator == "[" {
		end = "[]\n"
	}
	_, err := io.WriteString(a.stdout, end)
	return err
}

func (a *app) writeScanRecord(separator string, kv client.KeyValue, keysOnly bool) error {
	var record any = recordOf(kv)
	if keysOnly {
		record = writeRecord{shard.FormatUserKey(kv.Key), kv.Revision}
	}
	b, err := json.Marshal(record)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n  %s", separator, b)
	return err
}

func (a *app) writeScanLine(kv client.KeyValue, keysOnly bool) error {
	line := shard.FormatUserKey(kv.Key)
	if !keysOnly {
		value := printable(kv.Value)
		if terminal(a.stdout) {
			value = cut(value, 100)
		}
		line += "\t" + value
	}
	_, err := fmt.Fprintln(a.stdout, line)
	return err
}

// printable is a value on one line: text as it is, anything else like a key.
func printable(value []byte) string {
	if !utf8.Valid(value) {
		return shard.FormatUserKey(value)
	}
	for _, r := range string(value) {
		if !strconv.IsPrint(r) {
			return shard.FormatUserKey(value)
		}
	}
	return string(value)
}
