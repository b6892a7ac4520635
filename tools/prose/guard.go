package main

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// saysWhy matches the comment of a field that needs no mutex, or another one.
var saysWhy = regexp.MustCompile(`(?i)guarded by|owned by|used only by|set once|set by new|immutable|read-only|constant|before|never changes?|never change|do(es)? not change|must not change`)

// needsNoGuard matches the types of fields that are safe by themselves or are not
// modified after they are set. A type is written as in the source, without type
// arguments.
var needsNoGuard = regexp.MustCompile(`^(chan|<-chan|func)\b|^\*?(sync|atomic)\.|^context\.(Context|CancelFunc|CancelCauseFunc)$|^\*slog\.Logger$|^\*?([a-z]\w*\.)?([A-Z]\w*)?[oO]ptions$`)

// checkStruct looks for fields that a mutex of the struct does not guard.
func (s *source) checkStruct(t *ast.StructType, p *pkg) {
	fields := t.Fields.List
	if !hasMutex(fields) || isMutex(fields[0]) && fields[0].Names == nil {
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
		if guarded || excused || needsNoGuard.MatchString(typeText(f.Type)) || explains(f) || p.setOnce(t, f) || s.excepted[s.line(f.Pos())] {
			continue
		}
		s.report("guard", s.line(f.Pos()), "the field %s stands beside a mutex: put it below the mutex, or say what guards it", strings.Join(names(f), ", "))
	}
}

// pkg is what the files of a package do to fields.
type pkg struct {
	names   map[*ast.StructType]string
	fields  map[string]map[string]bool // the fields of structs that have a name, by this name
	plain   map[string]bool            // the names of structs without a mutex
	written map[write]bool
}

// write is a modification of a field after the struct is made.
type write struct {
	receiver string // the type of the receiver, if a method modifies its own field
	field    string
}

func newPkg() *pkg {
	return &pkg{make(map[*ast.StructType]string), make(map[string]map[string]bool), make(map[string]bool), make(map[write]bool)}
}

// add adds a file of the package.
func (p *pkg) add(file *ast.File) {
	for _, d := range file.Decls {
		name, receiver := "", ""
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil && len(f.Recv.List[0].Names) > 0 {
			name = f.Recv.List[0].Names[0].Name
			receiver = strings.TrimPrefix(typeText(f.Recv.List[0].Type), "*")
		}
		ast.Inspect(d, func(n ast.Node) bool {
			if t, ok := n.(*ast.TypeSpec); ok {
				p.addType(t)
			}
			for _, e := range modified(n) {
				p.addWrite(e, name, receiver)
			}
			return true
		})
	}
}

func (p *pkg) addType(spec *ast.TypeSpec) {
	t, ok := spec.Type.(*ast.StructType)
	if !ok {
		return
	}
	name := spec.Name.Name
	p.names[t] = name
	p.plain[name] = !hasMutex(t.Fields.List)
	p.fields[name] = make(map[string]bool)
	for _, f := range t.Fields.List {
		for _, n := range names(f) {
			p.fields[name][n] = true
		}
	}
}

// modified returns the expressions that a node modifies, or whose address it takes.
func modified(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.AssignStmt:
		return n.Lhs
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	case *ast.RangeStmt:
		return []ast.Expr{n.Key, n.Value}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			return []ast.Expr{n.X}
		}
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "delete" || f.Name == "clear") {
			return n.Args[:1]
		}
	}
	return nil
}

// addWrite notes every field in the path of an expression that is modified. name and
// receiver are those of the receiver of the method around.
func (p *pkg) addWrite(e ast.Expr, name, receiver string) {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		w := write{field: e.Sel.Name}
		if x, ok := e.X.(*ast.Ident); ok && name != "" && x.Name == name {
			w.receiver = receiver
		}
		p.written[w] = true
		p.addWrite(e.X, name, receiver)
	case *ast.IndexExpr:
		p.addWrite(e.X, name, receiver)
	case *ast.ParenExpr:
		p.addWrite(e.X, name, receiver)
	}
}

// isWritten reports whether code may modify a field of the struct after it is made. The
// types of most expressions are not known, so code that modifies a field of the same name
// counts, unless it is a method of another struct that has such a field itself.
func (p *pkg) isWritten(t *ast.StructType, field string) bool {
	for w := range p.written {
		if w.field == field && (w.receiver == p.names[t] || !p.fields[w.receiver][field]) {
			return true
		}
	}
	return false
}

// setOnce reports whether no code modifies the field after the struct is made. A struct
// of the package may have methods that modify it.
func (p *pkg) setOnce(t *ast.StructType, f *ast.Field) bool {
	text := typeText(f.Type)
	if p.plain[text] || text == "struct" || text == "bytes.Buffer" || text == "strings.Builder" {
		return false
	}
	return !slices.ContainsFunc(names(f), func(n string) bool { return p.isWritten(t, n) })
}

// names returns the names of a field. That of an embedded type is the name of the type.
func names(f *ast.Field) (list []string) {
	for _, n := range f.Names {
		list = append(list, n.Name)
	}
	if list == nil {
		text := typeText(f.Type)
		list = []string{text[strings.LastIndexAny(text, ".*")+1:]}
	}
	return list
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
