package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/drawbridge-net/drawbridge/internal/version"
)

var manual = flag.String("manual", "", "directory to write man pages and completions of shells to (make package)")

// TestManual writes what the package has beside the program and is made from its commands: a page for each of them, and
// completions for three shells. They are made in a test, as the tables of the documentation are, so that the program is not
// larger for it.
func TestManual(t *testing.T) {
	dir, again := *manual, t.TempDir()
	if dir == "" {
		dir = t.TempDir()
	}
	for _, to := range []string{dir, again} {
		if err := writeManual(to); err != nil {
			t.Fatal(err)
		}
	}
	written := readAll(t, dir)
	if diff := cmp.Diff(written, readAll(t, again)); diff != "" {
		t.Errorf("it is another one each time (-first +second):\n%s", diff)
	}
	wanted := []string{"drawbridge.8", "drawbridge.bash", "_drawbridge", "drawbridge.fish"}
	for _, c := range newRoot().Commands() {
		page := "drawbridge-" + c.Name() + ".8"
		if c.IsAvailableCommand() {
			wanted = append(wanted, page)
		} else if written[page] != "" {
			t.Errorf("%s is for a command that people do not run", page)
		}
	}
	for _, name := range wanted {
		if len(written[name]) < 300 {
			t.Errorf("%s has %d bytes", name, len(written[name]))
		}
	}
}

// writeManual bears the date of SOURCE_DATE_EPOCH, so that two builds of a commit are equal.
func writeManual(dir string) error {
	seconds, _ := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	date := time.Unix(seconds, 0).UTC()
	root := newRoot()
	root.DisableAutoGenTag = true
	for _, c := range append(root.Commands(), root) {
		c.Long = examples.ReplaceAllString(c.Long, "    $1")
	}
	header := &doc.GenManHeader{Section: "8", Date: &date, Source: "Drawbridge " + version.Number, Manual: "Drawbridge"}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return err
	}
	for name, write := range map[string]func(*cobra.Command, string) error{
		"drawbridge.bash": func(c *cobra.Command, path string) error { return c.GenBashCompletionFileV2(path, true) },
		"_drawbridge":     (*cobra.Command).GenZshCompletionFile,
		"drawbridge.fish": func(c *cobra.Command, path string) error { return c.GenFishCompletionFile(path, true) },
	} {
		if err := write(root, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// examples are indented by two columns in what --help prints. Man pages are made from markdown, where it takes four.
var examples = regexp.MustCompile(`(?m)^  (\S)`)

func readAll(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(text)
	}
	return out
}
