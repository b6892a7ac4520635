// Command termsvg runs a command and draws its output as a picture of a terminal.
//
//	go run ./tools/termsvg -o docs/quickstart.svg go run ./examples/quickstart
//
// The picture is an SVG file. Each line appears at the time at which the command
// wrote it, -speed times as fast, and stays. A viewer without animations shows all
// lines at once. The background is part of the picture, so that it can be read on
// light and on dark pages.
//
// If the command fails, termsvg writes no picture and fails as well.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"
)

func main() {
	out := flag.String("o", "", "the `file` of the picture; empty means standard output")
	speed := flag.Float64("speed", 3, "how much faster than the command the lines appear")
	columns := flag.Int("columns", 100, "the width of the terminal; longer lines are wrapped")
	flag.Parse()
	if err := run(*out, *speed, *columns, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "termsvg:", err)
		os.Exit(1)
	}
}

func run(out string, speed float64, columns int, command []string) error {
	if len(command) == 0 || speed <= 0 || columns < 20 {
		return errors.New("want a command, a positive -speed, and -columns of 20 or more")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	lines, err := record(ctx, command, os.Stderr)
	if err != nil {
		return err
	}
	picture := draw(strings.Join(command, " "), lines, speed, columns)
	if out == "" {
		_, err := os.Stdout.Write(picture)
		return err
	}
	return os.WriteFile(out, picture, 0o666)
}

// line is a line of output and the time since the first line.
type line struct {
	text string
	at   time.Duration
}

// record runs a command and returns the lines that it wrote. It copies them to w.
func record(ctx context.Context, command []string, w io.Writer) ([]line, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	r, output := io.Pipe()
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		output.Close()
		ended <- err
	}()
	var lines []line
	var first time.Time
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		if first.IsZero() {
			first = time.Now() // go run has compiled the command before
		}
		lines = append(lines, line{text: scanner.Text(), at: time.Since(first)})
		fmt.Fprintln(w, scanner.Text())
	}
	r.CloseWithError(scanner.Err()) // the command does not wait for a reader that gave up
	if err := errors.Join(scanner.Err(), <-ended); err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(command, " "), err)
	}
	return lines, nil
}

// Sizes in pixels. The width of a character is given for each line, so that every
// font lines up.
const (
	charWidth  = 7.8
	lineHeight = 18
	margin     = 16
	header     = 26
	timeWidth  = 8 // in characters
)

const style = `<style>
text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#c9d1d9;white-space:pre}
.l{animation:a .2s both}
@keyframes a{from{opacity:0}}
@media (prefers-reduced-motion:reduce){.l{animation:none}}
.time{fill:#8b949e}.step{fill:#79c0ff;font-weight:bold}.warn{fill:#e3b341}.info{fill:#7ee787}.end{fill:#7ee787;font-weight:bold}
</style>
`

// draw returns the picture of a command and its output.
func draw(command string, lines []line, speed float64, columns int) []byte {
	var body bytes.Buffer
	y := margin + header
	write := func(x int, class, text string) {
		if text = strings.TrimRight(text, " "); text == "" {
			return
		}
		fmt.Fprintf(&body, `<text x="%.1f" y="%d" class="%s" textLength="%.1f" xml:space="preserve">%s</text>`+"\n",
			margin+float64(x)*charWidth, y, class, float64(len([]rune(text)))*charWidth, escape(text))
	}
	write(0, "step", "$ "+command)
	y += lineHeight
	for i, l := range lines {
		fmt.Fprintf(&body, `<g class="l" style="animation-delay:%.2fs">`+"\n", 0.5+l.at.Seconds()/speed)
		write(0, "time", fmt.Sprintf("%5.1f s", l.at.Seconds()))
		for _, part := range wrap(l.text, columns-timeWidth) {
			write(timeWidth, class(l.text, i == len(lines)-1), part)
			y += lineHeight
		}
		body.WriteString("</g>\n")
	}
	width, height := int(2*margin+float64(columns)*charWidth), y
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img">`+"\n", width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n%s", escape(command), style)
	fmt.Fprintf(&b, `<rect x=".5" y=".5" width="%d" height="%d" rx="8" fill="#0d1117" stroke="#6e7681"/>`+"\n", width-1, height-1)
	for i, color := range []string{"#ff5f56", "#ffbd2e", "#27c93f"} {
		fmt.Fprintf(&b, `<circle cx="%d" cy="16" r="5" fill="%s"/>`+"\n", margin+5+16*i, color)
	}
	b.Write(body.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// class returns the class of a line: its colour.
func class(text string, last bool) string {
	switch {
	case last:
		return "end"
	case strings.HasPrefix(text, "* "):
		return "step"
	case strings.HasPrefix(text, "level=WARN"), strings.HasPrefix(text, "level=ERROR"):
		return "warn"
	case strings.HasPrefix(text, "level=INFO"):
		return "info"
	}
	return "text"
}

// wrap breaks a line at spaces, into parts of at most n characters. All parts but
// the first are indented.
func wrap(text string, n int) []string {
	const indent = "    "
	var parts []string
	rest := []rune(text)
	for len(rest) > n {
		at := n
		for i := n; i > n/2; i-- {
			if rest[i] == ' ' {
				at = i
				break
			}
		}
		parts = append(parts, string(rest[:at]))
		rest = []rune(indent + strings.TrimLeft(string(rest[at:]), " "))
	}
	return append(parts, string(rest))
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")

// escape returns text for XML. Characters that XML does not allow become spaces.
func escape(text string) string {
	return escaper.Replace(strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text))
}
