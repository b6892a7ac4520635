package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxLines is how many lines a function may have.
const maxLines = 60

// directive begins a comment that excepts a line or a comment.
const directive = "//prose:ok"

// source is a parsed Go file.
type source struct {
	name     string
	test     bool
	set      *token.FileSet
	file     *ast.File
	lines    []string
	suffix   string // of the kinds: "" or "-test"
	excepted map[int]bool
	findings []finding
}

// parse returns a Go file that has not been checked.
func parse(name string, text []byte, test bool) (*source, error) {
	s := &source{name: name, test: test, set: token.NewFileSet(), lines: strings.Split(string(text), "\n"), excepted: make(map[int]bool)}
	var err error
	s.file, err = parser.ParseFile(s.set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	return s, err
}

// check returns the findings in a file of the package p.
func (s *source) check(p *pkg) []finding {
	if s.test {
		s.suffix = "-test"
	}
	s.checkComments()
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			s.checkLength(n)
		case *ast.CallExpr:
			s.checkCall(n)
		case *ast.StructType:
			if !s.test {
				s.checkStruct(n, p)
			}
		}
		return true
	})
	slices.SortStableFunc(s.findings, func(a, b finding) int { return a.line - b.line })
	return s.findings
}

func (s *source) line(pos token.Pos) int { return s.set.Position(pos).Line }

func (s *source) report(kind string, line int, format string, args ...any) {
	s.findings = append(s.findings, finding{kind: kind, file: s.name, line: line, text: fmt.Sprintf(format, args...)})
}

// checkComments looks for phrases in comments, and notes the lines that directives
// except.
func (s *source) checkComments() {
	for _, group := range s.file.Comments {
		if s.directive(group) {
			continue
		}
		for _, p := range s.passages(group) {
			s.findings = append(s.findings, findPhrases("words"+s.suffix, s.name, p)...)
		}
	}
}

// directive reports whether a comment has a directive. It notes the lines of the
// comment as excepted.
func (s *source) directive(group *ast.CommentGroup) bool {
	for _, c := range group.List {
		reason, ok := strings.CutPrefix(c.Text, directive)
		if !ok {
			continue
		}
		if strings.TrimSpace(reason) == "" {
			s.report("words"+s.suffix, s.line(c.Pos()), "%s needs a reason", directive)
		}
		for line := s.line(group.Pos()); line <= s.line(group.End()); line++ {
			s.excepted[line] = true
		}
		return true
	}
	return false
}

// passages returns the text of a comment without examples of code and without
// directives.
func (s *source) passages(group *ast.CommentGroup) (list []passage) {
	p := passage{first: s.line(group.Pos())}
	for _, c := range group.List {
		text := strings.TrimPrefix(c.Text, "//")
		if block, ok := strings.CutPrefix(c.Text, "/*"); ok {
			text = strings.TrimSuffix(block, "*/")
		}
		for i, line := range strings.Split(text, "\n") {
			number := s.line(c.Pos()) + i
			if strings.HasPrefix(c.Text, "//go:") || strings.HasPrefix(line, "\t") {
				line = ""
			}
			for p.first+len(p.lines) < number {
				p.lines = append(p.lines, "")
			}
			p.lines = append(p.lines, line)
		}
	}
	return append(list, p)
}

// checkLength looks for long functions.
func (s *source) checkLength(f *ast.FuncDecl) {
	if n := s.line(f.End()) - s.line(f.Pos()) + 1; n > maxLines {
		s.report("long"+s.suffix, s.line(f.Pos()), "%s has %d lines, more than %d", f.Name.Name, n, maxLines)
	}
}

// texts matches the names of functions whose arguments are texts for people.
var texts = regexp.MustCompile(`^(Debug|Info|Warn|Error|Log)(Context|Attrs)?$|^(Error|Fatal|Log|Skip|Print|Panic)(f|ln)?$|^panic$|^New$|^Missing$`)

// checkCall looks for phrases in the texts of errors and log lines.
func (s *source) checkCall(call *ast.CallExpr) {
	name := ""
	switch f := call.Fun.(type) {
	case *ast.Ident:
		name = f.Name
	case *ast.SelectorExpr:
		name = f.Sel.Name
	}
	if !texts.MatchString(name) {
		return
	}
	for _, arg := range call.Args {
		s.checkText(arg)
	}
}

// checkText looks for phrases in a string literal, or several that are joined by +.
func (s *source) checkText(e ast.Expr) {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		s.checkText(e.X)
		s.checkText(e.Y)
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		if e.Kind != token.STRING || err != nil || s.excepted[s.line(e.Pos())] {
			return
		}
		s.findings = append(s.findings, findPhrases("words"+s.suffix, s.name, passage{s.line(e.Pos()), strings.Split(text, "\n")})...)
	}
}
