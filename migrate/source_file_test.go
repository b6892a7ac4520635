package migrate_test

import (
	"bytes"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming/migrate"
)

// TestParseStates: the content of a file.
func TestParseStates(t *testing.T) {
	for content, want := range map[string]map[string]migrate.State{
		`{"services":{}}`: {},
		` { "services" : { "*":{"phase":"old"} } } `: {"*": {}},
		`{"services":{"*":{"phase":"union","share":0.1}, "greeter":{"phase":4,"share":0.5,"by":"ada"}}}`: {
			"*":       {Phase: migrate.Union, Share: 0.1},
			"greeter": {Phase: migrate.PreferNew, Share: 0.5, By: "ada"},
		},
		`{"services":{"a/b":{"phase":"7"},"phase":{"phase":"new-write","by":"\u001b[0m"}}}`: {
			"a/b": {Phase: migrate.Done}, "phase": {Phase: migrate.NewWrite, By: `\x1b[0m`},
		},
	} {
		got, err := migrate.ParseStates([]byte(content))
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s has the states %+v, %v, want %+v", content, got, err, want)
		}
	}
}

// A file with a mistake is refused as a whole, and the error says which service and why.
func TestParseStatesRefuses(t *testing.T) {
	for content, want := range map[string]string{
		``:                              "the JSON ends too early",
		`{"services":{}`:                "the JSON ends too early",
		`{"services":{"a":{`:            "the JSON ends too early",
		`{"services":{}} x`:             "it goes on after the object",
		`{"services":{}}{}`:             "it goes on after the object",
		`[]`:                            "not an object",
		`{}`:                            `the member "services" is missing`,
		`{"Services":{}}`:               `unknown member "Services"`,
		`{"services":null}`:             "not an object",
		`{"services":{},"version":1}`:   `unknown member "version"`,
		`{"services":{},"services":{}}`: `"services" occurs twice`,
		`{"services":{"a":{"phase":1},"a":{"phase":2}}}`:                         `the member "a" occurs twice`,
		`{"services":{"a":{"phase":1,"phase":2}}}`:                               `service "a": the member "phase" occurs twice`,
		`{"services":{"a":{"phase":1,"Phase":2}}}`:                               `service "a": unknown member "Phase"`,
		`{"services":{"a":{"phase":1,"weight":[{}]}}}`:                           `service "a": unknown member "weight"`,
		`{"services":{"a":{"phase":1,"seq":2}}}`:                                 `service "a": the members "seq" and "format" are in records only`,
		`{"services":{"a":{}}}`:                                                  `service "a": the phase is missing`,
		`{"services":{"a":{"share":1}}}`:                                         `service "a": the phase is missing`,
		`{"services":{"a":3}}`:                                                   `service "a": a value is not an object`,
		`{"services":{"":{"phase":1}}}`:                                          "empty service name",
		`{"services":{"ok":{"phase":1},"a":{"phase":8}}}`:                        `service "a": migrate: naming: invalid argument: "8" is not a phase`,
		`{"services":{"a":{"phase":-1}}}`:                                        `"-1" is not a phase`,
		`{"services":{"a":{"phase":1.5}}}`:                                       `"1.5" is not a phase`,
		`{"services":{"a":{"phase":null}}}`:                                      `"null" is not a phase`,
		`{"services":{"a":{"phase":"onion"}}}`:                                   `"onion" is not a phase`,
		`{"services":{"a":{"phase":"prefer-new"}}}`:                              `service "a": the phase prefer-new needs a share`,
		`{"services":{"a":{"phase":4,"share":1.1}}}`:                             `service "a": migrate: naming: invalid argument: share 1.1 is not between 0 and 1`,
		`{"services":{"a":{"phase":4,"share":-1}}}`:                              "share -1",
		`{"services":{"a":{"phase":4,"share":"1"}}}`:                             "the share is not a number",
		`{"services":{"a":{"phase":4,"share":1e999}}}`:                           "the share is not a number",
		`{"services":{"a":{"phase":4,"share":null}}}`:                            "the share is not a number",
		`{"services":{"a":{"phase":4,"share":1,"by":7}}}`:                        `"by" is not a text`,
		`{"services":{"a":{"phase":3,"by":"` + strings.Repeat("x", 257) + `"}}}`: `"by" is not a text of at most 256 bytes`,
		"{\"services\":{\"\xff\":{\"phase\":1}}}":                                "not UTF-8",
	} {
		got, err := migrate.ParseStates([]byte(content))
		if err == nil || !strings.Contains(err.Error(), want) || got != nil {
			t.Errorf("%s: states %v, error %v, want %q", content, got, err, want)
		}
	}
}

