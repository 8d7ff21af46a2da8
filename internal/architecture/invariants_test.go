package architecture

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestInvariantsAreHeld checks that docs/invariants.md names tests, and that they exist.
func TestInvariantsAreHeld(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "invariants.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, complaint := range checkInvariants(string(text), parseModule(t, root)) {
		t.Error(complaint)
	}
}

var (
	// invariant is a row of the table: | I1 | sentence | who holds it |.
	invariant = regexp.MustCompile(`^\| (I\d+) \| ([^|]+) \| ([^|]+) \|$`)
	// holders are the tests of one folder: `driver`: `TestOne`, `TestTwo`.
	holders = regexp.MustCompile("^`([a-z/]+)`: (`Test[A-Za-z0-9]+`(?:, `Test[A-Za-z0-9]+`)*)$")
)

// checkInvariants compares the table with the tests of the module.
func checkInvariants(text string, packages map[string]folder) (complaints []string) {
	number := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| I") || strings.HasPrefix(line, "| Inv") {
			continue
		}
		number++
		row := invariant.FindStringSubmatch(line)
		if row == nil || row[1] != fmt.Sprintf("I%d", number) {
			complaints = append(complaints, fmt.Sprintf("row %d is not | I%d | sentence | tests |: %s", number, number, line))
			continue
		}
		for part := range strings.SplitSeq(row[3], "; ") {
			complaints = append(complaints, checkHolders(row[1], part, packages)...)
		}
	}
	if number == 0 {
		complaints = append(complaints, "there are no rows")
	}
	return complaints
}

func checkHolders(id, part string, packages map[string]folder) (complaints []string) {
	found := holders.FindStringSubmatch(part)
	if found == nil {
		return []string{fmt.Sprintf("%s: %q is not `folder`: `TestName`, `TestName`", id, part)}
	}
	tests := testsOf(packages[found[1]])
	for name := range strings.SplitSeq(found[2], ", ") {
		if name = strings.Trim(name, "`"); !tests[name] {
			complaints = append(complaints, fmt.Sprintf("%s: there is no %s in %s", id, name, found[1]))
		}
	}
	return complaints
}

// testsOf returns the names of a folder's test functions, under all build tags.
func testsOf(files folder) map[string]bool {
	names := map[string]bool{}
	for file, parsed := range files {
		if !strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}

// TestInvariantsComplain makes sure that the check above can fail.
func TestInvariantsComplain(t *testing.T) {
	tests := []struct{ name, table, want string }{
		{"held", "| I1 | s | `driver`: `TestOne`, `TestTwo` |", ""},
		{"held by two folders", "| I1 | s | `driver`: `TestOne`; `test/engine`: `TestThree` |", ""},
		{"header and rule are no rows", "| # | Invariant | Held by |\n|---|---|---|\n| I1 | s | `driver`: `TestOne` |", ""},
		{"renamed", "| I1 | s | `driver`: `TestOne`, `TestOnce` |", "I1: there is no TestOnce in driver"},
		{"of another folder", "| I1 | s | `driver`: `TestThree` |", "no TestThree in driver"},
		{"unknown folder", "| I1 | s | `drivers`: `TestOne` |", "no TestOne in drivers"},
		{"not in a test file", "| I1 | s | `driver`: `TestFour` |", "no TestFour in driver"},
		{"a method", "| I1 | s | `driver`: `TestFive` |", "no TestFive in driver"},
		{"vague", "| I1 | s | `driver`: order tests |", `"` + "`driver`" + `: order tests" is not`},
		{"nobody", "| I1 | s | all |", `"all" is not`},
		{"a row left out", "| I1 | s | `driver`: `TestOne` |\n| I3 | s | `driver`: `TestOne` |", "row 2 is not | I2"},
		{"a cell too few", "| I1 | `driver`: `TestOne` |", "row 1 is not"},
		{"no table", "nothing", "no rows"},
	}
	packages := map[string]folder{
		"driver": {
			"one_test.go": parse(t, "func TestOne() {}; func TestTwo() {}; func (x) TestFive() {}"),
			"four.go":     parse(t, "func TestFour() {}"),
		},
		"test/engine": {"three_test.go": parse(t, "func TestThree() {}")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(checkInvariants(tt.table, packages), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("complaints %q, want %q", got, tt.want)
			}
		})
	}
}

func parse(t *testing.T, source string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n"+source, 0)
	if err != nil {
		t.Fatal(err)
	}
	return file
}
