package tui

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"charm.land/bubbles/v2/help"
	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"

	"github.com/naming-go/naming"
)

// Options says what is shown.
type Options struct {
	// Title is the first line: the command and the registry. It is safe to print.
	Title string
	// Endpoints shows the endpoints of all services, as naming watch does. Otherwise the
	// services are shown, and the endpoints of the service that the user chooses.
	Endpoints bool
	// Sort is the first order of the services. The zero value is ByName.
	Sort Key
	// Filter is the first text to look for.
	Filter string
}

// maxFilter is the longest text to look for, in bytes.
const maxFilter = 100

// Model is the state of the tables on the screen. It is a model of package bubbletea: its
// methods are called by one goroutine.
type Model struct {
	board *Board
	opts  Options
	now   time.Time // of the last refresh: a screen shows one moment
	began time.Time

	width, height int
	keys          keys
	help          help.Model

	sort    Key
	reverse bool
	filter  *Filter
	text    string // of filter
	typing  bool   // the user changes text

	rows   []*Row // the services that are found, in order
	totals totals // of all services
	// failing are the registries of a Client on several that do not answer. A service is fresh
	// while one registry answers.
	failing []naming.SideStatus
	ends    []int // ends[i] is how many endpoints are in the table after rows[i]

	detail    string // the service whose endpoints are shown; empty: none
	detailRow *Row   // nil: the Board does not have the service
	services  list
	endpoints list
	selected  id // where the cursor is
	chosen    id // where the cursor is in the endpoints

	serviceLayout, endpointLayout *layout
}

// id names the item of a list that has the cursor.
type id struct{ service, endpoint string }

// totals are the sums of all services.
type totals struct{ services, endpoints, draining, withheld, held, stale int }

// refresh has a Model show the present state of its Board.
type refresh struct{ now time.Time }

// New returns a Model that shows a Board.
func New(b *Board, opts Options) *Model {
	if opts.Sort == "" {
		opts.Sort = ByName
	}
	m := &Model{
		board: b, opts: opts, sort: opts.Sort, text: opts.Filter, filter: NewFilter(opts.Filter),
		keys: newKeys(opts.Endpoints), help: help.New(), now: time.Now(),
	}
	m.began = m.now
	m.help.Styles, m.help.ShortSeparator, m.help.Ellipsis = helpStyles(), "  ", "..." // ASCII, for all terminals
	m.resetLayouts()
	return m
}

// Init does nothing. Run sends the first refresh.
func (m *Model) Init() tea.Cmd { return nil }

// Update applies a message.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case refresh:
		m.now = msg.now
		m.read()
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		m.help.SetWidth(msg.Width)
		m.resetLayouts()
		m.fit()
	case tea.PasteMsg:
		if m.typing {
			m.setFilter(m.text + msg.Content)
		}
	case tea.KeyPressMsg:
		return m, m.press(msg)
	}
	return m, nil
}

// read reads the Board, and keeps the cursor on its item.
func (m *Model) read() {
	rows := m.board.Rows(m.now)
	m.totals = total(rows)
	m.failing = failing(m.board.ListStatus(), rows)
	m.detailRow = nil
	if i := slices.IndexFunc(rows, func(r *Row) bool { return r.Service == m.detail }); i >= 0 {
		m.detailRow = rows[i]
	}
	rows = m.filter.Rows(rows)
	Sort(rows, m.sort, m.reverse, m.now)
	m.rows = rows
	if m.services.moved {
		if i := m.find(m.selected.service); i >= 0 {
			m.services.cursor = i
		}
	}
	m.count()
	if m.endpoints.moved {
		m.follow(m.chosen)
	}
	m.fit()
}

func total(rows []*Row) totals {
	var t totals
	for _, r := range rows {
		if r.Gone {
			continue
		}
		t.services++
		t.endpoints += r.Size()
		t.draining += r.Draining
		t.withheld += r.Withheld
		t.held += r.Held
		if r.Status.Stale() {
			t.stale++
		}
	}
	return t
}

// failing returns the first failure of each registry, in the list of services and in the services.
// The result is sorted by the name of the registry.
func failing(list naming.Status, rows []*Row) []naming.SideStatus {
	var found []naming.SideStatus
	add := func(sides []naming.SideStatus) {
		for _, s := range sides {
			if s.Err != nil && !slices.ContainsFunc(found, func(f naming.SideStatus) bool { return f.Name == s.Name }) {
				found = append(found, s)
			}
		}
	}
	add(list.Sides)
	for _, r := range rows {
		add(r.Status.Sides)
	}
	slices.SortFunc(found, func(a, b naming.SideStatus) int { return strings.Compare(a.Name, b.Name) })
	return found
}

// find returns the index of a service, or -1.
func (m *Model) find(service string) int {
	return slices.IndexFunc(m.rows, func(r *Row) bool { return r.Service == service })
}

// shown returns the services whose endpoints are in the table of endpoints.
func (m *Model) shown() []*Row {
	if m.opts.Endpoints {
		return m.rows
	}
	if m.detailRow == nil {
		return nil
	}
	return []*Row{m.detailRow}
}

// count counts the lines of the table of endpoints. A service without an endpoint has a line.
func (m *Model) count() {
	m.ends = m.ends[:0]
	n := 0
	for _, r := range m.shown() {
		n += max(len(m.lines(r)), 1)
		m.ends = append(m.ends, n)
	}
}

