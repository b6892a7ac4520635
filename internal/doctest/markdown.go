package doctest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// block is a fenced block of a Markdown file.
type block struct {
	file   string // relative to the root of the module
	line   int    // of the first line of text, from 1
	lang   string
	marker string // the text of the comment on the line before, "" without one
	text   string
}

func (b *block) String() string { return fmt.Sprintf("%s:%d", b.file, b.line) }

var comment = regexp.MustCompile(`^<!-- (.*) -->$`)

// blocks returns the fenced blocks of a Markdown text.
func blocks(file, text string) ([]*block, error) {
	var all []*block
	var open *block
	marker := ""
	for n, line := range strings.Split(text, "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && open == nil:
			open = &block{file: file, line: n + 2, lang: fence, marker: marker}
		case isFence:
			all, open = append(all, open), nil
		case open != nil:
			open.text += line + "\n"
		}
		marker = ""
		if m := comment.FindStringSubmatch(line); m != nil && open == nil {
			marker = m[1]
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%s: the block has no end", open)
	}
	return all, nil
}

// markdownFiles returns the Markdown files below root, relative to root.
func markdownFiles(root string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		hidden := strings.HasPrefix(name, ".") && name != ".github" && path != root
		if d.IsDir() && (hidden || name == "testdata" || name == "bin") {
			return fs.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(name, ".md") {
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			files = append(files, filepath.ToSlash(rel))
		}
		return nil
	})
	slices.Sort(files)
	return files, err
}

// readBlocks returns the blocks of all Markdown files below root.
func readBlocks(root string) ([]*block, error) {
	files, err := markdownFiles(root)
	if err != nil {
		return nil, err
	}
	var all []*block
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			return nil, err
		}
		list, err := blocks(file, string(text))
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	fenced  = regexp.MustCompile("(?ms)^```.*?^```$")
	code    = regexp.MustCompile("`[^`\n]*`")
	unslug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// links returns the relative links of a Markdown text.
func links(text string) []string {
	text = code.ReplaceAllString(fenced.ReplaceAllString(text, ""), "")
	var all []string
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		if !strings.Contains(m[1], "://") && !strings.HasPrefix(m[1], "mailto:") {
			all = append(all, m[1])
		}
	}
	return all
}

// anchors returns the names that GitHub gives to the headings of a Markdown text.
func anchors(text string) []string {
	var all []string
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		title := link.ReplaceAllString(strings.ReplaceAll(m[1], "[", ""), "")
		name := unslug.ReplaceAllString(strings.ToLower(title), "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}

// commands returns the commands of a Markdown text that begin with make or go: lines
// of blocks that are indented or fenced without a language, or as a shell's, and
// pieces of code within a line.
func commands(text string) []string {
	var all []string
	add := func(s string) {
		s, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(s), "$ "), " #")
		if strings.HasPrefix(s, "make ") || strings.HasPrefix(s, "go run ") || strings.HasPrefix(s, "go test ") {
			all = append(all, strings.TrimSpace(s))
		}
	}
	fence, shell := false, false
	for line := range strings.Lines(text) {
		lang, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence:
			fence, shell = !fence, slices.Contains([]string{"", "sh", "shell", "console"}, lang)
		case fence && shell, !fence && strings.HasPrefix(line, "    "):
			add(line)
		case !fence:
			for _, piece := range code.FindAllString(line, -1) {
				add(strings.Trim(piece, "`"))
			}
		}
	}
	return all
}
