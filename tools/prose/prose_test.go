package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree makes a git repository with the files and returns its directory. Each file is a
// name and a text.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return dir
}

// found returns the findings of a file as "line kind".
func found(t *testing.T, name, text string) (list []string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	findings, err := check(dir, []string{name}, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		list = append(list, fmt.Sprintf("%d %s", f.line, f.kind))
	}
	return list
}

func TestGo(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"a clean file", "// Package p returns what the registry sends.\npackage p\n", nil},
		{"a phrase in a comment", "package p\n\n// f is not called any more.\nfunc f() {}\n", []string{"3 words"}},
		{"a phrase over two lines", "package p\n\n// f is told\n// when it takes\n// in a change.\nfunc f() {}\n", []string{"3 words", "4 words"}},
		{"an example in a comment", "package p\n\n// f is called:\n//\n//\tis told\nfunc f() {}\n", nil},
		{"a block comment", "package p\n\n/* f\nbears it */\nfunc f() {}\n", []string{"4 words"}},
		{"an error text", "package p\n\nvar err = errors.New(\"p: the lease is \" + \"no more\")\n", []string{"3 words"}},
		{"a log text", "package p\n\nfunc f() { log.Warn(\"a watch is told\", \"key\", \"told\") }\n", []string{"3 words", "3 words"}},
		{"another string", "package p\n\nvar word = \"told\"\n", nil},
		{"an exception", "package p\n\n// The watch is told.\n//\n//prose:ok a quotation\nfunc f() {}\n", nil},
		{"an exception of a line", "package p\n\nfunc f() { log.Warn(\"is told\") } //prose:ok a quotation\n", nil},
		{"an exception without a reason", "package p\n\n// The watch is told.\n//\n//prose:ok\nfunc f() {}\n", []string{"5 words"}},
		{"a long function", "package p\n\nfunc f() {\n" + strings.Repeat("\tf()\n", 59) + "}\n", []string{"3 long"}},
		{"60 lines", "package p\n\nfunc f() {\n" + strings.Repeat("\tf()\n", 58) + "}\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := found(t, "p.go", c.text); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
			var want []string
			for _, w := range c.want {
				want = append(want, w+"-test")
			}
			if got := found(t, "p_test.go", c.text); !slices.Equal(got, want) {
				t.Errorf("as a test: %q, want %q", got, want)
			}
		})
	}
}

func TestPhrases(t *testing.T) {
	for _, c := range []struct {
		text string
		want int
	}{
		{"The endpoint is no longer held, and there is no error. It takes no more than 3 s.", 0},
		{"This is no error, and the other is none.", 2},
		{"are those that are some.", 1},
		{"They are some endpoints.", 0},
		{"It takes in a change. It takes in the worst case 3 s.", 1},
		{"The bearer is well-known.", 0},
		{"ResolveNow asks a watch that is well.", 1},
		{"Whoever watches hears nothing without a word.", 2},
		{"a sign of life, or signs of life", 2},
		{"a list like theirs, or their like", 2},
		{"on a machine of one's own", 1},
		{"the latter is worth it", 2},
		{"a retold story", 0},
	} {
		if got := findPhrases("words", "f", passage{1, []string{c.text}}); len(got) != c.want {
			t.Errorf("%q: %v, want %d findings", c.text, got, c.want)
		}
	}
}

