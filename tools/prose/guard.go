package main

import (
	"go/ast"
	"go/token"
	"regexp"
	"strings"
)

// saysWhy matches the comment of a field that needs no mutex, or another one.
var saysWhy = regexp.MustCompile(`(?i)guarded by|owned by|used only by|set once|set by new|immutable|read-only|before|never changes?|never change|do(es)? not change|must not change`)

// needsNoGuard matches the types of fields that are safe by themselves or are not
// modified after they are set. A type is written as in the source, without type
// arguments.
var needsNoGuard = regexp.MustCompile(`^(chan|<-chan|func)\b|^\*?(sync|atomic)\.|^context\.(Context|CancelFunc|CancelCauseFunc)$|^\*slog\.Logger$|^\*?([a-z]\w*\.)?([A-Z]\w*)?[oO]ptions$`)

// checkStruct looks for fields that a mutex of the struct does not guard.
func (s *source) checkStruct(t *ast.StructType, p *pkg) {
	fields := t.Fields.List
	if !hasMutex(fields) {
		return
	}
	guarded, excused := false, false // the field belongs to a block that a mutex, or a comment, covers
	for i, f := range fields {
		if i == 0 || s.blankBefore(fields[i-1], f) {
			guarded, excused = false, f.Doc != nil && saysWhy.MatchString(f.Doc.Text())
		}
		if isMutex(f) {
			guarded = true
			continue
		}
		if guarded || excused || needsNoGuard.MatchString(typeText(f.Type)) || explains(f) || p.setOnce(f) || s.excepted[s.line(f.Pos())] {
			continue
		}
		s.report("guard", s.line(f.Pos()), "the field %s stands beside a mutex: put it below the mutex, or say what guards it", fieldName(f))
	}
}

// pkg is what the files of a package do to fields.
type pkg struct {
	written map[string]bool // the names of fields that are modified after the struct is made
	structs map[string]bool // the names of types that are structs without a mutex
}

// add adds a file of the package.
func (p *pkg) add(file *ast.File) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				p.write(e)
			}
		case *ast.IncDecStmt:
			p.write(n.X)
		case *ast.RangeStmt:
			p.write(n.Key)
			p.write(n.Value)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				p.write(n.X)
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "delete" || f.Name == "clear") {
				p.write(n.Args[0])
			}
		case *ast.TypeSpec:
			if t, ok := n.Type.(*ast.StructType); ok && !hasMutex(t.Fields.List) {
				p.structs[n.Name.Name] = true
			}
		}
		return true
	})
}

// write notes every field in the path of an expression that is modified.
func (p *pkg) write(e ast.Expr) {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		p.written[e.Sel.Name] = true
		p.write(e.X)
	case *ast.IndexExpr:
		p.write(e.X)
	case *ast.ParenExpr:
		p.write(e.X)
	}
}

// setOnce reports whether no code modifies the field after the struct is made. A struct
// of the package may have methods that modify it.
func (p *pkg) setOnce(f *ast.Field) bool {
	text := typeText(f.Type)
	if p.structs[text] || text == "struct" || text == "bytes.Buffer" || text == "strings.Builder" {
		return false
	}
	for _, n := range f.Names {
		if p.written[n.Name] {
			return false
		}
	}
	return f.Names != nil || !p.written[text[strings.LastIndexAny(text, ".*")+1:]]
}

func hasMutex(fields []*ast.Field) bool {
	for _, f := range fields {
		if isMutex(f) {
			return true
		}
	}
	return false
}

func isMutex(f *ast.Field) bool {
	text := typeText(f.Type)
	return text == "sync.Mutex" || text == "sync.RWMutex"
}

// explains reports whether a field has a comment that says why it needs no mutex.
func explains(f *ast.Field) bool {
	return f.Doc != nil && saysWhy.MatchString(f.Doc.Text()) || f.Comment != nil && saysWhy.MatchString(f.Comment.Text())
}

// blankBefore reports whether a blank line stands between two fields.
func (s *source) blankBefore(a, b *ast.Field) bool {
	from := s.line(a.End())
	to := s.line(b.Pos())
	for line := from; line < to-1; line++ {
		if strings.TrimSpace(s.lines[line]) == "" {
			return true
		}
	}
	return false
}

func fieldName(f *ast.Field) string {
	var names []string
	for _, n := range f.Names {
		names = append(names, n.Name)
	}
	if names == nil {
		return typeText(f.Type)
	}
	return strings.Join(names, ", ")
}

// typeText returns a type as it is written, as far as the rules need it.
func typeText(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return typeText(e.X) + "." + e.Sel.Name
	case *ast.StarExpr:
		return "*" + typeText(e.X)
	case *ast.IndexExpr:
		return typeText(e.X)
	case *ast.IndexListExpr:
		return typeText(e.X)
	case *ast.ChanType:
		return "chan"
	case *ast.FuncType:
		return "func"
	case *ast.StructType:
		return "struct"
	}
	return ""
}
