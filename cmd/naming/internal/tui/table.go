package tui

import (
	"slices"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
)

// tone is what a cell means. The colour of a tone helps, and the text of the cell says the
// same without a colour.
type tone int

const (
	plain tone = iota
	good
	warning
	bad
	faint
)

// The colours are four of the sixteen that each terminal has. Users choose the sixteen for
// their background, so that light and dark terminals need no others.
var tones = map[tone]lipgloss.Style{
	plain:   lipgloss.NewStyle(),
	good:    lipgloss.NewStyle().Foreground(lipgloss.Green),
	warning: lipgloss.NewStyle().Foreground(lipgloss.Magenta),
	bad:     lipgloss.NewStyle().Foreground(lipgloss.Red),
	faint:   lipgloss.NewStyle().Faint(true),
}

var (
	headerStyle = lipgloss.NewStyle().Bold(true)
	cursorStyle = lipgloss.NewStyle().Reverse(true)
)

// cell is a cell of a table. Its text is safe to print.
type cell struct {
	text string
	tone tone
}

// column is a column of a table.
type column struct {
	title string
	right bool // numbers stand on the right
	// optional columns are left out while all their cells are dashes.
	optional bool
}

const (
	gap      = 2
	minWidth = 8   // no column is made smaller
	wide     = 24  // wider columns are made smaller before others are left out
	maxWidth = 200 // no column is wider
)

// layout is the widths of a table's columns. A column gets wider with its cells, and never
// smaller: a table whose columns move cannot be read while it is scrolled.
type layout struct {
	columns []column
	widths  []int // 0: no cell yet, and the column is optional
}

func newLayout(columns ...column) *layout {
	return &layout{columns: columns, widths: make([]int, len(columns))}
}

// see makes the columns as wide as the cells of a row.
func (l *layout) see(row []cell) {
	for i, c := range row {
		if l.columns[i].optional && c.text == "-" {
			continue
		}
		l.widths[i] = min(max(l.widths[i], ansi.StringWidth(c.text), len(l.columns[i].title)), maxWidth)
	}
}

// fit returns widths that fit into a window. The columns on the right get 0, and are left out,
// if even small columns do not fit.
func (l *layout) fit(width int) []int {
	widths := slices.Clone(l.widths)
	for i, c := range l.columns {
		if !c.optional {
			widths[i] = max(widths[i], len(c.title))
		}
	}
	for {
		total := -gap
		for _, w := range widths {
			if w > 0 {
				total += w + gap
			}
		}
		excess := total - width
		if excess <= 0 {
			return widths
		}
		if widths[0] == 0 {
			return widths
		}
		l.shrink(widths, excess)
	}
}

// shrink makes the table of widths narrower by at least one cell and by no more than excess,
// unless it leaves a column out. Very wide columns lose width first, then optional columns are
// left out from the right, then the other columns lose width.
func (l *layout) shrink(widths []int, excess int) {
	widest, last, lastOptional := 0, 0, -1
	for i, w := range widths {
		if w > widths[widest] {
			widest = i
		}
		if w > 0 {
			last = i
			if l.columns[i].optional {
				lastOptional = i
			}
		}
	}
	switch w := widths[widest]; {
	case w > wide:
		widths[widest] -= min(excess, max(1, (w-wide)/2))
	case lastOptional >= 0:
		widths[lastOptional] = 0
	case w > minWidth:
		widths[widest]--
	case last > 0:
		widths[last] = 0
	default:
		widths[0] = max(widths[0]-excess, 0)
	}
}

// header returns the line of the titles.
func (l *layout) header(widths []int) string {
	cells := make([]cell, len(l.columns))
	for i, c := range l.columns {
		cells[i] = cell{text: c.title}
	}
	return headerStyle.Render(l.join(cells, widths, false))
}

// line returns a row. The row with the cursor has other colours.
func (l *layout) line(row []cell, widths []int, cursor bool) string {
	text := l.join(row, widths, !cursor)
	if cursor {
		return cursorStyle.Render(text)
	}
	return text
}

func (l *layout) join(row []cell, widths []int, colours bool) string {
	var b strings.Builder
	for i, c := range row {
		if widths[i] == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(strings.Repeat(" ", gap))
		}
		text := fill(c.text, widths[i], l.columns[i].right)
		if colours {
			text = tones[c.tone].Render(text)
		}
		b.WriteString(text)
	}
	return b.String()
}

// fill makes a text as wide as width.
func fill(text string, width int, right bool) string {
	text = clip(text, width)
	space := strings.Repeat(" ", max(width-ansi.StringWidth(text), 0))
	if right {
		return space + text
	}
	return text + space
}

// clip cuts a text that is wider than width.
func clip(text string, width int) string {
	if ansi.StringWidth(text) <= width {
		return text
	}
	return ansi.Truncate(text, width, "~")
}

// list is the place of the cursor in a list, and of the window on the list.
type list struct {
	cursor, offset int
	// moved says that the user has chosen a place. The cursor then stays on its item when
	// items come and go before it.
	moved bool
}

// fit keeps the cursor in a list of count items, and the window of height items around the
// cursor.
func (l *list) fit(count, height int) {
	l.cursor = max(min(l.cursor, count-1), 0)
	l.offset = max(min(l.offset, l.cursor, count-height), l.cursor-height+1, 0)
}
