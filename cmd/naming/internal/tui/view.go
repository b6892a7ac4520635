package tui

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/live"
	"github.com/naming-go/naming/cmd/naming/internal/show"
)

func (m *Model) resetLayouts() {
	m.serviceLayout = newLayout(serviceColumns()...)
	m.endpointLayout = newLayout(endpointColumns(m.opts.Endpoints)...)
}

func serviceColumns() []column {
	return []column{
		{title: "SERVICE"}, {title: "SIZE", right: true}, {title: "CHURN", right: true}, {title: "CHANGED", right: true},
		{title: "STALE", right: true}, {title: "WITHHELD", right: true}, {title: "HELD", right: true}, {title: "DRAINING", right: true},
	}
}

func endpointColumns(service bool) []column {
	columns := []column{
		{title: "ADDRESS"}, {title: "STATE"}, {title: "CHANGED", right: true}, {title: "WEIGHT", right: true, optional: true},
		{title: "ZONE", optional: true}, {title: "VERSION", optional: true}, {title: "TAGS", optional: true}, {title: "ID", optional: true},
	}
	if service {
		columns = append([]column{{title: "SERVICE"}}, columns...)
	}
	return columns
}

// View returns the screen.
func (m *Model) View() tea.View {
	v := tea.NewView(m.screen())
	v.AltScreen = true
	return v
}

// screen returns the lines of the screen: their number and width are at most those of the window.
func (m *Model) screen() string {
	if m.width <= 0 || m.height <= 0 {
		return ""
	}
	lines := append(m.head(), m.body()...)
	for len(lines) < m.height-m.footHeight() {
		lines = append(lines, "")
	}
	lines = append(lines, m.foot()...)
	lines = lines[:min(len(lines), m.height)]
	for i, line := range lines {
		lines[i] = clip(line, m.width)
	}
	return strings.Join(lines, "\n")
}

// bodyHeight returns how many rows of the table fit on the screen.
func (m *Model) bodyHeight() int {
	return max(m.height-len(m.head())-1-m.footHeight(), 1) // and the titles of the columns
}

// head returns the lines above the table.
func (m *Model) head() []string {
	t := m.totals
	parts := []string{headerStyle.Render(m.opts.Title), show.Count(t.services, "service"), show.Count(t.endpoints, "endpoint")}
	for _, p := range []struct {
		n    int
		name string
		tone tone
	}{{t.stale, "stale", bad}, {t.withheld, "withheld", warning}, {t.held, "held", bad}, {t.draining, "draining", faint}} {
		if p.n > 0 {
			parts = append(parts, tones[p.tone].Render(strconv.Itoa(p.n)+" "+p.name))
		}
	}
	lines := []string{strings.Join(parts, "  ")}
	if m.detail == "" {
		return lines
	}
	lines = append(lines, headerStyle.Render(show.Text(m.detail))+"  "+m.detailStatus())
	return append(lines, m.sides()...)
}

// detailStatus returns how far the registry vouches for the service whose endpoints are shown.
func (m *Model) detailStatus() string {
	rows := m.shown()
	if len(rows) == 0 || rows[0].Gone {
		return tones[warning].Render("has left the list of services")
	}
	r := rows[0]
	parts := []string{m.status(r.Status)}
	for _, p := range []struct {
		n    int
		name string
	}{{r.Serving, "serving"}, {r.Draining, "draining"}, {r.Withheld, "withheld"}, {r.Held, "held"}, {r.Churn(m.now), "changed in a minute"}} {
		if p.n > 0 {
			parts = append(parts, strconv.Itoa(p.n)+" "+p.name)
		}
	}
	return strings.Join(parts, "  ")
}

// status returns a Status in words.
func (m *Model) status(s naming.Status) string {
	reason := ""
	if s.Err != nil {
		reason = ": " + naming.SafeError(s.Err).Error()
	}
	switch {
	case !s.Synced && s.Err != nil:
		return tones[bad].Render("not read yet" + reason)
	case !s.Synced:
		return tones[faint].Render("not read yet")
	case s.Stale():
		return tones[bad].Render("stale for " + age(m.now, s.StaleSince) + reason)
	}
	return tones[good].Render("fresh")
}

