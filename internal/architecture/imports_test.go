// Package architecture holds no code, only the test of which package may import which.
package architecture

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/drawbridge-net/drawbridge"

// anything allows every package of ours.
const anything = "*"

// allowed is the table of docs/architecture.md: what the packages below a folder may import
// of ours. A folder stands for itself and all below it that have no row of their own.
var allowed = map[string][]string{
	"state": {},

	"store":     {"state", "internal"},
	"reconcile": {"state", "internal"},
	"control":   {"state", "internal"},

	// The planes never import each other.
	"link":              {"state", "internal"},
	"firewall":          {"state", "internal"},
	"firewall/iptables": {"firewall", "state", "internal"},
	"firewall/nftables": {"firewall", "state", "internal"},
	"firewalld":         {"state", "internal"},
	"publish":           {"state", "internal"},
	"relay":             {"publish", "inquiry", "state", "internal"}, // the process in which that plane lives

	// It asks the kernel, changes nothing there, and is no plane.
	"inquiry": {"state", "internal"},

	// It looks at rules of others, and is no plane.
	"hostfw": {"state", "internal"},

	"engine":  {"state", "internal"},
	"collect": {"state", "store", "internal"},

	"driver": {"state", "store", "internal"},
	"ipam":   {"state", "store", "internal"},
	"plugin": {"driver", "ipam", "internal"},

	"internal": {"internal"},
	"cmd":      {anything},
	"test":     {anything},
	"bench":    {anything},
}

// processes are the folders that may use os/exec. Programs are found and started in one
// place, so that each start has a deadline, a fixed locale and an error with the program's words.
var processes = map[string][]string{"internal/process": nil, "test": nil}

// folder is the Go files of one folder, by name.
type folder map[string]*ast.File

func TestImports(t *testing.T) {
	for _, complaint := range checkImports(parseModule(t, filepath.Join("..", ".."))) {
		t.Error(complaint)
	}
}

func TestProcesses(t *testing.T) {
	for _, complaint := range checkProcesses(parseModule(t, filepath.Join("..", ".."))) {
		t.Error(complaint)
	}
}

// TestPackageComments wants a manual for every package, in one file of it.
func TestPackageComments(t *testing.T) {
	for dir, files := range parseModule(t, filepath.Join("..", "..")) {
		var documented, all []string
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			all = append(all, name)
			if strings.TrimSpace(files[name].Doc.Text()) != "" {
				documented = append(documented, name)
			}
		}
		if len(all) > 0 && len(documented) != 1 {
			t.Errorf("%s: %d files have a package comment, want one: %v", dir, len(documented), documented)
		}
	}
}

// TestChecksComplain makes sure that the checks above can fail.
func TestChecksComplain(t *testing.T) {
	tests := []struct {
		name, dir, source string
		want              string // part of the complaint, empty if there is none
	}{
		{"allowed", "driver", `import "` + module + `/store"`, ""},
		{"internal is allowed", "link", `import "` + module + `/internal/process"`, ""},
		{"nothing of ours", "link", `import "github.com/vishvananda/netlink"`, ""},
		{"cmd may import all", "cmd/drawbridge", `import "` + module + `/link"`, ""},
		{"a row for the subfolder wins", "firewall/iptables", `import "` + module + `/firewall"`, ""},

		{"plane imports plane", "link", `import "` + module + `/firewall"`, "link must not import firewall"},
		{"driver imports a plane", "driver", `import "` + module + `/link"`, "driver must not import link"},
		{"plugin goes around the driver", "plugin", `import "` + module + `/state"`, "plugin must not import state"},
		{"state imports internal", "state", `import "` + module + `/internal/version"`, "state must not import internal/version"},
		{"similar name is another folder", "link", `import "` + module + `/statement"`, "link must not import statement"},
		{"child is not its parent", "plugin", `import "` + module + `/drivers/x"`, "plugin must not import drivers/x"},
		{"firewall imports its backend", "firewall", `import "` + module + `/firewall/iptables"`, "firewall must not import firewall/iptables"},
		{"new folder without a row", "extra", `import "fmt"`, "extra has no row"},

		{"process where it may", "internal/process", "import \"os/exec\"\nvar x = exec.Command", ""},
		{"process where it may, below", "test/lab", "import \"os/exec\"\nvar x = exec.Command", ""},
		{"process elsewhere", "firewall/iptables", "import run \"os/exec\"\nvar x = run.Command", "firewall/iptables/x.go must not import os/exec"},
		{"cmd starts none either", "cmd/drawbridge", "import \"os/exec\"\nvar x = exec.LookPath", "must not import os/exec"},
		{"os.StartProcess", "link", "import \"os\"\nvar x = os.StartProcess", "must not use os.StartProcess"},
		{"os.StartProcess by another name", "link", "import system \"os\"\nvar x = system.StartProcess", "must not use os.StartProcess"},
		{"rest of os", "link", "import \"os\"\nvar x = os.ReadFile", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n"+tt.source, 0)
			if err != nil {
				t.Fatal(err)
			}
			module := map[string]folder{tt.dir: {"x.go": file}}
			got := strings.Join(append(checkImports(module), checkProcesses(module)...), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("complaints %q, want %q", got, tt.want)
			}
		})
	}
}

