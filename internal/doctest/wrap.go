package doctest

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// snippet is a block of Go and what is compiled of it.
type snippet struct {
	*block
	dir      string // of the module, relative to the root
	source   string // a whole file, empty if nothing is compiled
	runs     bool   // source has a function Run
	isMain   bool   // source is a whole program
	runsMain bool   // and is run
}

// place is the line of a wrapper that the fragment takes.
var place = regexp.MustCompile(`(?m)^\t*//snippet\n`)

const (
	theirsMarker = "theirs"
	inMarker     = "theirs, in "
	skipMarker   = "theirs, not compiled: "
)

// newSnippet returns the snippet of a block.
func newSnippet(b *block, wrappers string) (*snippet, error) {
	s := &snippet{block: b, dir: "."}
	known := ours
	marker, isSnippet := strings.CutPrefix(b.marker, "snippet: ")
	if !isSnippet {
		marker = ""
		if strings.HasPrefix(b.marker, "contrib/") {
			s.dir = path.Dir(b.marker)
			known = withContrib(s.dir)
		}
	}
	wrapper := ""
	switch reason, skip := strings.CutPrefix(marker, skipMarker); {
	case skip && strings.TrimSpace(reason) == "":
		return nil, fmt.Errorf("%s: not compiled, without a reason", b)
	case skip:
		return s, nil
	case marker == theirsMarker:
		s.dir, known = "interop", theirs
	case strings.HasPrefix(marker, inMarker):
		s.dir, known = strings.TrimPrefix(marker, inMarker), theirs
		if s.dir == "interop/old" {
			known.imports = maps.Clone(known.imports)
			maps.Copy(known.imports, theirsOld)
		}
		if strings.HasPrefix(s.dir, "contrib/") {
			known = withContrib(s.dir)
		}
	case marker == "run":
		s.runsMain = true
	case marker != "":
		text, err := os.ReadFile(filepath.Join(wrappers, marker+".go"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b, err)
		}
		wrapper = string(text)
	}
	if err := formatted(b); err != nil {
		return nil, err
	}
	source, err := wrap(b, wrapper, known)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b, err)
	}
	s.source = source
	s.isMain = strings.HasPrefix(source, "package main\n")
	if s.runsMain && !s.isMain {
		return nil, fmt.Errorf("%s: only a whole program is run", b)
	}
	s.runs = !s.isMain && strings.Contains(source, "\nfunc Run(")
	return s, nil
}

// formatted returns an error if a block is not as gofmt has it.
func formatted(b *block) error {
	out, err := format.Source([]byte(b.text))
	if err != nil {
		return fmt.Errorf("%s: %w", b, err)
	}
	if string(out) != b.text {
		return fmt.Errorf("%s: not gofmt-ed; want\n%s", b, out)
	}
	return nil
}

// wrap returns the file that is compiled of a block.
func wrap(b *block, wrapper string, known names) (string, error) {
	if _, err := parser.ParseFile(token.NewFileSet(), "", b.text, parser.PackageClauseOnly); err == nil {
		return b.text, nil // a whole file
	}
	position := fmt.Sprintf("//line %s:%d\n", b.file, b.line)
	if f, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+b.text, 0); err == nil && wrapper == "" {
		if onlyImports(f) {
			return "package snippet\n" + blankImports(f), nil
		}
		return complete(position+b.text, nil, known)
	}
	f, err := parser.ParseFile(token.NewFileSet(), "", "package p\nfunc _() {\n"+b.text+"\n}\n", 0)
	if err != nil {
		return "", err
	}
	body := position + b.text + use(f)
	if wrapper != "" {
		if len(place.FindAllString(wrapper, -1)) != 1 {
			return "", fmt.Errorf("the wrapper has not one line %q", "//snippet")
		}
		return complete(place.ReplaceAllLiteralString(wrapper, body), nil, known)
	}
	list := ""
	var params []string
	for _, name := range unresolved(f) {
		if kind := known.variable(name, b.text); kind != "" && known.imports[name] == "" {
			params = append(params, name)
			list += name + " " + kind + ", "
		}
	}
	return complete("func snippet("+list+") error {\n{\n"+body+"}\nreturn nil\n}\n", params, known)
}

// complete adds a package clause and imports to declarations.
func complete(text string, params []string, known names) (string, error) {
	text = strings.TrimPrefix(text, "package snippet\n")
	f, err := parser.ParseFile(token.NewFileSet(), "", "package snippet\n"+text, 0)
	if err != nil {
		return "", err
	}
	imports := ""
	for _, name := range unresolved(f) {
		switch path := known.imports[name]; {
		case path != "":
			imports += "import " + name + " " + strconv.Quote(path) + "\n"
		case types.Universe.Lookup(name) != nil || slices.Contains(params, name):
		default:
			return "", fmt.Errorf("%q is not declared, and not in the tables of internal/doctest/names.go", name)
		}
	}
	return "package snippet\n" + imports + text, nil
}

// unresolved returns the names that a file uses and does not declare, sorted.
func unresolved(f *ast.File) []string {
	seen := make(map[string]bool)
	for _, id := range f.Unresolved {
		seen[id.Name] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// use returns statements that use what the fragment in f declares. Go refuses
// variables that are not used.
func use(f *ast.File) string {
	body := f.Decls[len(f.Decls)-1].(*ast.FuncDecl).Body
	var all []string
	add := func(e ast.Expr) {
		if id, ok := e.(*ast.Ident); ok && id.Name != "_" {
			all = append(all, id.Name)
		}
	}
	for _, statement := range body.List {
		switch s := statement.(type) {
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE {
				for _, e := range s.Lhs {
					add(e)
				}
			}
		case *ast.DeclStmt:
			for _, spec := range s.Decl.(*ast.GenDecl).Specs {
				if v, ok := spec.(*ast.ValueSpec); ok {
					for _, id := range v.Names {
						add(id)
					}
				}
			}
		}
	}
	slices.Sort(all)
	text := ""
	for _, name := range slices.Compact(all) {
		text += "_ = " + name + "\n"
	}
	return text
}

func onlyImports(f *ast.File) bool {
	return len(f.Decls) > 0 && len(f.Imports) > 0 && allImports(f.Decls)
}

func allImports(decls []ast.Decl) bool {
	return !slices.ContainsFunc(decls, func(d ast.Decl) bool {
		g, ok := d.(*ast.GenDecl)
		return !ok || g.Tok != token.IMPORT
	})
}

// blankImports returns the imports of f without names, so that they compile unused.
func blankImports(f *ast.File) string {
	list := slices.SortedFunc(slices.Values(f.Imports), func(a, b *ast.ImportSpec) int {
		return cmp.Compare(a.Path.Value, b.Path.Value)
	})
	text := ""
	for _, i := range list {
		text += "import _ " + i.Path.Value + "\n"
	}
	return text
}
