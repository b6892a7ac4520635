package doctest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// snippetsDir is the directory, below that of a module, in which the overlay has the
// packages of the snippets. Nothing is there on the disk.
const snippetsDir = "internal/doctest/snippets"

// program is the overlay of one module.
type program struct {
	root string // of the project
	dir  string // of the module, relative to root
	tmp  string // where the files are

	replace  map[string]string // the overlay: file on the disk by path in the tree
	packages []string          // relative to the module
	parts    []string          // names of the packages without a main function
	runs     []string          // names of the parts with a function Run
	programs bool              // something is to be run
	work     bool              // the module needs go.work
}

func newProgram(root, dir, tmp string) *program {
	work := strings.HasPrefix(dir, "contrib/")
	return &program{root: root, dir: dir, tmp: tmp, replace: make(map[string]string), work: work}
}

// add adds a snippet and returns the name of its package.
func (p *program) add(s *snippet) (string, error) {
	name := fmt.Sprintf("s%03d", len(p.packages))
	if strings.Contains(s.source, module+"/observe/") {
		p.work = true
	}
	if !s.isMain {
		p.parts = append(p.parts, name)
	}
	if s.runs {
		p.runs = append(p.runs, name)
	}
	p.programs = p.programs || s.runs || s.runsMain
	return name, p.write(name, s.source)
}

func (p *program) write(name, source string) error {
	file := filepath.Join(p.tmp, strings.ReplaceAll(p.dir, "/", "_")+"_"+name+".go")
	if err := os.WriteFile(file, []byte(source), 0o666); err != nil {
		return err
	}
	p.replace[filepath.Join(p.root, p.dir, snippetsDir, name, "snippet.go")] = file
	p.packages = append(p.packages, "./"+path.Join(snippetsDir, name))
	return nil
}

// writeMain adds the program that runs the snippets with a function Run, one by one:
// its argument is the name of the package. It imports the other parts as well, because
// go build compiles nothing but programs when it writes programs.
func (p *program) writeMain() error {
	imports, cases := "", ""
	for _, name := range p.parts {
		as := "_"
		if slices.Contains(p.runs, name) {
			as = name
			cases += fmt.Sprintf("case %q:\nerr = %s.Run(ctx)\n", name, name)
		}
		imports += fmt.Sprintf("import %s %q\n", as, path.Join(module, p.dir, snippetsDir, name))
	}
	return p.write("main", `package main

import "context"
import "fmt"
import "os"
import "time"
`+imports+`
func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := ctx.Err()
	switch os.Args[1] {
	`+cases+`
	default:
		err = fmt.Errorf("no snippet %q", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
`)
}

// build compiles all packages at once, and writes the programs into the directory out
// if something is to be run.
func (p *program) build(out string) ([]byte, error) {
	to := os.DevNull
	if p.programs {
		to = out + string(filepath.Separator)
		if err := p.writeMain(); err != nil {
			return nil, err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": p.replace})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(p.tmp, strings.ReplaceAll(p.dir, "/", "_")+"_overlay.json")
	if err := os.WriteFile(file, overlay, 0o666); err != nil {
		return nil, err
	}
	args := append([]string{"build", "-overlay", file, "-o", to}, p.packages...)
	cmd := exec.Command("go", args...)
	cmd.Dir = filepath.Join(p.root, p.dir)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if p.work {
		cmd.Env = append(os.Environ(), "GOWORK="+filepath.Join(p.root, "go.work"))
	}
	return cmd.CombinedOutput()
}
