package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Set by the linker, see the Makefile.
var (
	version = "0.1.0"
	commit  = ""
)

// revision is the commit that this binary was built from, or "".
func revision() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 7 {
			return s.Value[:7]
		}
	}
	return ""
}

// versionText is the version as it is shown everywhere.
func versionText() string {
	if r := revision(); r != "" {
		return version + " (" + r + ")"
	}
	return version
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this binary",
		Example: `  kiloraft version
  kiloraft version -o json`,
		Args: takes(0),
		RunE: func(*cobra.Command, []string) error {
			record := struct {
				Version string `json:"version"`
				Commit  string `json:"commit"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{version, revision(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
			return a.print(record, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "kiloraft %s %s %s/%s\n", versionText(), record.Go, record.OS, record.Arch)
				return err
			})
		},
	}
}
