package cli

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
)

// format is the value of --output. The zero value is a table.
type format string

const (
	asTable format = ""
	asJSON  format = "json"
	asYAML  format = "yaml"
)

func (f *format) String() string {
	if *f == asTable {
		return "table"
	}
	return string(*f)
}

func (f *format) Type() string { return "format" }

func (f *format) Set(s string) error {
	switch s {
	case "table":
		*f = asTable
	case "json", "yaml":
		*f = format(s)
	default:
		return fmt.Errorf("want table, json or yaml")
	}
	return nil
}

// print prints a document: as JSON or YAML, or by what human returns.
func (a *app) print(doc any, human func() string) error {
	switch a.format {
	case asJSON:
		return a.writeDocument(encodeJSON(doc, "  "))
	case asYAML:
		return a.writeDocument(encodeYAML(doc))
	}
	_, err := lipgloss.Fprint(a.Out, human())
	return outputError(err)
}

// printOne prints one document of a stream: a line of JSON, a document of YAML, or a line.
func (a *app) printOne(doc any, human func() string) error {
	switch a.format {
	case asJSON:
		return a.writeDocument(encodeJSON(doc, ""))
	case asYAML:
		b, err := encodeYAML(doc)
		return a.writeDocument(append([]byte("---\n"), b...), err)
	}
	return a.print(doc, human)
}

// writeDocument writes a document that was encoded, unless the encoding failed.
func (a *app) writeDocument(b []byte, err error) error {
	if err != nil {
		return err
	}
	_, err = a.Out.Write(b)
	return outputError(err)
}

// errNoReader is the error of a command whose output has no reader: the other end of the pipe
// was closed.
var errNoReader = errors.New("the output has no reader")

// outputError returns the error of a write to the output.
func outputError(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return errNoReader
	}
	return err
}

// columns formats rows below a header. Every cell must be safe to print.
func columns(header []string, rows [][]string) string {
	bold, plain := lipgloss.NewStyle().Bold(true).PaddingRight(2), lipgloss.NewStyle().PaddingRight(2)
	t := table.New().Border(lipgloss.HiddenBorder()).
		BorderTop(false).BorderBottom(false).BorderLeft(false).BorderRight(false).
		BorderColumn(false).BorderHeader(false).
		Headers(header...).Rows(rows...).Wrap(false).
		StyleFunc(func(row, _ int) lipgloss.Style {
			if row == table.HeaderRow {
				return bold
			}
			return plain
		})
	lines := strings.Split(t.String(), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return strings.Join(lines, "\n") + "\n"
}