// parseModule reads all Go files below root. It does not ask `go list`, which the cache of test
// results would not notice: the files that this reads are inputs of the test.
func parseModule(t *testing.T, root string) map[string]folder {
	t.Helper()
	out := map[string]folder{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			hidden := name != root && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_"))
			if hidden || base == "testdata" || base == "vendor" {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(base) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		dir = filepath.ToSlash(dir)
		if out[dir] == nil {
			out[dir] = folder{}
		}
		out[dir][base] = file
		return nil
	})
	if err != nil {
		t.Fatalf("reading the module: %v", err)
	}
	if len(out) < 10 {
		t.Fatalf("only %d packages found: this is not the module's root", len(out))
	}
	return out
}

// checkImports compares imports with the table. Test files may import what they like.
func checkImports(packages map[string]folder) (complaints []string) {
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		may, ok := row(allowed, dir)
		if !ok {
			complaints = append(complaints, fmt.Sprintf("%s has no row in the table: add one here and in docs/architecture.md", dir))
			continue
		}
		for _, imported := range importsOf(packages[dir]) {
			other, ours := strings.CutPrefix(imported, module+"/")
			if ours && other != dir && !permits(may, other) {
				complaints = append(complaints, fmt.Sprintf("%s must not import %s: see docs/architecture.md", dir, other))
			}
		}
	}
	return complaints
}

// row finds the entry of a folder or of the nearest folder above it.
func row(table map[string][]string, dir string) ([]string, bool) {
	for ; dir != "."; dir = path.Dir(dir) {
		if r, ok := table[dir]; ok {
			return r, true
		}
	}
	return nil, false
}

// permits reports whether other is one of may. Below internal/ and nowhere else a folder
// stands for its children too: a backend is not imported because its parent may be.
func permits(may []string, other string) bool {
	return slices.ContainsFunc(may, func(m string) bool {
		return m == anything || m == other || m == "internal" && strings.HasPrefix(other, "internal/")
	})
}

func importsOf(files folder) []string {
	found := map[string]bool{}
	for name, file := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		for _, spec := range file.Imports {
			found[importPath(spec)] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func importPath(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return spec.Path.Value // cannot be: it was parsed
	}
	return p
}

// checkProcesses finds the use of what starts programs.
func checkProcesses(packages map[string]folder) (complaints []string) {
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		if _, may := row(processes, dir); may {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(packages[dir])) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			for _, complaint := range starts(packages[dir][name]) {
				complaints = append(complaints, fmt.Sprintf("%s/%s must not %s: programs are started by internal/process", dir, name, complaint))
			}
		}
	}
	return complaints
}

// starts returns what in a file could start a program.
func starts(file *ast.File) (complaints []string) {
	ofOS := "" // the name of package os
	for _, spec := range file.Imports {
		switch importPath(spec) {
		case "os/exec":
			complaints = append(complaints, "import os/exec")
		case "os":
			if ofOS = "os"; spec.Name != nil {
				ofOS = spec.Name.Name
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok || selector.Sel.Name != "StartProcess" {
			return true
		}
		if pkg, ok := selector.X.(*ast.Ident); ok && ofOS != "" && pkg.Name == ofOS {
			complaints = append(complaints, "use os.StartProcess")
		}
		return true
	})
	return complaints
}
