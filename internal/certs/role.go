package certs

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
)

// Role is what the owner of a certificate may do; see the package comment.
type Role string

const (
	// NoRole may do nothing.
	NoRole Role = ""
	Node   Role = "node"
	Client Role = "client"
	Admin  Role = "admin"
)

const rolePrefix = "urn:kiloraft:role:"

// uri is the role as it stands in certificates.
func (r Role) uri() *url.URL {
	return &url.URL{Scheme: "urn", Opaque: strings.TrimPrefix(rolePrefix, "urn:") + string(r)}
}

// Identity is whom a certificate stands for. Only Role may decide anything.
type Identity struct {
	Role Role
	Name string // the common name; "" if there is none
}

// IdentityOf reads a certificate. The role is NoRole unless it carries exactly
// one, and that is known.
func IdentityOf(c *x509.Certificate) Identity {
	id := Identity{Name: c.Subject.CommonName}
	roles := 0
	for _, u := range c.URIs {
		role, ours := strings.CutPrefix(u.String(), rolePrefix)
		if !ours {
			continue
		}
		roles++
		switch Role(role) {
		case Node, Client, Admin:
			id.Role = Role(role)
		}
	}
	if roles != 1 {
		id.Role = NoRole
	}
	return id
}

func (id Identity) String() string {
	name := id.Name
	if len(name) > nameBytesMax {
		name = name[:nameBytesMax] + "…"
	}
	if id.Role == NoRole {
		return fmt.Sprintf("%+q (no role)", name)
	}
	return fmt.Sprintf("%+q (role %s)", name, id.Role)
}