// sides returns a line for each registry of a Client on several.
func (m *Model) sides() []string {
	rows := m.shown()
	if len(rows) == 0 {
		return nil
	}
	var lines []string
	for _, s := range rows[0].Status.Sides {
		used := "not used"
		if s.Used {
			used = "used"
		}
		lines = append(lines, fmt.Sprintf("  %s  %s, %s  %s", show.Text(s.Name), used, show.Count(s.Endpoints, "endpoint"), m.sideStatus(s)))
	}
	return lines
}

// sideStatus returns the status of one registry in words.
func (m *Model) sideStatus(s naming.SideStatus) string {
	return m.status(naming.Status{Synced: s.Synced, AsOf: s.AsOf, StaleSince: s.StaleSince, Err: s.Err})
}

// body returns the titles of the columns and the visible rows.
func (m *Model) body() []string {
	l, count := m.current()
	layout, row := m.serviceLayout, func(i int) []cell { return m.serviceRow(m.rows[i]) }
	if m.inEndpoints() {
		shown := m.shown()
		layout, row = m.endpointLayout, func(i int) []cell { return m.endpointRow(m.item(shown, i)) }
	}
	end := min(l.offset+m.bodyHeight(), count)
	rows := make([][]cell, 0, max(end-l.offset, 0))
	for i := l.offset; i < end; i++ {
		rows = append(rows, row(i))
		layout.see(rows[len(rows)-1])
	}
	const mark = 2 // the width of the marks before each row
	widths := layout.fit(m.width - mark)
	lines := []string{"  " + layout.header(widths)}
	for i, cells := range rows {
		cursor := l.offset+i == l.cursor
		before := "  "
		if cursor {
			before = "> "
		}
		lines = append(lines, before+layout.line(cells, widths, cursor))
	}
	if count == 0 {
		lines = append(lines, strings.Split(ansi.Wrap(m.nothing(), max(m.width, 1), ""), "\n")...)
	}
	return lines
}

// nothing returns why the table is empty.
func (m *Model) nothing() string {
	status := m.board.ListStatus()
	switch {
	case m.text != "" && m.totals.services > 0:
		return "Nothing contains the text of the filter."
	case m.totals.services == 0 && !status.Synced && status.Err == nil:
		return "Waiting for the registry."
	case m.totals.services == 0 && !status.Synced:
		return "The registry has not answered: " + naming.SafeError(status.Err).Error()
	}
	return "The registry has no services."
}

func (m *Model) serviceRow(r *Row) []cell {
	if r.Gone {
		return []cell{{show.Text(r.Service), faint}, {"gone", faint}, m.churnCell(r), m.ageCell(r.Changed), {"-", plain}, {"-", plain}, {"-", plain}, {"-", plain}}
	}
	size := cell{strconv.Itoa(r.Size()), plain}
	switch {
	case !r.Status.Synced:
		size = cell{"-", faint}
	case r.Size() == 0:
		size.tone = bad
	}
	stale := cell{"-", plain}
	if r.Status.Stale() {
		stale = cell{age(m.now, r.Status.StaleSince), bad}
	}
	return []cell{
		{show.Text(r.Service), plain}, size, m.churnCell(r), m.ageCell(r.Changed), stale,
		number(r.Withheld, warning), number(r.Held, bad), number(r.Draining, faint),
	}
}

func (m *Model) churnCell(r *Row) cell { return number(r.Churn(m.now), plain) }

// ageCell returns how long ago a change was. A change of the last seconds has a colour.
func (m *Model) ageCell(at time.Time) cell {
	c := cell{age(m.now, at), plain}
	if !at.IsZero() && m.now.Sub(at) < keepDeleted {
		c.tone = good
	}
	return c
}

// number returns a dash for 0.
func number(n int, t tone) cell {
	if n == 0 {
		return cell{"-", plain}
	}
	return cell{strconv.Itoa(n), t}
}

