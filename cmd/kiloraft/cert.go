package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/internal/certs"
	"github.com/kiloraft/kiloraft/shard"
)

// certRecord is a certificate that was made, as JSON.
type certRecord struct {
	Kind        string    `json:"kind"` // ca, node or client
	Role        string    `json:"role"` // node, client or admin; of a CA ""
	Name        string    `json:"name"`
	Hosts       []string  `json:"hosts"`
	Serial      string    `json:"serial"` // hexadecimal
	ValidFrom   time.Time `json:"valid_from"`
	ValidUntil  time.Time `json:"valid_until"`
	Certificate string    `json:"certificate"` // file
	Key         string    `json:"key"`         // file
}

func (a *app) certCommand() *cobra.Command {
	return group("cert", "Make certificates for mutual TLS", a.certCACommand(), a.certNodeCommand(), a.certClientCommand())
}

const certHelp = "\nFiles that exist are not replaced without --overwrite; key files are readable by their owner only."

func (a *app) certCACommand() *cobra.Command {
	var r certs.Request
	cmd := &cobra.Command{
		Use:   "create-ca --certs-dir DIR",
		Short: "Make an authority, which signs the certificates of nodes and clients",
		Long: "Make an authority, which signs the certificates of nodes and clients: ca.crt and ca.key.\n" +
			"Whoever has ca.key can make certificates of any role: keep it off the nodes. They need ca.crt alone." + certHelp,
		Example: `  kiloraft cert create-ca --certs-dir ./certs
  kiloraft cert create-ca --certs-dir ./ca --valid-for 1825d`,
		Args: takes(0),
		RunE: func(*cobra.Command, []string) error {
			return a.create("ca", &r, func() (certs.Created, error) { return certs.CreateCA(r) })
		},
	}
	certFlags(cmd, &r, certs.CAValidity)
	return cmd
}

func (a *app) certNodeCommand() *cobra.Command {
	var r certs.Request
	cmd := &cobra.Command{
		Use:   "create-node HOST... --certs-dir DIR",
		Short: "Make the certificate of a node",
		Long: "Make the certificate of a node: node.crt and node.key, and ca.crt if the authority is in another folder.\n" +
			"HOSTs are the names and IP addresses at which the node is reached, all that --advertise, --join, --endpoints\n" +
			"and --http may say of it. It lasts no longer than the authority." + certHelp,
		Example: `  kiloraft cert create-node localhost 127.0.0.1 --certs-dir ./certs
  kiloraft cert create-node n1.example.org 10.0.0.1 --certs-dir ./n1 --ca-dir ./ca`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("HOST is missing")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			return a.create("node", &r, func() (certs.Created, error) { return certs.CreateNode(r, args) })
		},
	}
	certFlags(cmd, &r, certs.NodeValidity)
	authorityFlag(cmd, &r)
	return cmd
}

func (a *app) certClientCommand() *cobra.Command {
	var r certs.Request
	var admin bool
	cmd := &cobra.Command{
		Use:   "create-client NAME --certs-dir DIR",
		Short: "Make the certificate of a client",
		Long: "Make the certificate of a client: client.NAME.crt and client.NAME.key, and ca.crt if the authority is in\n" +
			"another folder. A client reads and writes keys, and looks at the cluster; with --admin it may change the\n" +
			"cluster, too. It lasts no longer than the authority." + certHelp,
		Example: `  kiloraft cert create-client alice --admin --certs-dir ./certs
  kiloraft cert create-client billing --valid-for 90d --certs-dir ./billing --ca-dir ./ca`,
		Args: takes(1, "NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.create("client", &r, func() (certs.Created, error) { return certs.CreateClient(r, args[0], admin) })
		},
	}
	cmd.Flags().BoolVar(&admin, "admin", false, "the role is admin instead of client")
	certFlags(cmd, &r, certs.ClientValidity)
	authorityFlag(cmd, &r)
	return cmd
}

func certFlags(cmd *cobra.Command, r *certs.Request, validity time.Duration) {
	r.ValidFor = validity
	cmd.Flags().Var((*daysFlag)(&r.ValidFor), "valid-for", "`DURATION` from now on, e.g. 90d or 12h")
	cmd.Flags().BoolVar(&r.Overwrite, "overwrite", false, "replace files that exist")
}

func authorityFlag(cmd *cobra.Command, r *certs.Request) {
	cmd.Flags().StringVar(&r.CADir, "ca-dir", "", "`DIR` of ca.crt and ca.key (default: that of --certs-dir)")
}

// create makes a certificate and prints what it has made.
func (a *app) create(kind string, r *certs.Request, do func() (certs.Created, error)) error {
	if r.Dir = a.global.certsDir; r.Dir == "" {
		return usagef("--certs-dir is missing: the folder for the certificates")
	}
	c, err := do()
	var invalid *shard.InvalidError
	if errors.As(err, &invalid) && (invalid.Field == "HOST" || invalid.Field == "NAME") {
		return usagef("%v", err)
	}
	if err != nil {
		return err
	}
	record := certRecord{Kind: kind, Role: string(c.Role), Name: c.Name, Hosts: append([]string{}, c.Hosts...), Serial: c.Serial,
		ValidFrom: c.From.UTC(), ValidUntil: c.Until.UTC(), Certificate: c.CertFile, Key: c.KeyFile}
	return a.print(record, func(w io.Writer) error { return writeCert(w, &record) })
}

func writeCert(w io.Writer, r *certRecord) error {
	var b strings.Builder
	switch r.Kind {
	case "ca":
		fmt.Fprintf(&b, "authority    %s\n", r.Name)
	case "node":
		fmt.Fprintf(&b, "node         %s\n", strings.Join(r.Hosts, ", "))
	default:
		fmt.Fprintf(&b, "client       %s (role %s)\n", r.Name, r.Role)
	}
	fmt.Fprintf(&b, "valid until  %s\ncertificate  %s\nkey          %s (secret)\n", r.ValidUntil.Format("2006-01-02 15:04 MST"), r.Certificate, r.Key)
	_, err := io.WriteString(w, b.String())
	return err
}

// daysFlag is a duration that may be given in days.
type daysFlag time.Duration

func (d *daysFlag) Type() string { return "duration" }

func (d *daysFlag) String() string {
	const day = 24 * time.Hour
	if v := time.Duration(*d); v >= day && v%day == 0 {
		return fmt.Sprintf("%dd", v/day)
	}
	return duration(time.Duration(*d))
}

func (d *daysFlag) Set(s string) error {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16) // more would overflow
		if err != nil || n == 0 {
			return usagef("it is a duration, like 90d, 12h or 30m")
		}
		*d = daysFlag(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil || v <= 0 {
		return usagef("it is a duration, like 90d, 12h or 30m")
	}
	*d = daysFlag(v)
	return nil
}
