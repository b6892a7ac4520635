package tui

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/live"
)

var begin = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// bench is a Board and its Model at a moment, in a window of 80x24.
type bench struct {
	*Model
	t     *testing.T
	board *Board
	now   time.Time
	views map[string]naming.View
}

func newBench(t *testing.T, opts Options) *bench {
	b := &bench{t: t, board: NewBoard(), now: begin, views: make(map[string]naming.View)}
	opts.Title = "title"
	b.Model = New(b.board, opts)
	b.began = begin
	b.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	return b
}

// put makes the endpoints of a service what change makes of its View.
func (b *bench) put(service string, change func(*naming.View)) {
	was := b.views[service]
	is := was
	is.Service, is.Synced = service, true
	change(&is)
	b.views[service] = is
	b.board.apply(live.Update{View: is, First: !was.Synced, Changes: live.Diff(was, is)}, b.now)
	b.refresh()
}

func (b *bench) gone(service string) {
	b.board.apply(live.Update{View: b.views[service], Gone: true}, b.now)
	delete(b.views, service)
	b.refresh()
}

func (b *bench) refresh() { b.Update(refresh{b.now}) }

func (b *bench) after(d time.Duration) {
	b.now = b.now.Add(d)
	b.refresh()
}

// press sends keys: names of special keys, or texts.
func (b *bench) press(names ...string) (quit bool) {
	special := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "down": tea.KeyDown, "up": tea.KeyUp, "backspace": tea.KeyBackspace, "end": tea.KeyEnd, "pgdown": tea.KeyPgDown}
	for _, name := range names {
		msg := tea.KeyPressMsg{Text: name, Code: []rune(name)[0]}
		if code, ok := special[name]; ok {
			msg = tea.KeyPressMsg{Code: code}
		}
		if name == "ctrl+c" {
			msg = tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
		}
		_, cmd := b.Update(msg)
		quit = cmd != nil && cmd() == tea.Quit()
	}
	return quit
}

