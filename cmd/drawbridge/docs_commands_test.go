package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// span is what documents have between backticks, or in a fence at the beginning of a line.
var span = regexp.MustCompile("`(drawbridge [a-z][^`\n|]*)`|(?m:^(?:\\$ )?(drawbridge [a-z][^\n#]*))")

// TestDocumentedCommands: a command line of ours that a document shows is one that the program takes.
func TestDocumentedCommands(t *testing.T) {
	files := []string{"../../README.md", "../../CHANGELOG.md"}
	for _, pattern := range []string{"../../docs/*.md", "../../docs/*/*.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range span.FindAllStringSubmatch(string(text), -1) {
			line := m[1] + m[2]
			found++
			if err := parses(line); err != nil {
				t.Errorf("%s: %s: %v", strings.TrimPrefix(file, "../../"), line, err)
			}
		}
	}
	for _, wrong := range []string{"drawbridge prots", "drawbridge gc --dry", "drawbridge status now"} {
		if parses(wrong) == nil {
			t.Errorf("%s is taken for a command of ours", wrong)
		}
	}
	if found < 50 {
		t.Errorf("only %d commands were found", found)
	}
}

// parses has the program read a command line, and do nothing.
func parses(line string) error {
	words := strings.Fields(strings.TrimSuffix(strings.TrimSpace(line), " …"))
	cmd, rest, err := newRoot().Find(words[1:])
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if cmd.Args == nil {
		return nil
	}
	return cmd.Args(cmd, cmd.Flags().Args())
}
