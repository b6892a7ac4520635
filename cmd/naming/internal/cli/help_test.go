package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/naming-go/naming/cmd/naming/internal/manual"
)

// allCommands returns the command naming and all commands below, but for the hidden ones.
func allCommands() []*cobra.Command {
	a := &app{Env: Env{Out: new(bytes.Buffer), Err: new(bytes.Buffer), Getenv: func(string) string { return "" }}}
	root := a.root()
	root.InitDefaultCompletionCmd()
	list := []*cobra.Command{root}
	for i := 0; i < len(list); i++ {
		for _, cmd := range list[i].Commands() {
			if cmd.IsAvailableCommand() {
				list = append(list, cmd)
			}
		}
	}
	return list
}

// TestHelp checks the form of all texts of the help. The texts of cobra's own commands are
// cobra's.
func TestHelp(t *testing.T) {
	for _, cmd := range allCommands() {
		if strings.Contains(cmd.CommandPath(), "completion") {
			continue
		}
		for _, fault := range helpFaults(cmd) {
			t.Errorf("%s: %s", cmd.CommandPath(), fault)
		}
	}
}

func helpFaults(cmd *cobra.Command) (faults []string) {
	wrong := func(bad bool, fault string) {
		if bad {
			faults = append(faults, fault)
		}
	}
	first, _ := utf8.DecodeRuneInString(cmd.Short)
	wrong(!unicode.IsUpper(first), "Short does not begin with a capital letter")
	wrong(strings.HasSuffix(cmd.Short, "."), "Short ends with a full stop")
	wrong(len(cmd.Short) > 80, "Short is longer than 80 characters")
	wrong(!strings.HasSuffix(cmd.Long, "."), "Long does not end with a full stop")
	for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
		wrong(utf8.RuneCountInString(strings.TrimRight(line, "\n")) > 120, "a line is longer than 120 characters: "+line)
	}
	wrong(cmd.Example != "" && !strings.HasPrefix(cmd.Example, "  naming ") && !strings.HasPrefix(cmd.Example, "  export NAMING_STORE="),
		"Example begins neither with the command nor with the registry")
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		first, _ := utf8.DecodeRuneInString(f.Usage)
		wrong(unicode.IsUpper(first), "--"+f.Name+" begins with a capital letter")
		wrong(f.Usage == "" || strings.HasSuffix(f.Usage, "."), "--"+f.Name+" has no text, or one with a full stop")
	})
	return faults
}

// TestManual checks that each command has a page with its text and its flags.
func TestManual(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	commands := allCommands()
	if err := manual.Write(commands[0], dir); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range commands {
		b, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		page := strings.ReplaceAll(string(b), `\-`, "-")
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !strings.Contains(page, "--"+f.Name) {
				t.Errorf("%s: the page has no --%s", cmd.CommandPath(), f.Name)
			}
		})
		if !strings.Contains(page, ".TH") || !strings.Contains(page, cmd.Short) {
			t.Errorf("%s: the page is\n%s", cmd.CommandPath(), page)
		}
	}
	pages, err := os.ReadDir(dir)
	if err != nil || len(pages) != len(commands) {
		t.Errorf("%d pages of %d commands, %v", len(pages), len(commands), err)
	}
}