// FuzzStates: no content of a file or a record makes a source crash, and each state that
// is accepted is valid.
func FuzzStates(f *testing.F) {
	f.Add([]byte(`{"services":{"*":{"phase":"union","share":0.1},"greeter":{"phase":4,"share":0.5,"by":"ada"}}}`))
	f.Add([]byte(`{"phase":3,"share":0.1,"seq":12,"by":"ada","format":1,"more":[{}]}`))
	f.Add([]byte(`{"services":{"a":{]}}`))
	f.Add([]byte(`{"phase":"7","seq":9007199254740991}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		states, err := migrate.ParseStates(content)
		if err != nil && states != nil {
			t.Errorf("states and the error %v", err)
		}
		for service, s := range states {
			if s.Valid() != nil || s.Seq != 0 {
				t.Errorf("accepted %q with %+v", service, s)
			}
		}
		if s, err := migrate.ParseRecord(content); err == nil && (s.Valid() != nil || s.Seq > migrate.MaxSeq) {
			t.Errorf("accepted the record %+v", s)
		}
	})
}

// logLines is a logger's output.
type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// take returns the lines since the last call.
func (l *logLines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(l.text.String(), "\n")
	l.text.Reset()
	return lines[:len(lines)-1]
}

func (l *logLines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// want fails t unless the lines since the last call have these texts, in order.
func (l *logLines) want(t *testing.T, texts ...string) {
	t.Helper()
	lines := l.take()
	if len(lines) != len(texts) {
		t.Errorf("logged %q, want %d lines", lines, len(texts))
		return
	}
	for i, line := range lines {
		if !strings.Contains(line, texts[i]) {
			t.Errorf("logged %q, want %q", line, texts[i])
		}
	}
}

// phaseFile is a file in a directory of its own, and a Source that reads it.
type phaseFile struct {
	t      *testing.T
	path   string
	source migrate.Source
	calls  interface{ Swap(int64) int64 }
	log    logLines
}

// openFile begins to read a file, whose content is given unless it is empty.
func openFile(t *testing.T, dir, content string) *phaseFile {
	f := &phaseFile{t: t, path: filepath.Join(dir, "phases.json")}
	if content != "" {
		f.write(content)
	}
	f.source = migrate.File(f.path, &migrate.FileOptions{Logger: f.log.logger()})
	t.Cleanup(f.source.Close)
	f.calls = counter(t, f.source)
	return f
}

func (f *phaseFile) write(content string) {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// poll waits until the file was read again, and fails the test unless the phase of a
// service is want, or unknown for "", after the given number of calls.
func (f *phaseFile) poll(service, want string, calls int64) {
	f.t.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	got := ""
	if s, ok := f.source.State(service); ok {
		got = s.Phase.String()
	}
	if got != want {
		f.t.Errorf("the phase of %s is %q, want %q", service, got, want)
	}
	if n := f.calls.Swap(0); n != calls {
		f.t.Errorf("changed was called %d times, want %d", n, calls)
	}
}

// wantErr fails the test unless the source has an error with a text, or none for "".
func (f *phaseFile) wantErr(text string) {
	f.t.Helper()
	err := f.source.Err()
	if (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
		f.t.Errorf("the error is %v, want %q", err, text)
	}
}

const (
	unionFile  = `{"services":{"*":{"phase":"union"}}}`
	shadowFile = `{"services":{"greeter":{"phase":"shadow"},"*":{"phase":"union"}}}`
)

// TestFile: a state is known when File returns, and follows the file.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := openFile(t, dir, unionFile)
		wantState(t, f.source, "greeter", migrate.State{Phase: migrate.Union})
		f.poll("greeter", "union", 0)
		f.write(shadowFile)
		f.poll("greeter", "shadow", 1)
		f.poll("other", "union", 0)
		f.write(" " + shadowFile) // the same states
		f.poll("greeter", "shadow", 0)
		f.write(unionFile)
		f.poll("greeter", "union", 1) // the service is no longer in the file
		f.write(`{"services":{}}`)
		f.poll("greeter", "", 1)
		f.wantErr("")
		f.log.want(t)
		f.source.Close()
		f.source.Close()
		f.write(unionFile)
		f.poll("greeter", "", 0)
	})
}

// TestFileBad: while a file cannot be used, the last good states remain, the error says
// why, and each reason is logged once.
func TestFileBad(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := openFile(t, dir, "")
		wantUnknown(t, f.source, "greeter")
		f.wantErr("no such file")
		f.log.want(t, "no such file")
		f.poll("greeter", "", 0)
		f.log.want(t)
		f.write(unionFile)
		f.poll("greeter", "union", 1)
		f.wantErr("")
		f.log.want(t, "phases can be read again")

		for _, bad := range []struct{ content, want string }{
			{`{"services":{"a":{"phase":"done"},"greeter":{"phase":9}}}`, "greeter"},
			{"", "ends too early"},
			{unionFile + strings.Repeat(" ", migrate.MaxFile), "more than 1048576 bytes"},
		} {
			f.write(bad.content)
			f.poll("greeter", "union", 0)
			f.wantErr(bad.want)
			f.poll("a", "union", 0)
			f.log.want(t, bad.want)
		}
		f.write(unionFile) // the content that was good before
		f.poll("greeter", "union", 0)
		f.wantErr("")
		f.log.want(t, "phases can be read again")
		if err := os.Remove(f.path); err != nil {
			t.Fatal(err)
		}
		f.poll("greeter", "union", 0)
		f.wantErr("no such file")
		if err := os.Mkdir(f.path, 0o700); err != nil {
			t.Fatal(err)
		}
		f.poll("greeter", "union", 0)
		f.wantErr("not a regular file")
		f.log.want(t, "no such file", "not a regular file")
	})
}

// TestFileSameTime: a change is seen that keeps the size and the time of the file.
func TestFileSameTime(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := openFile(t, dir, `{"services":{"*":{"phase":1}}}`)
		at := time.Unix(1, 0)
		for i := range 3 {
			f.write(`{"services":{"*":{"phase":` + string('2'+rune(i)) + `,"share":1}}}`)
			if err := os.Chtimes(f.path, at, at); err != nil {
				t.Fatal(err)
			}
			f.poll("greeter", (migrate.Shadow + migrate.Phase(i)).String(), 1)
		}
	})
}

// TestFileConfigMap: the file is a link to a file below a link that a rename replaces, as
// in a volume of a Kubernetes config map.
func TestFileConfigMap(t *testing.T) {
	dir := t.TempDir()
	version := func(name, content string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "phases.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(name, filepath.Join(dir, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", unionFile)
	if err := os.Symlink("..data/phases.json", filepath.Join(dir, "phases.json")); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := openFile(t, dir, "")
		f.poll("greeter", "union", 0)
		version("..2", shadowFile)
		if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
			t.Fatal(err)
		}
		f.poll("greeter", "shadow", 1)
		f.wantErr("")
	})
}

// TestFileEvery: the interval is in its range.
func TestFileEvery(t *testing.T) {
	dir := t.TempDir()
	for every, want := range map[time.Duration]time.Duration{
		0: time.Second, -1: 100 * time.Millisecond, time.Millisecond: 100 * time.Millisecond,
		5 * time.Second: 5 * time.Second, time.Hour: time.Minute,
	} {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(dir, "phases.json")
			write := func(content string) {
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(unionFile)
			s := migrate.File(path, &migrate.FileOptions{Every: every})
			defer s.Close()
			calls := counter(t, s)
			write(shadowFile)
			time.Sleep(want - 1)
			synctest.Wait()
			wantCalls(t, calls, 0)
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			wantCalls(t, calls, 1)
		})
	}
}
