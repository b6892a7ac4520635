package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// TestDraw: a picture is well-formed XML, and shows the command and every line.
func TestDraw(t *testing.T) {
	picture := string(draw("a < b", []line{
		{"* it begins", 0},
		{`level=WARN msg="a & b" ` + strings.Repeat("word ", 30), 1500 * time.Millisecond},
		{"tab\tand escape \x1b[J", 2 * time.Second},
		{"", 2 * time.Second},
		{"the end", 3 * time.Second},
	}, 2, 40))
	d := xml.NewDecoder(strings.NewReader(picture))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, picture)
		}
	}
	for _, want := range []string{
		"$ a &lt; b<", `class="step" textLength="85.8" xml:space="preserve">* it begins<`, "a &amp; b",
		"animation-delay:1.25s", "  1.5 s<", "tab and escape  [J<", `class="end"`, "the end<",
	} {
		if !strings.Contains(picture, want) {
			t.Errorf("%q is not in\n%s", want, picture)
		}
	}
}

// TestWrap: parts have the wanted width, and no word is lost.
func TestWrap(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("word ", 20) + "end", strings.Repeat("x", 100), strings.Repeat("é ", 50)} {
		parts := wrap(text, 30)
		for _, p := range parts {
			if n := len([]rune(p)); n > 30 {
				t.Errorf("a part of %d characters: %q", n, p)
			}
		}
		squeeze := func(s string) string { return strings.ReplaceAll(s, " ", "") }
		if got := squeeze(strings.Join(parts, "")); got != squeeze(text) {
			t.Errorf("%q became %q", text, parts)
		}
	}
}

// TestRecord: the lines of both outputs are recorded. A command that fails is an
// error.
func TestRecord(t *testing.T) {
	var copied strings.Builder
	lines, err := record(t.Context(), []string{"sh", "-c", "echo one; echo two >&2"}, &copied)
	if err != nil || len(lines) != 2 || lines[0].text != "one" || lines[1].text != "two" || copied.String() != "one\ntwo\n" {
		t.Errorf("%v, %v, copied %q", lines, err, &copied)
	}
	if _, err := record(t.Context(), []string{"sh", "-c", "echo one; exit 3"}, io.Discard); err == nil {
		t.Error("no error of a command that fails")
	}
}
