// Package manual writes the man pages of a command.
package manual

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// Write writes a page of section 1 of each command below root, and of root, into a directory,
// which it creates if necessary. The name of a page is that of the command with dashes:
// naming-watch.1. Hidden commands have no page.
//
// The commands of root are used up: Write changes their texts.
//
// The date of the pages is that of the environment variable SOURCE_DATE_EPOCH, or today.
func Write(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("the directory of the pages: %w", err)
	}
	root.DisableAutoGenTag = true // the tag would be the date of a second time
	indentExamples(root)
	return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: root.Name(), Manual: "User Commands"}, dir)
}

// indentExamples indents the lines of Long that are indented: package doc reads Markdown, in
// which lines with an indentation of four stay as they are.
func indentExamples(cmd *cobra.Command) {
	lines := strings.Split(cmd.Long, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "  ") {
			lines[i] = "    " + line
		}
	}
	cmd.Long = strings.Join(lines, "\n")
	for _, c := range cmd.Commands() {
		indentExamples(c)
	}
}