// plain returns the screen without colours and without spaces at the ends of its lines.
func (b *bench) plain() string {
	lines := strings.Split(ansi.Strip(b.screen()), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return strings.Join(lines, "\n")
}

// want checks that the screen has texts, in their order.
func (b *bench) want(texts ...string) {
	b.t.Helper()
	rest := b.plain()
	for _, text := range texts {
		_, after, ok := strings.Cut(rest, text)
		if !ok {
			b.t.Fatalf("no %q in order in\n%s", text, b.plain())
		}
		rest = after
	}
}

func (b *bench) wantNot(text string) {
	b.t.Helper()
	if strings.Contains(b.plain(), text) {
		b.t.Fatalf("%q in\n%s", text, b.plain())
	}
}

func endpoint(addr, metadata string) naming.Endpoint {
	e := naming.Endpoint{ID: addr, Addr: addr}
	if metadata != "" {
		e.Metadata = json.RawMessage(metadata)
	}
	return e
}

// set returns a change that sets the endpoints.
func set(list ...naming.Endpoint) func(*naming.View) {
	return func(v *naming.View) { v.Endpoints = list }
}

func TestServices(t *testing.T) {
	b := newBench(t, Options{})
	b.Update(tea.WindowSizeMsg{Width: 80, Height: 9})
	b.want("Waiting for the registry.")
	b.put("greeter", set(endpoint("10.0.0.1:80", ""), endpoint("10.0.0.2:80", `{"draining":true}`)))
	b.put("users", set(endpoint("10.0.1.1:80", "")))
	b.after(5 * time.Second)
	b.put("users", set(endpoint("10.0.1.1:80", `{"zone":"b"}`)))
	b.after(3 * time.Second)
	const want = `title  2 services  3 endpoints  1 draining
  SERVICE  SIZE  CHURN  CHANGED  STALE  WITHHELD  HELD  DRAINING
> greeter     2      -        -      -         -     -         1
  users       1      1       3s      -         -     -         -



sorted by name  changes since 12:00:00
enter endpoints  / filter  n s c a t w h sort  r reverse  ? help  q quit`
	if got := b.plain(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEndpoints(t *testing.T) {
	b := newBench(t, Options{Endpoints: true})
	b.Update(tea.WindowSizeMsg{Width: 100, Height: 10})
	b.put("greeter", set(endpoint("10.0.0.1:80", `{"weight":2,"zone":"a"}`), endpoint("10.0.0.2:80", "")))
	b.put("idle", set())
	b.after(time.Second)
	b.put("greeter", set(endpoint("10.0.0.2:80", ""), endpoint("10.0.0.3:80", "")))
	b.after(2 * time.Second)
	const want = `title  2 services  2 endpoints
  SERVICE  ADDRESS      STATE           CHANGED  WEIGHT  ZONE
> greeter  10.0.0.1:80  deleted              2s       2  a
  greeter  10.0.0.2:80  serving               -       -  -
  greeter  10.0.0.3:80  serving, added       2s       -  -
  idle     -            no endpoints          -       -  -


changes since 12:00:00
down/j down  up/k up  / filter  ? help  q quit`
	if got := b.plain(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	b.after(keepDeleted)
	b.wantNot("10.0.0.1:80")
	b.want("10.0.0.3:80  serving  ")
}

func TestDetail(t *testing.T) {
	b := newBench(t, Options{})
	b.put("greeter", func(v *naming.View) {
		v.Endpoints = []naming.Endpoint{endpoint("10.0.0.1:80", "")}
		v.Withheld = []naming.Withheld{{Endpoint: endpoint("10.0.0.2:80", `{"owner":"ada"}`), Reason: naming.Maintenance, Detail: "disk \x1b[31mfull"}}
	})
	b.put("users", set(endpoint("10.0.1.1:80", "")))
	b.press("enter", "down")
	b.want("greeter  fresh  1 serving  1 withheld", "  10.0.0.1:80  serving", "> 10.0.0.2:80  withheld: ", `(disk \x1b[31mfull)`,
		"10.0.0.2:80  id 10.0.0.2:80  withheld: ", `metadata {"owner":"ada"}`)
	b.wantNot("users")
	b.after(time.Second)
	b.put("greeter", func(v *naming.View) {
		v.Held = []naming.Endpoint{v.Endpoints[0]}
		v.Endpoints, v.StaleSince, v.Err = nil, b.now, errors.New("connection \x07refused")
	})
	b.after(3 * time.Second)
	b.want("1 stale  1 withheld  1 held", `greeter  stale for 3s: connection \arefused`, "10.0.0.1:80  held, stale", "> 10.0.0.2:80  withheld")
	b.gone("greeter")
	b.want("greeter  has left the list of services")
	b.press("esc")
	b.want("greeter  gone", "users")
	b.after(keepDeleted)
	b.wantNot("greeter")
}

// A registry of several that does not answer is on the screen, also while each service is fresh.
func TestFailingSide(t *testing.T) {
	for _, endpoints := range []bool{false, true} {
		b := newBench(t, Options{Endpoints: endpoints})
		b.put("a", set(endpoint("10.0.0.1:80", "")))
		b.wantNot("stale")
		b.put("a", func(v *naming.View) {
			v.Sides = []naming.SideStatus{{Name: "new", Used: true, Synced: true}, {Name: "old", Used: true, Synced: true, StaleSince: begin, Err: errors.New("refused\x1b[2J")}}
		})
		b.after(3 * time.Second)
		b.want(`old stale for 3s: refused\x1b[2J`)
		b.wantNot("new")
		b.put("a", func(v *naming.View) { v.Sides = nil })
		b.wantNot("stale")
	}
}

// All keys are on a screen of 80 cells.
func TestFullHelp(t *testing.T) {
	for _, endpoints := range []bool{false, true} {
		b := newBench(t, Options{Endpoints: endpoints})
		b.put("a", set(endpoint("10.0.0.1:80", "")))
		b.press("?")
		want := []string{"up/k", "pgdn", "/", "ctrl+z", "q", "quit"}
		if !endpoints {
			want = append(want, "by staleness", "by withheld", "by held", "r", "reverse")
		}
		for _, text := range want {
			b.want(text)
		}
		b.wantNot("...")
	}
}

func TestSides(t *testing.T) {
	b := newBench(t, Options{})
	b.put("greeter", func(v *naming.View) {
		v.Sides = []naming.SideStatus{{Name: "consul", Used: true, Endpoints: 2, Synced: true}, {Name: "etcd", Err: errors.New("refused")}}
	})
	b.press("enter")
	b.want("consul  used, 2 endpoints  fresh", "etcd  not used, 0 endpoints  not read yet: refused", "ADDRESS")
}

func TestSort(t *testing.T) {
	b := newBench(t, Options{})
	b.put("ada", set(endpoint("10.0.0.1:80", "")))
	b.put("bob", set(endpoint("10.0.0.1:80", ""), endpoint("10.0.0.2:80", "")))
	b.put("cyd", func(v *naming.View) { v.Withheld = []naming.Withheld{{Endpoint: endpoint("10.0.0.3:80", "")}} })
	b.put("dot", func(v *naming.View) { v.Held = []naming.Endpoint{endpoint("10.0.0.4:80", "")} })
	b.put("eve", func(v *naming.View) { v.StaleSince, v.Err = b.now, errors.New("refused") })
	b.after(time.Second)
	b.put("ada", set(endpoint("10.0.0.1:80", `{"zone":"b"}`)))
	for _, c := range []struct {
		key  string
		want []string
	}{
		{"n", []string{"ada", "bob", "cyd", "dot", "eve"}},
		{"r", []string{"eve", "dot", "cyd", "bob", "ada"}},
		{"s", []string{"bob", "ada", "cyd"}},
		{"c", []string{"ada", "bob", "cyd"}},
		{"a", []string{"ada", "dot", "bob"}},
		{"t", []string{"eve", "ada", "bob"}},
		{"w", []string{"cyd", "ada", "bob"}},
		{"h", []string{"dot", "ada", "bob"}},
	} {
		b.press(c.key)
		b.want(append([]string{"SERVICE"}, c.want...)...)
	}
	b.want("sorted by held")
	if _, err := ParseKey("smell"); err == nil {
		t.Error("an unknown key is accepted")
	}
}

func TestFilter(t *testing.T) {
	b := newBench(t, Options{})
	b.put("greeter", set(endpoint("10.0.0.1:80", ""), endpoint("10.0.0.2:80", "")))
	b.put("users", set(endpoint("10.0.1.1:80", `{"tags":["Blue"]}`)))
	b.press("/", "q", "backspace", "b", "l")
	b.want("> users", "filter: bl")
	b.wantNot("greeter")
	b.press("esc")
	b.want("> greeter")
	b.press("/", "0", ".", "2", ":", "enter", "enter")
	b.want("greeter", "> 10.0.0.2:80", "filter: 0.2:")
	b.wantNot("10.0.0.1:80")
	b.press("esc", "esc")
	b.want("greeter", "users")
	b.press("/")
	b.Update(tea.PasteMsg{Content: "no\x1bsuch" + strings.Repeat("x", 10)})
	b.want("Nothing contains the text of the filter.", `filter: no\x1bsuchxxxxxxxxxx`)
	b.Update(tea.PasteMsg{Content: strings.Repeat("x", maxFilter)})
	b.want(`filter: no\x1bsuchxxxxxxxxxx` + "\nenter")
}

func TestQuit(t *testing.T) {
	b := newBench(t, Options{})
	for _, c := range []struct {
		keys []string
		quit bool
	}{{[]string{"q"}, true}, {[]string{"ctrl+c"}, true}, {[]string{"/", "q"}, false}, {[]string{"ctrl+c"}, true}} {
		if got := b.press(c.keys...); got != c.quit {
			t.Errorf("%v: quit is %v", c.keys, got)
		}
	}
}

// A cursor that the user has moved stays on its service, and one that was not moved stays on
// the first service.
func TestCursor(t *testing.T) {
	b := newBench(t, Options{})
	b.put("m", set(endpoint("10.0.0.1:80", "")))
	b.put("x", set(endpoint("10.0.0.1:80", "")))
	b.want("> m")
	b.put("c", set(endpoint("10.0.0.1:80", "")))
	b.want("> c")
	b.press("down")
	b.put("b", set(endpoint("10.0.0.1:80", "")))
	b.want("  b", "  c", "> m", "  x")
	b.gone("m")
	b.after(keepDeleted)
	b.want("  b", "  c", "> x")
	for i := range 100 {
		b.put(fmt.Sprintf("y%03d", i), set(endpoint("10.0.0.1:80", "")))
	}
	b.press("end")
	b.want("> y099")
	b.wantNot("y050")
	b.press("g")
	b.want("> b")
	b.press("pgdown", "pgdown")
	b.want("> y0")
}

// No text leaves the window or reaches the terminal raw, whatever the size of the window.
func TestWindows(t *testing.T) {
	hostile := []string{"\x1b[2J", "\u202e", "日本語日本語日本語", "a\nb\rc", strings.Repeat("long", 100), "\xff\xfe", "e\u0301"}
	for _, endpoints := range []bool{false, true} {
		b := newBench(t, Options{Endpoints: endpoints})
		for i, name := range hostile {
			text, err := json.Marshal(map[string]any{"zone": name, "version": name, "tags": []string{name, name}})
			if err != nil {
				t.Fatal(err)
			}
			b.put(name, func(v *naming.View) {
				v.Endpoints = []naming.Endpoint{{ID: name, Addr: name, Metadata: text}}
				v.Withheld = []naming.Withheld{{Endpoint: endpoint(fmt.Sprint(i), string(text)), Detail: name}}
				v.StaleSince, v.Err = b.now, errors.New(name)
			})
		}
		b.board.List(naming.View{Status: naming.Status{Err: errors.New(hostile[0])}})
		for _, keys := range [][]string{{}, {"enter"}, {"?"}, {"/", "日"}} {
			b.press(keys...)
			for _, width := range []int{0, 1, 2, 3, 5, 8, 13, 21, 30, 34, 40, 55, 72, 80, 89, 100, 130} {
				for _, height := range []int{0, 1, 2, 4, 7, 10, 24} {
					b.Update(tea.WindowSizeMsg{Width: width, Height: height})
					checkScreen(t, b.screen(), width, height)
				}
			}
		}
	}
}

func checkScreen(t *testing.T, screen string, width, height int) {
	t.Helper()
	lines := strings.Split(screen, "\n")
	if len(lines) > max(height, 1) {
		t.Fatalf("%dx%d: %d lines", width, height, len(lines))
	}
	for _, line := range lines {
		text := ansi.Strip(line)
		if ansi.StringWidth(text) > width {
			t.Fatalf("%dx%d: a line of %d: %q", width, height, ansi.StringWidth(text), text)
		}
		for _, r := range text {
			if !unicode.IsPrint(r) {
				t.Fatalf("%dx%d: %q in %q", width, height, r, text)
			}
		}
		if strings.Contains(line, "\x1b[2J") || strings.Contains(line, "\x1b]") {
			t.Fatalf("%dx%d: a control sequence in %q", width, height, line)
		}
	}
}

// A screen costs what is visible, and not what exists.
func TestScreenCost(t *testing.T) {
	cost := func(services int, opts Options) float64 {
		b := newBench(t, opts)
		fillBoard(b.board, services, 20)
		b.refresh()
		return testing.AllocsPerRun(10, func() { b.screen() })
	}
	for _, opts := range []Options{{}, {Endpoints: true}} {
		if few, many := cost(50, opts), cost(1000, opts); many > 2*few {
			t.Errorf("%+v: %v allocations with 1,000 services, %v with 50", opts, many, few)
		}
	}
}

func fillBoard(b *Board, services, endpoints int) {
	for i := range services {
		v := naming.View{Service: fmt.Sprintf("service-%04d", i), Status: naming.Status{Synced: true}}
		for j := range endpoints {
			v.Endpoints = append(v.Endpoints, endpoint(fmt.Sprintf("10.%d.%d.%d:80", i/256, i%256, 100+j), `{"weight":2,"zone":"a"}`))
		}
		b.apply(live.Update{View: v, First: true, Changes: live.Diff(naming.View{}, v)}, begin)
	}
}

// BenchmarkFrame has 5,000 services of 20 endpoints. Each frame has a change.
func BenchmarkFrame(b *testing.B) {
	for _, opts := range []Options{{}, {Sort: ByChurn}, {Endpoints: true}, {Endpoints: true, Filter: "10.7."}} {
		b.Run(fmt.Sprintf("%+v", opts), func(b *testing.B) {
			board := NewBoard()
			fillBoard(board, 5000, 20)
			m := New(board, opts)
			m.Update(tea.WindowSizeMsg{Width: 120, Height: 40})
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				v := naming.View{Service: fmt.Sprintf("service-%04d", n%5000), Status: naming.Status{Synced: true}}
				e := endpoint(fmt.Sprintf("10.0.0.%d:80", n%256), "")
				board.apply(live.Update{View: v, Changes: []live.Change{{Kind: live.Changed, Endpoint: e}}}, begin)
				m.Update(refresh{begin})
				_ = m.screen()
			}
		})
	}
}