func (m *Model) endpointRow(r *Row, l *Line) []cell {
	var cells []cell
	if m.opts.Endpoints {
		cells = append(cells, cell{show.Text(r.Service), plain})
	}
	if l == nil {
		state := cell{"no endpoints", bad}
		switch {
		case r.Gone:
			state = cell{"gone", faint}
		case !r.Status.Synced:
			state = cell{"not read yet", faint}
		}
		return append(cells, cell{"-", plain}, state, m.ageCell(r.Changed), cell{"-", plain}, cell{"-", plain}, cell{"-", plain}, cell{"-", plain}, cell{"-", plain})
	}
	e := &l.Endpoint
	name := "-"
	if e.ID != e.Addr {
		name = show.Text(e.ID)
	}
	return append(cells, cell{show.Text(e.Addr), plain}, m.stateCell(r, l), m.ageCell(l.At),
		cell{e.WeightText(), plain}, cell{show.Text(e.Zone), plain}, cell{show.Text(e.Version), plain},
		cell{show.Text(strings.Join(e.Tags, ",")), plain}, cell{name, plain})
}

// stateCell returns the state of an endpoint, and what has just become of the endpoint.
func (m *Model) stateCell(r *Row, l *Line) cell {
	if l.deleted() {
		return cell{"deleted", bad}
	}
	c := cell{l.Endpoint.Why(), plain}
	switch l.Endpoint.State {
	case show.Draining:
		c.tone = faint
	case show.Withheld:
		c.tone = warning
	case show.Held:
		c.tone = bad
	}
	if l.Kind != "" && l.Kind != live.Withheld && l.Endpoint.State != show.Held && m.now.Sub(l.At) < keepDeleted {
		c = cell{c.text + ", " + string(l.Kind), good}
	}
	if r.Status.Stale() {
		c.text += ", stale"
		c.tone = bad
	}
	return c
}

// age returns the time since a moment, or a dash for none.
func age(now, at time.Time) string {
	d := max(now.Sub(at), 0)
	switch {
	case at.IsZero():
		return "-"
	case d < 100*time.Second:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 100*time.Minute:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// footHeight returns how many lines are below the table.
func (m *Model) footHeight() int { return len(m.foot()) }

// foot returns the lines below the table: what is chosen, the order or the filter, and the
// keys.
func (m *Model) foot() []string {
	var lines []string
	if m.detail != "" {
		lines = append(lines, m.chosenText()...)
	}
	lines = append(lines, m.statusLine())
	if m.typing {
		return append(lines, tones[faint].Render("enter keeps the filter, esc removes it"))
	}
	return append(lines, strings.Split(m.help.View(m.keys), "\n")...)
}

// chosenText returns two lines with what the table may have cut: the state of the endpoint
// with the cursor, and its metadata.
func (m *Model) chosenText() []string {
	rows := m.shown()
	if _, count := m.current(); count == 0 || m.endpoints.cursor >= count {
		return []string{"", ""}
	}
	_, l := m.item(rows, m.endpoints.cursor)
	if l == nil {
		return []string{"", ""}
	}
	e := &l.Endpoint
	state := e.Why()
	if l.deleted() {
		state = "deleted"
	}
	if e.Unleased {
		state += ", without a lease"
	}
	return []string{
		fmt.Sprintf("%s  id %s  %s", show.Text(e.Addr), show.Text(e.ID), state),
		tones[faint].Render("metadata " + show.Text(string(e.Metadata))),
	}
}

// statusLine returns the state of the list of services and of the registries if something is
// wrong, and then the filter and the order.
func (m *Model) statusLine() string {
	if m.typing {
		return "filter: " + naming.SafeText(m.text) + lipgloss.NewStyle().Reverse(true).Render(" ")
	}
	var parts []string
	if s := m.board.ListStatus(); s.Err != nil {
		parts = append(parts, "list of services "+m.status(s))
	}
	if m.detail == "" { // the lines of a service name its registries
		for _, s := range m.failing {
			parts = append(parts, show.Text(s.Name)+" "+m.sideStatus(s))
		}
	}
	if m.text != "" {
		parts = append(parts, "filter: "+naming.SafeText(m.text))
	}
	if !m.inEndpoints() {
		order := "sorted by " + string(m.sort)
		if m.reverse {
			order += ", reversed"
		}
		parts = append(parts, order)
	}
	parts = append(parts, "changes since "+m.began.Format("15:04:05"))
	return strings.Join(parts, "  ")
}