// lines returns the endpoints of a service that are in the table of endpoints.
func (m *Model) lines(r *Row) []*Line { return m.filter.Lines(r) }

// item returns a line of the table of endpoints. The Line is nil for a service without an
// endpoint.
func (m *Model) item(rows []*Row, i int) (*Row, *Line) {
	at, _ := slices.BinarySearch(m.ends, i+1)
	r, begin := rows[at], 0
	if at > 0 {
		begin = m.ends[at-1]
	}
	if lines := m.lines(r); i-begin < len(lines) {
		return r, lines[i-begin]
	}
	return r, nil
}

// follow moves the cursor of the table of endpoints to an item, if the item is there.
func (m *Model) follow(to id) {
	begin := 0
	for at, r := range m.shown() {
		if r.Service == to.service {
			for i, l := range m.lines(r) {
				if l.Endpoint.ID == to.endpoint {
					m.endpoints.cursor = begin + i
				}
			}
			return
		}
		begin = m.ends[at]
	}
}

// inEndpoints reports whether the table of endpoints is on the screen.
func (m *Model) inEndpoints() bool { return m.opts.Endpoints || m.detail != "" }

// current returns the list on the screen and its length.
func (m *Model) current() (l *list, count int) {
	if !m.inEndpoints() {
		return &m.services, len(m.rows)
	}
	if len(m.ends) > 0 {
		count = m.ends[len(m.ends)-1]
	}
	return &m.endpoints, count
}

// fit keeps the cursor in the list and on the screen, and notes its item.
func (m *Model) fit() {
	l, count := m.current()
	l.fit(count, m.bodyHeight())
	switch {
	case count == 0:
	case m.inEndpoints():
		r, line := m.item(m.shown(), l.cursor)
		if m.chosen = (id{service: r.Service}); line != nil {
			m.chosen.endpoint = line.Endpoint.ID
		}
	default:
		m.selected = id{service: m.rows[l.cursor].Service}
	}
}

// press applies a key.
func (m *Model) press(msg tea.KeyPressMsg) tea.Cmd {
	k := &m.keys
	switch {
	case key.Matches(msg, k.interrupt):
		return tea.Quit
	case key.Matches(msg, k.suspend):
		return tea.Suspend
	case m.typing:
		m.typeFilter(msg)
	case key.Matches(msg, k.quit):
		return tea.Quit
	case key.Matches(msg, k.filter):
		m.typing = true
	case key.Matches(msg, k.help):
		m.help.ShowAll = !m.help.ShowAll
		m.fit()
	case key.Matches(msg, k.back):
		m.back()
	case key.Matches(msg, k.open):
		m.open()
	default:
		m.move(msg)
		m.order(msg)
	}
	return nil
}

// typeFilter changes the text to look for.
func (m *Model) typeFilter(msg tea.KeyPressMsg) {
	switch msg.String() {
	case "enter":
		m.typing = false
	case "esc":
		m.typing = false
		m.setFilter("")
	case "backspace":
		_, n := utf8.DecodeLastRuneInString(m.text)
		m.setFilter(m.text[:len(m.text)-n])
	case "ctrl+u":
		m.setFilter("")
	default:
		m.setFilter(m.text + msg.Text)
	}
}

func (m *Model) setFilter(text string) {
	if text = strings.ToValidUTF8(text, ""); len(text) > maxFilter || text == m.text {
		return
	}
	m.text, m.filter = text, NewFilter(text)
	m.read()
}

// open shows the endpoints of the service with the cursor.
func (m *Model) open() {
	if m.inEndpoints() || len(m.rows) == 0 {
		return
	}
	m.detail, m.detailRow = m.selected.service, m.rows[m.services.cursor]
	m.keys.detail = true
	m.services.moved = true // back comes to the same service
	m.endpoints = list{}
	m.resetLayouts()
	m.count()
	m.fit()
}

// back leaves the endpoints of a service, or else removes the filter.
func (m *Model) back() {
	if m.detail == "" {
		m.setFilter("")
		return
	}
	m.detail, m.detailRow = "", nil
	m.keys.detail = false
	m.resetLayouts()
	m.read()
}

// move moves the cursor.
func (m *Model) move(msg tea.KeyPressMsg) {
	l, count := m.current()
	page := max(m.bodyHeight()-1, 1)
	switch k := &m.keys; {
	case key.Matches(msg, k.up):
		l.cursor--
	case key.Matches(msg, k.down):
		l.cursor++
	case key.Matches(msg, k.pageUp):
		l.cursor -= page
	case key.Matches(msg, k.pageDown):
		l.cursor += page
	case key.Matches(msg, k.home):
		*l = list{}
		m.fit()
		return
	case key.Matches(msg, k.end):
		l.cursor = count - 1
	default:
		return
	}
	l.moved = true
	m.fit()
}

// order changes the order of the services.
func (m *Model) order(msg tea.KeyPressMsg) {
	if m.inEndpoints() {
		return
	}
	for by, binding := range m.keys.sort {
		if key.Matches(msg, binding) {
			m.sort, m.reverse = by, false
			m.read()
			return
		}
	}
	if key.Matches(msg, m.keys.reverse) {
		m.reverse = !m.reverse
		m.read()
	}
}