func TestMarkdown(t *testing.T) {
	text := "# Told\n\nA watch is\ntold. `is told`\n\n```go\n// is told\n```\n\nIt bears it.\n"
	if got, want := found(t, "a.md", text), []string{"1 words-md", "4 words-md", "10 words-md"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestGuard(t *testing.T) {
	for _, c := range []struct {
		name, fields string
		want         bool // there is a finding
	}{
		{"below the mutex", "mu sync.Mutex\nn int", false},
		{"above the mutex", "n int\nmu sync.Mutex", true},
		{"below a blank line", "mu sync.Mutex\nm int\n\nn int", true},
		{"below a comment after a blank line", "mu sync.Mutex\nm int\n\n// n counts.\nn int", true},
		{"says what guards it", "n int // guarded by mu\nmu sync.Mutex", false},
		{"doc says what guards it", "// n is owned by the loop.\nn int\nmu sync.RWMutex", false},
		{"a block that says so", "// Set once, by New.\nm int\nn int\n\nmu sync.Mutex", false},
		{"a block that ended", "// Set once, by New.\nm int\n\nn int\n\nmu sync.Mutex", true},
		{"an embedded mutex", "sync.Mutex\nn int\n\nm int", false},
		{"an embedded mutex that is not the first", "n int\nsync.Mutex\nm int", true},
		{"never written", "other int\nmu sync.Mutex", false},
		{"a channel", "n chan int\nmu sync.Mutex", false},
		{"a function", "n func()\nmu sync.Mutex", false},
		{"an atomic value", "n atomic.Int64\nmu sync.Mutex", false},
		{"options", "n naming.Options\nmu sync.Mutex", false},
		{"a struct of the package", "other plain\nmu sync.Mutex", true},
		{"a struct with a mutex", "other locked\nmu sync.Mutex", false},
		{"elements are written", "list []int\nmu sync.Mutex", true},
		{"entries are deleted", "index map[int]int\nmu sync.Mutex", true},
		{"its address is taken", "shared int\nmu sync.Mutex", true},
		{"its own method writes it", "own int\nmu sync.Mutex", true},
		{"a method of another struct writes it", "theirs int\nmu sync.Mutex", false},
		{"a method writes it through an outer struct", "inner int\nmu sync.Mutex", true},
		{"an embedded struct", "*plain\nmu sync.Mutex", false},
		{"no mutex", "n int", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "package p\n\ntype s struct {\n" + c.fields + "\n}\n\ntype plain struct{ a int }\n\ntype locked struct {\nmu sync.Mutex\na int\n}\n" +
				"func f(x *s) {\nx.n, x.m = 1, 2\nx.list[0] = 1\ndelete(x.index, 1)\ng(&x.shared)\n}\n" +
				"func (x *s) set() { x.own = 1 }\n" +
				"type other struct{ theirs int }\n\nfunc (o *other) set() { o.theirs = 1 }\n" +
				"type outer struct{ s }\n\nfunc (o *outer) set() { o.inner = 1 }\n"
			if got := found(t, "p.go", text); (len(got) > 0) != c.want {
				t.Errorf("%q, want a finding: %v", got, c.want)
			}
		})
	}
}

// TestRun compares the findings of a tree with baselines.
func TestRun(t *testing.T) {
	files := map[string]string{
		"a/a.go":                "// Package a bears it.\npackage a\n",
		"a/a_test.go":           "// It bears it.\npackage a\n",
		"README.md":             "It bears it.\n",
		"testdata/b.go":         "// It bears it.\npackage b\n",
		"tools/prose/allow.txt": "",
	}
	for _, c := range []struct {
		name, baseline string
		args           []string
		ok             bool
		want           string
	}{
		{"allowed", "# a comment\nwords 1\n", nil, true, "words: 1 of 1 allowed\nlong: 0 of 0 allowed\nguard: 0 of 0 allowed\n"},
		{"verbose", "words 1\n", []string{"-v"}, true, "a/a.go:1: words: \"bears\": \"has\", \"holds\", \"tolerates\"\n" +
			"words: 1 of 1 allowed\nlong: 0 of 0 allowed\nguard: 0 of 0 allowed\n"},
		{"not allowed", "long 1\n", nil, false, "a/a.go:1: words: \"bears\": \"has\", \"holds\", \"tolerates\"\n" +
			"words: 1 of 0 allowed\nlong: 0 of 1 allowed\nguard: 0 of 0 allowed\n"},
		{"all", "words 1\nwords-test 1\nwords-md 1\n", []string{"-all"}, true,
			"words: 1 of 1 allowed\nlong: 0 of 0 allowed\nguard: 0 of 0 allowed\nwords-test: 1 of 1 allowed\nlong-test: 0 of 0 allowed\nwords-md: 1 of 1 allowed\n"},
		{"count", "", []string{"-count"}, true, "  words  long  guard directory\n      1     0      0 a\n      1     0      0 total\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files["tools/prose/baseline.txt"] = c.baseline
			dir := tree(t, files)
			var out strings.Builder
			ok, err := run(append(c.args, dir), &out)
			if err != nil || ok != c.ok || out.String() != c.want {
				t.Errorf("%v, %v\n%s\nwant %v\n%s", ok, err, out.String(), c.ok, c.want)
			}
		})
	}
}

func TestRunErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
	}{
		{"no baseline", map[string]string{"a.go": "package a\n"}},
		{"a baseline of another kind", map[string]string{"tools/prose/baseline.txt": "commas 3\n"}},
		{"a baseline without a number", map[string]string{"tools/prose/baseline.txt": "words\n"}},
		{"a file that is not Go", map[string]string{"a.go": "package\n", "tools/prose/baseline.txt": ""}},
	} {
		if _, err := run([]string{tree(t, c.files)}, new(strings.Builder)); err == nil {
			t.Errorf("%s: the error is nil", c.name)
		}
	}
	if _, err := run([]string{t.TempDir()}, new(strings.Builder)); err == nil {
		t.Error("a directory outside of git: the error is nil")
	}
}
