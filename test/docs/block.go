package docs

import (
	"regexp"
	"strings"
)

// A Block is what stands between two fences.
type Block struct {
	Document string
	Title    string // the nearest above it
	Line     int    // of its first line
	Kind     string // the word behind the fence: sh, console, yaml, or nothing for a drawing
	Text     string // without the indentation of a list
}

// Blocks returns a document's blocks in their order.
func Blocks(document, text string) (out []Block) {
	inside := false
	indent, title := "", ""
	var b Block
	for i, line := range strings.Split(text, "\n") {
		kind, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && !inside:
			b = Block{Document: document, Title: title, Line: i + 2, Kind: kind}
			indent = line[:strings.Index(line, "`")]
			inside = true
		case fence:
			out = append(out, b)
			inside = false
		case inside:
			b.Text += strings.TrimPrefix(line, indent) + "\n"
		case strings.HasPrefix(line, "#"):
			title = strings.TrimLeft(line, "# ")
		}
	}
	return out
}

// A Command is a line to type, which a backslash may continue, and what the document shows as its answer.
type Command struct{ Text, Answer string }

// remark is a comment behind a command, or a line that is one.
var remark = regexp.MustCompile(`(^|\s+)#\s.*$`)

// Commands are those of a block of kind sh, where each line is one, or console, where those behind a $ are.
func (b Block) Commands() (out []Command) {
	typed, continues := b.Kind == "sh", false
	for line := range strings.Lines(b.Text) {
		line = strings.TrimSuffix(line, "\n")
		if b.Kind == "console" && !continues {
			if line, typed = strings.CutPrefix(line, "$ "); !typed && len(out) > 0 {
				out[len(out)-1].Answer += line + "\n"
			}
		}
		line = remark.ReplaceAllString(line, "")
		if !typed || line == "" {
			continue
		}
		before, more := strings.CutSuffix(line, "\\")
		if continues {
			out[len(out)-1].Text += strings.TrimSpace(before)
		} else {
			out = append(out, Command{Text: before})
		}
		if continues = more; more {
			out[len(out)-1].Text = strings.TrimRight(out[len(out)-1].Text, " ") + " "
		}
	}
	return out
}

// span is code within a sentence or a table.
var span = regexp.MustCompile("`([^`\n]+)`")

// Spans are the pieces of code within a document's sentences.
func Spans(text string) (out []string) {
	inside := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			inside = !inside
		} else if !inside {
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				out = append(out, m[1])
			}
		}
	}
	return out
}
