package doctest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func readDoc(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// sources returns the Go files of a package, or of all packages below dir, without
// tests.
func sources(t *testing.T, dir string, all bool) []*ast.File {
	t.Helper()
	var files []*ast.File
	err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != filepath.Join(root, dir) && (!all || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// fields returns the names of the exported fields of a struct.
func fields(files []*ast.File, name string) []string {
	var all []string
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || spec.Name.Name != name {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range s.Fields.List {
					for _, id := range field.Names {
						if id.IsExported() {
							all = append(all, id.Name)
						}
					}
				}
			}
			return true
		})
	}
	return all
}

// section returns the part of a Markdown text below a heading of the second level.
func section(text, heading string) string {
	_, text, _ = strings.Cut(text, "\n## "+heading+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// TestEveryOption: docs/tuning.md names every option, in the section of its struct, and
// every parameter of package open.
func TestEveryOption(t *testing.T) {
	tuning := readDoc(t, "docs/tuning.md")
	for _, o := range []struct{ dir, kind, section string }{
		{".", "Options", "Client"},
		{".", "Hold", "Hold"},
		{".", "RegisterOptions", "Registrations"},
		{"resolver", "Options", "gRPC resolver"},
		{"balancer", "Config", "Load balancing"},
		{"httptransport", "Options", "HTTP clients"},
		{"serve", "Options", "Serving"},
		{"backend/etcd", "Options", "etcd"},
		{"backend/consul", "Options", "Consul"},
		{"backend/open", "Options", "URLs"},
		{"backend/open", "ClientOptions", "URLs"},
		{"migrate", "Options", "Migration"},
		{"migrate", "RecordsOptions", "Migration"},
		{"migrate", "FileOptions", "Migration"},
		{"migrate/bridge", "Options", "Bridge"},
		{"migrate/bridge", "Fuse", "Bridge"},
	} {
		names := fields(sources(t, o.dir, false), o.kind)
		if len(names) == 0 {
			t.Errorf("%s: no type %s with fields", o.dir, o.kind)
		}
		text := section(tuning, o.section)
		for _, name := range names {
			if !strings.Contains(text, "`"+name+"`") {
				t.Errorf("docs/tuning.md: %q does not name %s of %s.%s", o.section, name, o.dir, o.kind)
			}
		}
	}

	parameter := regexp.MustCompile(`(?m)^\t([a-z]+(?:-[a-z]+)*)(?:, ([a-z]+))?(?: {2,}|,| )(?:\S)`)
	for _, f := range sources(t, "backend/open", false) {
		if f.Doc == nil {
			continue
		}
		for _, m := range parameter.FindAllStringSubmatch(f.Doc.Text(), -1) {
			for _, name := range m[1:] {
				if name != "" && strings.HasPrefix(m[0], "\t"+m[1]) && !strings.Contains(section(tuning, "URLs"), "`"+name+"`") &&
					!slices.Contains([]string{"store", "if", "defer", "c", "return"}, name) {
					t.Errorf("docs/tuning.md: %q does not name the parameter %s", "URLs", name)
				}
			}
		}
	}
}

// TestEveryMetric: docs/metrics.md names every metric and every hook, and its log texts
// are those of the code, all of them.
func TestEveryMetric(t *testing.T) {
	metrics := readDoc(t, "docs/metrics.md")
	for _, dir := range []string{".", "migrate"} {
		for _, name := range fields(sources(t, dir, false), "Hooks") {
			if !strings.Contains(section(metrics, "Hooks"), "| `"+name+"` |") {
				t.Errorf("docs/metrics.md does not name the hook %s of %s", name, dir)
			}
		}
	}
	metricsOf(t, metrics, "OpenTelemetry", "observe/otel", regexp.MustCompile(`(?m)^\t(naming\.(?:endpoint|watch|resolver|migration)\.[a-z.]+)`))
	metricsOf(t, metrics, "Prometheus", "observe/prometheus", regexp.MustCompile(`(?m)^\t(naming_[a-z_]+)`))

	documented := make(map[string]bool)
	for _, m := range regexp.MustCompile("`(naming: [^`]+)`").FindAllStringSubmatch(section(metrics, "Log records"), -1) {
		documented[m[1]] = true
	}
	known := make(map[string]bool)
	for _, dir := range []string{".", "resolver", "serve", "backend", "migrate"} {
		for _, text := range literals(sources(t, dir, dir == "backend")) {
			known[text] = true
		}
	}
	for text := range documented {
		if !known[text] {
			t.Errorf("docs/metrics.md has a log text that the code does not have: %q", text)
		}
	}
	for _, dir := range []string{".", "resolver", "serve", "backend", "migrate"} {
		for _, text := range logged(sources(t, dir, dir == "backend")) {
			if !documented[text] {
				t.Errorf("docs/metrics.md does not have the log text %q", text)
			}
		}
	}
}

// TestEveryAlarm: docs/migrating.md says what to do about every alert of a migration, and
// names every hook.
func TestEveryAlarm(t *testing.T) {
	guide := readDoc(t, "docs/migrating.md")
	alerts := regexp.MustCompile(`(?m)alert: (NamingMigration\w+)$`).FindAllStringSubmatch(readDoc(t, "observe/prometheus/alerts.yml"), -1)
	if len(alerts) == 0 {
		t.Error("no alert of a migration")
	}
	for _, m := range alerts {
		if !strings.Contains(section(guide, "When an alarm fires"), "`"+m[1]+"`") {
			t.Errorf("docs/migrating.md does not say what to do about %s", m[1])
		}
	}
	for _, dir := range []string{"migrate", "migrate/bridge"} {
		for _, name := range fields(sources(t, dir, false), "Hooks") {
			if !strings.Contains(guide, "`"+name+"`") {
				t.Errorf("docs/migrating.md does not name the hook %s of %s", name, dir)
			}
		}
	}
}

// metricsOf checks that a section names every metric of the documentation of a package.
func metricsOf(t *testing.T, metrics, heading, dir string, name *regexp.Regexp) {
	t.Helper()
	found := 0
	for _, f := range sources(t, dir, false) {
		for _, m := range name.FindAllStringSubmatch(f.Doc.Text(), -1) {
			found++
			if !strings.Contains(section(metrics, heading), "| `"+m[1]+"` |") {
				t.Errorf("docs/metrics.md does not name the metric %s", m[1])
			}
		}
	}
	if found == 0 {
		t.Errorf("no metric in the documentation of %s", dir)
	}
}

// literals returns the strings in files.
func literals(files []*ast.File) []string {
	var all []string
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil {
					all = append(all, text)
				}
			}
			return true
		})
	}
	return all
}

// logged returns the texts that begin with "naming: " of calls of a logger.
func logged(files []*ast.File) []string {
	var all []string
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Debug", "Info", "Warn", "Error", "Log"}, method.Sel.Name) {
				return true
			}
			for _, arg := range call.Args {
				if lit, ok := arg.(*ast.BasicLit); ok && strings.HasPrefix(lit.Value, `"naming: `) {
					text, _ := strconv.Unquote(lit.Value)
					all = append(all, text)
				}
			}
			return true
		})
	}
	return all
}
