package doctest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const root = "../.."

func absRoot(t *testing.T) string {
	t.Helper()
	abs, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// TestSnippets compiles every snippet of the project's Markdown files, and runs those
// that can be run.
func TestSnippets(t *testing.T) {
	all, err := readBlocks(root)
	if err != nil {
		t.Fatal(err)
	}
	problems, compiled := check(t, all)
	for _, p := range problems {
		t.Error(p)
	}
	if compiled == 0 {
		t.Error("no snippet was found")
	}
}

// TestRightSnippets: each form of a snippet passes.
func TestRightSnippets(t *testing.T) {
	text, err := os.ReadFile("testdata/right.md")
	if err != nil {
		t.Fatal(err)
	}
	all, err := blocks("right.md", string(text))
	if err != nil {
		t.Fatal(err)
	}
	problems, compiled := check(t, all)
	for _, p := range problems {
		t.Error(p)
	}
	if want := 5; compiled != want {
		t.Errorf("%d snippets were compiled, want %d", compiled, want)
	}
}

// TestWrongSnippets: what does not compile, and what fails, is found, and the message
// names the line of the Markdown file.
func TestWrongSnippets(t *testing.T) {
	text, err := os.ReadFile("testdata/wrong.md")
	if err != nil {
		t.Fatal(err)
	}
	all, err := blocks("wrong.md", string(text))
	if err != nil {
		t.Fatal(err)
	}
	// A module that does not compile runs nothing, so what fails when it is run is
	// checked apart.
	var run, rest []*block
	for _, b := range all {
		if b.marker == "snippet: run" || b.marker == "snippet: server" {
			run = append(run, b)
		} else {
			rest = append(rest, b)
		}
	}
	for _, list := range [][]*block{run, rest} {
		problems, _ := check(t, list)
		found := strings.Join(problems, "\n")
		for _, b := range list {
			if !strings.Contains(found, b.String()+":") {
				t.Errorf("%s was not found, or without its line:\n%s", b, found)
			}
		}
	}
}

// check compiles the snippets among blocks, one go build for each module, and runs
// what can be run. It returns what is wrong and how many snippets were compiled.
func check(t *testing.T, all []*block) (problems []string, compiled int) {
	t.Helper()
	tmp := t.TempDir()
	programs := make(map[string]*program)
	packages := make(map[*snippet]string)
	for _, b := range all {
		if b.lang != "go" {
			continue
		}
		s, err := newSnippet(b, "testdata/wrappers")
		switch {
		case err != nil:
			problems = append(problems, err.Error())
			continue
		case s.source == "":
			continue
		}
		p := programs[s.dir]
		if p == nil {
			p = newProgram(absRoot(t), s.dir, tmp)
			programs[s.dir] = p
		}
		name, err := p.add(s)
		if err != nil {
			t.Fatal(err)
		}
		packages[s] = name
		compiled++
	}
	for dir, p := range programs {
		out := filepath.Join(tmp, "out", strings.ReplaceAll(dir, "/", "_"))
		if err := os.MkdirAll(out, 0o777); err != nil {
			t.Fatal(err)
		}
		if text, err := p.build(out); err != nil {
			problems = append(problems, fmt.Sprintf("module %s: %v\n%s", dir, err, text))
			continue
		}
		problems = append(problems, run(t, out, dir, packages)...)
	}
	return problems, compiled
}

// run runs the snippets of a module that can be run.
func run(t *testing.T, out, dir string, packages map[*snippet]string) (problems []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ordered := slices.SortedFunc(func(yield func(*snippet) bool) {
		for s := range packages {
			if !yield(s) {
				return
			}
		}
	}, func(a, b *snippet) int { return strings.Compare(packages[a], packages[b]) })
	for _, s := range ordered {
		var cmd *exec.Cmd
		switch {
		case s.dir != dir:
			continue
		case s.runsMain:
			cmd = exec.CommandContext(ctx, filepath.Join(out, packages[s]))
		case s.runs:
			cmd = exec.CommandContext(ctx, filepath.Join(out, "main"), packages[s])
		default:
			continue
		}
		var text bytes.Buffer
		cmd.Stdout, cmd.Stderr = &text, &text
		if err := cmd.Run(); err != nil {
			problems = append(problems, fmt.Sprintf("%s: run: %v\n%s", s, err, &text))
		}
	}
	return problems
}

// TestCommands: the commands in Markdown files that start with make or go exist.
func TestCommands(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Fatal(err)
	}
	files, err := markdownFiles(root)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range commands(string(text)) {
			if seen[command] {
				continue
			}
			seen[command] = true
			if err := exists(command); err != nil {
				t.Errorf("%s: %s: %v", file, command, err)
			}
		}
	}
	if len(seen) == 0 {
		t.Error("no command was found")
	}
	for _, wrong := range []string{"make no-such-target", "go run ./no/such/program"} {
		if exists(wrong) == nil {
			t.Errorf("%s: not found to be wrong", wrong)
		}
	}
}

// exists returns an error if a command cannot work.
func exists(command string) error {
	fields := strings.Fields(command)
	var cmd *exec.Cmd
	if fields[0] == "make" {
		cmd = exec.Command("make", append([]string{"-n"}, fields[1:]...)...)
	} else {
		i := slices.IndexFunc(fields, func(s string) bool { return strings.HasPrefix(s, ".") })
		if i < 0 || strings.HasSuffix(fields[i], "...") {
			return nil
		}
		cmd = exec.Command("go", "list", fields[i])
		work, err := filepath.Abs(filepath.Join(root, "go.work"))
		if err != nil {
			return err
		}
		cmd.Env = append(os.Environ(), "GOWORK="+work) // as in a reader's clone
	}
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// TestLinks: the relative links in Markdown files lead somewhere.
func TestLinks(t *testing.T) {
	files, err := markdownFiles(root)
	if err != nil {
		t.Fatal(err)
	}
	read := func(file string) string {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, file := range files {
		for _, l := range links(read(file)) {
			path, anchor, _ := strings.Cut(l, "#")
			target := file
			if path != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(file), path))
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: %s: %v", file, l, err)
				continue
			}
			if anchor != "" && strings.HasSuffix(target, ".md") && !slices.Contains(anchors(read(target)), anchor) {
				t.Errorf("%s: %s: no such heading", file, l)
			}
		}
	}
}
