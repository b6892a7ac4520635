// Command prose reports sentences, functions and structs that break the rules of this
// project:
//
//	words  a phrase in a comment, a log text or an error text that costs readers time
//	long   a function of more than 60 lines
//	guard  a struct field beside a mutex that does not say what guards it
//
// It reads the Go files that git tracks in a directory, without tests. With -all, as in
// make prose, it reads tests and Markdown too, and reports their findings as words-test,
// long-test and words-md.
//
//	go run ./tools/prose [-all] [-v] [-count] [directory]
//
// It exits with status 1 if a kind has more findings than the file baseline.txt allows,
// and lists the findings of such kinds.
//
// # Words
//
// The phrases are in words.go. A sentence that needs one is excepted by a directive with
// a reason: at the end of a line of code for this line, or within a comment for the
// whole comment.
//
//	//prose:ok the text is a quotation
//
// # Guards
//
// A mutex guards the fields that follow it, up to a blank line or the next mutex. An
// embedded mutex that is the first field of a struct guards the whole struct. Any other
// field of the struct must need no guard, or its comment must say why it needs none. A
// field needs no guard
//
//   - if its type is a channel, a function, a type of sync or sync/atomic, a context, a
//     logger or options,
//   - or if no code of the package assigns to the field, takes its address or modifies
//     its elements, and its type is not a struct of the package without a mutex: the
//     field is then set when the struct is made. The program knows fields by name only,
//     except those of a method's receiver.
//
// A comment says why with "guarded by", "owned by", "used only by", "set once",
// "immutable", "read-only", "constant", "never changes", or with "before" and an
// event. A comment above several fields without a blank line between them is for all of
// them.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	ok, err := run(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "prose:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// run checks the directory that the arguments name. It reports whether no kind exceeds
// the baseline.
func run(args []string, out io.Writer) (ok bool, err error) {
	flags := flag.NewFlagSet("prose", flag.ContinueOnError)
	all := flags.Bool("all", false, "check tests and Markdown too")
	verbose := flags.Bool("v", false, "list the findings of every kind")
	count := flags.Bool("count", false, "print only the numbers of findings, by directory and kind")
	baseline := flags.String("baseline", "", "the file of allowed numbers (default tools/prose/baseline.txt of the directory)")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	dir := "."
	if flags.NArg() > 0 {
		dir = flags.Arg(0)
	}
	files, err := tracked(dir)
	if err != nil {
		return false, err
	}
	findings, err := check(dir, files, *all)
	if err != nil {
		return false, err
	}
	if *count {
		printCounts(out, findings, *all)
		return true, nil
	}
	if *baseline == "" {
		*baseline = filepath.Join(dir, "tools", "prose", "baseline.txt")
	}
	allowed, err := readBaseline(*baseline)
	if err != nil {
		return false, err
	}
	return compare(out, findings, allowed, kinds(*all), *verbose), nil
}

// tracked returns the Go and Markdown files that git tracks in a directory, relative to
// the directory.
func tracked(dir string) ([]string, error) {
	cmd := exec.Command("git", "ls-files", "-z", "--", "*.go", "*.md")
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	var files []string
	for name := range bytes.SplitSeq(out, []byte{0}) {
		if name := string(name); name != "" && !strings.Contains("/"+name, "/testdata/") {
			files = append(files, name)
		}
	}
	slices.Sort(files)
	return files, nil
}

// check returns the findings in the files. A file that git tracks and that is deleted in
// the work tree is skipped.
func check(dir string, files []string, all bool) (findings []finding, err error) {
	packages := make(map[string]*pkg)
	var sources []*source
	for _, name := range files {
		test, markdown := strings.HasSuffix(name, "_test.go"), strings.HasSuffix(name, ".md")
		if (test || markdown) && !all {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if markdown {
			findings = append(findings, checkMarkdown(name, text)...)
			continue
		}
		s, err := parse(name, text, test)
		if err != nil {
			return nil, err
		}
		sources = append(sources, s)
		if !test {
			d := path.Dir(name)
			if packages[d] == nil {
				packages[d] = newPkg()
			}
			packages[d].add(s.file)
		}
	}
	for _, s := range sources {
		findings = append(findings, s.check(packages[path.Dir(s.name)])...)
	}
	return findings, nil
}
