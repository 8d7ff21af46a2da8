package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// link is one of Markdown's, to another file or a title: no address of the world's.
var link = regexp.MustCompile(`\]\(([^)\s:]+)\)`)

// TestLinks: what a document points at is there, the title within it too.
func TestLinks(t *testing.T) {
	const root = "../.."
	var documents []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no documents are like %s: %v", pattern, err)
		}
		documents = append(documents, paths...)
	}
	for _, document := range documents {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			path, title, _ := strings.Cut(m[1], "#")
			target := document
			if path != "" {
				target = filepath.Join(filepath.Dir(document), path)
			}
			pointed, err := os.ReadFile(target)
			if info, failed := os.Stat(target); failed == nil && info.IsDir() {
				pointed, err = nil, nil
			}
			if err != nil {
				t.Errorf("%s: %v", document, err)
			} else if title != "" && !hasTitle(string(pointed), title) {
				t.Errorf("%s: %s has no title #%s", document, target, title)
			}
		}
	}
}

// hasTitle reports whether a document has a title of that anchor, as GitHub makes it: small letters, no punctuation, a hyphen for each space.
func hasTitle(text, anchor string) bool {
	for line := range strings.Lines(text) {
		title := strings.TrimLeft(line, "#")
		if title == line || !strings.HasPrefix(title, " ") {
			continue
		}
		name := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(title)), " ", "-")
		if regexp.MustCompile(`[^a-z0-9_-]`).ReplaceAllString(name, "") == anchor {
			return true
		}
	}
	return false
}
