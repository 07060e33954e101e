package lint

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// forbiddenWords do not belong into any file of the project: hosts of package
// registries (a builder chooses its own mirrors) and paths of one person's
// machine. They are written in two parts, so that this file may hold them.
var forbiddenWords = []string{
	"proxy.golang" + ".org", "sum.golang" + ".org", "registry.npmjs" + ".org", "crates" + ".io", "pypi" + ".org",
	"/work" + "/main", "/work" + "/shared", "/tmp" + "/kr", "/ro" + "ot/", "/ho" + "me/",
}

// Words finds forbidden words in every text file under root, and comments that
// put work off.
func Words(root string) ([]Finding, error) {
	var found []Finding
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel == ".git" || rel == "bin" {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		found = append(found, wordsIn(filepath.ToSlash(rel), text)...)
		return nil
	})
	return found, err
}

func wordsIn(path string, text []byte) []Finding {
	if bytes.IndexByte(text, 0) >= 0 {
		return nil // not text
	}
	words := forbiddenWords
	if strings.HasSuffix(path, ".go") {
		words = append(words[:len(words):len(words)], "TO"+"DO", "FIX"+"ME", "XX"+"X:")
	}
	var found []Finding
	line := 0
	for l := range bytes.Lines(text) {
		line++
		for _, w := range words {
			if bytes.Contains(l, []byte(w)) {
				found = append(found, Finding{Path: path, Line: line, Rule: "words", Text: "\"" + w + "\" does not belong into the project"})
			}
		}
	}
	return found
}
