// Package mutant tests tests: it plants a bug and sees whether a test notices.
package mutant

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Mutant is a bug: in File, Old is replaced by New.
type Mutant struct {
	// Name says what is wrong with the mutant.
	Name string
	// File is the path of a file, from the directory of the tests: its mere name
	// if it is of the same package.
	File string
	// Old is a text that occurs in File exactly once, so that a mutant cannot
	// silently fall out of step with the code; New takes its place.
	Old, New string
	// Test is a regular expression, as for go test -run, of the tests that
	// must fail.
	Test string
}

// Full reports whether tests run at full length, which make full asks for.
func Full() bool { return os.Getenv("NAMING_FULL") != "" }

// Run fails t for every mutant that passes its test, which is in the package in
// dir, or does not compile. The files in the tree are not touched. Every mutant
// compiles the package anew, so unless tests run at full length only the first
// of few mutants do.
func Run(t *testing.T, dir string, few int, mutants []Mutant) {
	t.Helper()
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		mutate(t, filepath.Join(dir, m.File), m) // also of those that are left out
	}
	if !Full() && len(mutants) > few {
		t.Logf("%d of %d mutants; all of them with NAMING_FULL=1", few, len(mutants))
		mutants = mutants[:few]
	}
	for _, m := range mutants {
		t.Run(strings.ReplaceAll(m.Name, " ", "_"), func(t *testing.T) {
			out, err := run(t, dir, m)
			switch {
			case err == nil:
				t.Errorf("the mutant passes %s: no test sees that it %s", m.Test, m.Name)
			case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]") || !strings.Contains(out, "FAIL"):
				t.Errorf("the mutant does not run: %v\n%s", err, out)
			}
		})
	}
}

func run(t *testing.T, dir string, m Mutant) (string, error) {
	file := filepath.Join(dir, m.File)
	src := mutate(t, file, m)
	tmp := t.TempDir()
	changed, overlay := filepath.Join(tmp, filepath.Base(m.File)), filepath.Join(tmp, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		changed: src,
		overlay: string(list),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-overlay", overlay, "-run", m.Test, "-count=1", "-timeout", "2m", ".")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mutate returns the text of a file with the bug in it.
func mutate(t *testing.T, file string, m Mutant) string {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(src), m.Old); n != 1 {
		t.Errorf("%s: %s has %d times, want once:\n%s", m.Name, m.File, n, m.Old)
	}
	return strings.Replace(string(src), m.Old, m.New, 1)
}
