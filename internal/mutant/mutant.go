// Package mutant tests tests: it puts a fault into the code and checks that a test fails.
package mutant

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Mutant is a fault: New replaces Old in File.
type Mutant struct {
	// Name says what the faulty code does.
	Name string
	// File is the path of the file, relative to the directory of the tests. A file of
	// the same package needs only its name.
	File string
	// Old is a text that occurs in File exactly once. Run fails if it does not, so
	// that a mutant follows the changes of the code. New replaces Old.
	Old, New string
	// Test is a regular expression, as for go test -run. One of the tests that it
	// matches must fail.
	Test string
}

// Full reports whether the environment has NAMING_FULL, as under make full: tests then run at
// full length.
func Full() bool { return os.Getenv("NAMING_FULL") != "" }

// Run fails t for every mutant that passes its test or does not compile. The tests are those
// of the package in dir. Run does not change the files of the tree. Every mutant needs a new
// build of the package. So Run builds only the first few mutants, unless [Full] reports
// true. It checks Old of all of them.
func Run(t *testing.T, dir string, few int, mutants []Mutant) {
	t.Helper()
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		mutate(t, filepath.Join(dir, m.File), m) // checks Old of every mutant
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
				t.Errorf("the mutant passes %s: no test fails when it %s", m.Test, m.Name)
			case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]") || !strings.Contains(out, "FAIL"):
				t.Errorf("the mutant does not run: %v\n%s", err, out)
			}
		})
	}
}

// run tests the package in dir with a mutant.
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

// mutate returns the text of a file with the fault.
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
