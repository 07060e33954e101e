package certs

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kiloraft/kiloraft/shard"
)

const (
	caName       = "ca"
	nodeName     = "node"
	clientPrefix = "client."
	certSuffix   = ".crt"
	keySuffix    = ".key"

	// fileBytesMax bounds what is read of a file: a certificate has about 1 KiB.
	fileBytesMax = 1 << 20
)

func certFile(dir, name string) string { return filepath.Join(dir, name+certSuffix) }
func keyFile(dir, name string) string  { return filepath.Join(dir, name+keySuffix) }

// made is how a missing file comes to be, for errors.
func made(name string) string {
	switch {
	case name == caName:
		return "kiloraft cert create-ca makes it"
	case name == nodeName:
		return "kiloraft cert create-node HOST... makes it"
	}
	return "kiloraft cert create-client " + strings.TrimPrefix(name, clientPrefix) + " makes it"
}

func unusable(path, format string, args ...any) error {
	return &shard.InvalidError{Field: path, Reason: fmt.Sprintf(format, args...)}
}

// read reads the file of a certificate or key.
func read(path, name string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, unusable(path, "does not exist; %s", made(name))
	case err != nil:
		return nil, err
	case info.Size() > fileBytesMax:
		return nil, unusable(path, "is no certificate or key: it has %d bytes", info.Size())
	case strings.HasSuffix(path, keySuffix) && info.Mode().Perm()&0o077 != 0:
		return nil, unusable(path, "can be read or written by others (mode %04o); make it private: chmod 600 %s", info.Mode().Perm(), path)
	}
	return os.ReadFile(path)
}

// readCerts reads all certificates of a file, at least one.
func readCerts(dir, name string) ([]*x509.Certificate, error) {
	path := certFile(dir, name)
	rest, err := read(path, name)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, unusable(path, "holds a %s, and is for certificates alone", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, unusable(path, "holds a broken certificate: %v", err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, unusable(path, "holds no certificate")
	}
	return certs, nil
}

// readAuthorities reads ca.crt.
func readAuthorities(dir string) ([]*x509.Certificate, error) {
	certs, err := readCerts(dir, caName)
	if err != nil {
		return nil, err
	}
	for _, c := range certs {
		if !c.IsCA || !c.BasicConstraintsValid {
			return nil, unusable(certFile(dir, caName), "holds the certificate of %+q, which is no authority", c.Subject.CommonName)
		}
	}
	return certs, nil
}

// readKey reads a private key.
func readKey(dir, name string) (crypto.Signer, error) {
	path := keyFile(dir, name)
	text, err := read(path, name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, unusable(path, "holds no key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		key, err = x509.ParseECPrivateKey(block.Bytes) // as openssl ecparam writes it
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, unusable(path, "holds no private key that can be used (PKCS #8 is expected)")
	}
	return signer, nil
}

// ClientNames lists the clients whose certificates are in a folder, in order.
func ClientNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unusable(dir, "does not exist; kiloraft cert makes certificates in it")
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), clientPrefix); ok {
			if name, ok = strings.CutSuffix(name, certSuffix); ok {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// makeDir makes a folder for keys, or checks the one that is there.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return unusable(dir, "can be changed by others (mode %04o), who could put certificates of their own there; make it private: chmod 700 %s", info.Mode().Perm(), dir)
	}
	return nil
}

// output is a file to be written.
type output struct {
	path string
	text []byte
	mode fs.FileMode
}

func pemCert(path string, der []byte) output {
	return output{path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644}
}

func pemKey(path string, key crypto.Signer) (output, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return output{}, err
	}
	return output{path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600}, nil
}

// write writes all files or, if one exists and may not be overwritten, none.
func write(overwrite bool, files ...output) error {
	for _, f := range files {
		switch _, err := os.Lstat(f.path); {
		case err == nil && !overwrite:
			return existsAlready(f.path)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	for _, f := range files {
		do := f.create
		if overwrite {
			do = f.replace
		}
		switch err := do(); {
		case errors.Is(err, fs.ErrExist):
			return existsAlready(f.path)
		case err != nil:
			return err
		}
	}
	return nil
}

func existsAlready(path string) error {
	return unusable(path, "exists already; --overwrite replaces it")
}

// create writes a file that is not there yet, else it fails with fs.ErrExist.
func (f output) create() error {
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, f.mode)
	if err != nil {
		return err
	}
	return f.fill(file)
}

// replace puts a file in the place of what is there, if anything: readers find
// one or the other, whole.
func (f output) replace() error {
	// It has mode 0600 from the beginning, and a random name.
	file, err := os.CreateTemp(filepath.Dir(f.path), ".new-*")
	if err != nil {
		return err
	}
	if err := f.fill(file); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), f.path); err != nil {
		_ = os.Remove(file.Name()) // it may hold a key
		return err
	}
	return nil
}

// fill writes and closes an open file, and removes it if that fails.
func (f output) fill(file *os.File) error {
	_, err := file.Write(f.text)
	err = errors.Join(err, file.Chmod(f.mode), file.Sync(), file.Close())
	if err != nil {
		_ = os.Remove(file.Name()) // what counts is the first error
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return nil
}
