package ui

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/cmd/naming/internal/hub/hubtest"
	"github.com/naming-go/naming/migrate"
)

// browser is a page in a headless Chromium.
type browser struct {
	t   testing.TB
	ctx context.Context

	// allowed is a part of the errors that a test expects. The test sets it before they occur.
	allowed string

	mu       sync.Mutex
	problems []string // errors of the console, and requests to other servers
}

// openPage opens a page of a server in a browser of its own, which ends with the test. The
// test fails for an error in the console, and for a request to another server.
func openPage(t testing.TB, page string) *browser {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.ExecPath("chromium"), chromedp.UserDataDir(t.TempDir()))
	ctx, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx); cancel() })
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, func(event any) { b.note(event, page) }); err != nil {
		t.Fatalf("the browser: %v (scripts/setup.sh installs Chromium)", err)
	}
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	_, err2 := chromedp.Call(ctx, cdplog.Enable, cdp.Empty{})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	b.run(chromedp.EmulateViewport(1200, 800), chromedp.Navigate(page))
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		problems := slices.DeleteFunc(b.problems, func(p string) bool { return b.allowed != "" && strings.Contains(p, b.allowed) })
		if len(problems) > 0 {
			t.Errorf("the browser reports %q", problems)
		}
	})
	return b
}

// note notes what must not happen.
func (b *browser) note(event any, page string) {
	problem := ""
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		problem = fmt.Sprintf("exception: %s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception)
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" {
			problem = fmt.Sprintf("console: %s", e.Args[0].Value)
		}
	case *cdplog.EventEntryAdded:
		if e.Entry.Level == "error" {
			problem = "log: " + e.Entry.Text + " " + e.Entry.URL
		}
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err != nil || !strings.Contains(page, u.Host) {
			problem = "request to " + e.Request.URL
		}
	}
	if problem != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.problems = append(b.problems, problem)
	}
}

func (b *browser) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatalf("the browser: %v: %s (scripts/setup.sh installs Chromium)", err, b.text("body"))
	}
}

// text returns what the elements of a selector show, or an empty text.
func (b *browser) text(selector string) string {
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf("Array.from(document.querySelectorAll(%q)).map(e => e.innerText).join('\\n')", selector)))
	return text
}

// evaluate returns the value of an expression.
func evaluate[T any](b *browser, expression string, opts ...chromedp.EvaluateOption) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute) // only a hang takes longer
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, opts...))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// do evaluates an expression for its effect.
func (b *browser) do(expression string) {
	b.t.Helper()
	evaluate[chromedp.Void](b, expression)
}

// until waits until an expression holds.
func (b *browser) until(expression string) {
	b.t.Helper()
	for begin := time.Now(); !evaluate[bool](b, expression); time.Sleep(20 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			b.picture("failed")
			b.t.Fatalf("it does not hold: %s\nThe page: %s", expression, b.text("body"))
		}
	}
}

// shows waits until the elements of a selector show a text.
func (b *browser) shows(selector, text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("Array.from(document.querySelectorAll(%q)).some(e => e.innerText.includes(%q))", selector, text))
}

// prefer makes the user of the browser prefer dark or light.
func (b *browser) prefer(scheme string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	if err != nil {
		b.t.Fatal(err)
	}
}

// slash presses the key of the filter as a keyboard does: the page may refuse the character.
func (b *browser) slash() {
	b.t.Helper()
	for _, kind := range []input.DispatchKeyEventType{"keyDown", "keyUp"} {
		p := input.DispatchKeyEventParams{Type: kind, Key: "/", WindowsVirtualKeyCode: 191}
		if kind == "keyDown" {
			p.Text = "/"
		}
		if _, err := chromedp.Call(b.ctx, input.DispatchKeyEvent, p); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *browser) keys(keys string) {
	b.t.Helper()
	b.run(chromedp.KeyEvent(keys))
}

// picture writes a picture of the page into the directory NAMING_PICTURES, if that is set.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("NAMING_PICTURES")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// fill puts services with all states into a registry.
func fill(t testing.TB, w *world) {
	w.Put(t, "greeter", naming.Change{Endpoint: naming.Endpoint{ID: "one", Addr: "10.0.0.1:80", Metadata: json.RawMessage(`{"weight":2,"zone":"zone-a","version":"v1.2","tags":["blue"]}`)}},
		naming.Change{Endpoint: naming.Endpoint{ID: "two", Addr: "10.0.0.2:80", Draining: true}}, naming.Change{Endpoint: naming.Endpoint{ID: "three", Addr: "10.0.0.3:80"}})
	w.Store.Withhold("greeter", "three", naming.Maintenance, "the disk is full")
	w.Put(t, "<img src=x onerror=alert(1)>\x1b", hubtest.Endpoint("evil"))
	w.Put(t, "orders", hubtest.Endpoint("one"))
}

func TestBrowserShowsServices(t *testing.T) {
	w := start(t, new(memory.Store), Options{Registry: "memory:"})
	fill(t, w)
	w.wait(t, 3)
	b := openPage(t, w.URL)
	b.shows("#list", "greeter")
	b.shows("#list", `<img src=x onerror=alert(1)>\x1b`)
	b.shows("#status", "fresh")
	b.slash()
	b.keys("gree")
	b.shows("#count", "1 of 3 services")
	b.keys(kb.ArrowDown)
	b.keys(kb.Enter)
	for _, text := range []string{"10.0.0.1:80", "weight 2", "zone zone-a", "version v1.2", "tags blue", "draining", "withheld: maintenance (the disk is full)"} {
		b.shows("#detail", text)
	}
	b.picture("services")
	w.Put(t, "greeter", hubtest.Endpoint("new"))
	b.shows("#detail", "new:80")
	b.do("document.querySelector('#detail summary').click()")
	b.shows("#detail details", "added")
	b.keys("2")
	b.shows("#changes", "new:80")
	b.until("document.querySelector('#chart canvas') !== null && samples[0].length > 0")
	b.picture("timeline")
	w.Store.Down(errors.New("the cable is cut"))
	b.shows("#status", "the cable is cut")
	b.shows("#status", "stale for")
	b.keys("1")
	b.shows("#detail", "stale for")
	w.Store.Up()
}

func TestBrowserDarkLightAndPhone(t *testing.T) {
	w := start(t, new(memory.Store), Options{})
	fill(t, w)
	w.wait(t, 3)
	b := openPage(t, w.URL)
	b.shows("#list", "greeter")
	background := func(colour string) {
		t.Helper()
		b.until(fmt.Sprintf("getComputedStyle(document.body).backgroundColor === %q", colour))
	}
	const dark, light = "rgb(20, 23, 28)", "rgb(255, 255, 255)"
	b.prefer("dark")
	background(dark)
	b.picture("dark")
	b.keys("d")
	background(light)
	b.prefer("light")
	b.keys("d")
	background(dark)
	b.run(chromedp.EmulateViewport(360, 640))
	const fits = "document.documentElement.scrollWidth <= innerWidth"
	b.until(fits)
	b.do("document.querySelector('#list [role=option]:nth-child(2)').click()")
	b.shows("#detail", "10.0.0.1:80")
	b.until(fits + " && getComputedStyle(document.getElementById('left')).display === 'none'")
	b.picture("phone")
	b.keys(kb.Escape)
	b.until("getComputedStyle(document.getElementById('detail')).display === 'none'")
	b.keys("2")
	b.shows("#changes", "synced")
	b.until(fits)
	b.picture("phone-timeline")
}

// tabTo presses the tab key until an element of a selector has the focus.
func (b *browser) tabTo(selector string) {
	b.t.Helper()
	for range 60 {
		if evaluate[bool](b, fmt.Sprintf("document.activeElement.matches(%q)", selector)) {
			return
		}
		b.keys(kb.Tab)
	}
	b.t.Fatalf("the tab key does not reach %s", selector)
}

// taken waits until actions have been taken, and compares them.
func (b *browser) taken(actions *fakeActions, want ...string) {
	b.t.Helper()
	for begin := time.Now(); len(actions.taken()) < len(want); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			break
		}
	}
	if got := actions.taken(); !slices.Equal(got, want) {
		b.t.Fatalf("got the actions %q, want %q", got, want)
	}
}

// TestBrowserDrains drains an endpoint with the keyboard alone.
func TestBrowserDrains(t *testing.T) {
	actions := new(fakeActions)
	w := start(t, new(memory.Store), Options{Actions: actions, Token: "secret"})
	w.Put(t, "greeter", hubtest.Endpoint("one"))
	w.wait(t, 1)
	b := openPage(t, w.URL+"/#token=secret")
	b.shows("#list", "greeter")
	b.until("location.hash === '' && !document.getElementById('access').hidden")
	b.keys("j")
	b.shows("#detail", "one:80")
	b.keys(kb.Enter)
	b.tabTo("#endpoints button")
	b.keys(kb.Enter)
	b.shows("#ask", "drain one:80 of greeter?")
	b.until("document.activeElement.id === 'ask-no'")
	b.keys(kb.Enter)
	b.until("!asking")
	b.taken(actions)
	b.tabTo("#endpoints button")
	b.keys(kb.Enter)
	b.shows("#ask", "drain one:80 of greeter?")
	b.picture("drain")
	b.tabTo("#ask-yes")
	b.keys(kb.Enter)
	b.shows("#message.good", "The mark stayed.")
	b.taken(actions, "mark greeter one true")
	w.Put(t, "greeter", naming.Change{Endpoint: naming.Endpoint{ID: "one", Addr: "one:80", Draining: true}})
	b.shows("#endpoints button", "Resume")
	b.until("document.activeElement.matches('#endpoints button')") // the element was replaced
	b.keys(kb.Escape)
	b.until("document.getElementById('message').hidden")
	b.do("document.querySelector('#endpoints button').click()")
	b.run(chromedp.Click(chromedp.CSS("#ask-yes")))
	b.taken(actions, "mark greeter one true", "mark greeter one false")
}

// TestBrowserShowsRefusals: the page shows why the server refuses, and has no buttons where
// every action would be refused.
func TestBrowserShowsRefusals(t *testing.T) {
	w := start(t, new(memory.Store), Options{Actions: new(fakeActions), Token: "secret"})
	w.Put(t, "greeter", hubtest.Endpoint("one"))
	w.wait(t, 1)
	b := openPage(t, w.URL)
	b.shows("#access", "read-only: this URL has no token")
	b.keys("j")
	b.shows("#detail", "one:80")
	b.until("document.querySelectorAll('#endpoints button').length === 0")
	b.allowed = "403"
	b.run(chromedp.Navigate(w.URL + "/?again#token=wrong"))
	b.shows("#access", "changes allowed")
	b.keys("j")
	b.shows("#endpoints", "one:80")
	b.run(chromedp.Click(chromedp.CSS("#endpoints button")), chromedp.Click(chromedp.CSS("#ask-yes")))
	b.shows("#message.bad", "the token is missing or wrong")
	b.picture("refused")
	readOnly := start(t, new(memory.Store), Options{})
	readOnly.Put(t, "greeter", hubtest.Endpoint("one"))
	readOnly.wait(t, 1)
	page := openPage(t, readOnly.URL+"/#token=secret")
	page.shows("#list", "greeter")
	page.keys("j")
	page.shows("#detail", "one:80")
	page.until("document.querySelectorAll('#endpoints button, .buttons').length === 0 && document.getElementById('access').hidden")
}

func TestBrowserScrollsManyServices(t *testing.T) {
	w := start(t, new(memory.Store), Options{})
	for i := range 3000 {
		w.Put(t, fmt.Sprintf("service-%04d", i), hubtest.Endpoint("one"))
	}
	w.wait(t, 3000)
	b := openPage(t, w.URL)
	b.shows("#count", "3000 services")
	b.until("document.querySelectorAll('#list [role=option]').length < 100")
	b.run(chromedp.Focus(chromedp.CSS("#list")))
	b.keys(kb.End)
	b.shows("#list", "service-2999")
	b.shows("#detail", "service-2999")
	b.until("document.getElementById('list').getAttribute('aria-activedescendant') === 'list-2999'")
}

// moving is a world with two registries.
type moving struct {
	*world
	next   *memory.Store
	phases *migrate.Settable
}

// startMigration starts a page of a migration in which a service is in the phase union, and
// the fuse of a Bridge has blown.
func startMigration(t *testing.T, opts Options) *moving {
	t.Helper()
	m := &moving{world: newWorld(new(memory.Store)), next: new(memory.Store), phases: new(migrate.Settable)}
	m.set(t, migrate.Union)
	logger := slog.New(slog.DiscardHandler)
	j, err := migrate.Join(m.Store, m.next, m.phases, &migrate.Options{Client: naming.Options{Logger: logger}, Hooks: m.Hub.MigrateHooks(), OldName: "consul", NewName: "etcd", ParityAfter: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	m.Put(t, "greeter", hubtest.Endpoint("both"), hubtest.Endpoint("missing"))
	if err := m.next.Apply(t.Context(), "greeter", hubtest.Endpoint("both")); err != nil {
		t.Fatal(err)
	}
	seat := naming.Endpoint{ID: "m~consul~etcd", Metadata: json.RawMessage(`{"holder":"x","by":"host/1","digest":"abc","deletes":7}`)}
	if err := m.next.Apply(t.Context(), migrate.BridgeService, naming.Change{Endpoint: seat}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	single, done := naming.New(m.next, &naming.Options{Logger: logger}), make(chan error)
	go func() { done <- m.Hub.RunBridges(ctx, "etcd", single) }()
	t.Cleanup(func() { cancel(); <-done; single.Close() })
	m.StartClient(t, j.Client, j, m.page(t, opts))
	return m
}

func (m *moving) set(t *testing.T, phase migrate.Phase) {
	t.Helper()
	if err := m.phases.Set("*", migrate.State{Phase: phase, By: "ada"}); err != nil {
		t.Fatal(err)
	}
}

func TestBrowserShowsAMigration(t *testing.T) {
	m := startMigration(t, Options{Registry: "migrate:", Old: "consul", New: "etcd"})
	b := openPage(t, m.URL)
	b.shows("#list", "greeter")
	b.until("!document.getElementById('tab-migration').hidden")
	b.keys("3")
	b.shows("#moving", "union")
	b.shows("#bridges", "the fuse has blown: 7 deletions wait (abc)")
	b.until("Array.from(document.querySelectorAll('#moving [role=option]')).some(e => ['greeter', '1 missing', 'consul 2', 'etcd 1'].every(text => e.innerText.includes(text)))")
	b.picture("migration")
	b.do("Array.from(document.querySelectorAll('#moving [role=option]')).find(e => e.innerText.includes('greeter')).click()")
	for _, text := range []string{"consul", "etcd", "2 endpoints", "only here: missing:80", "by ada", "1 missing"} {
		b.shows("#detail", text)
	}
	b.picture("migration-service")
	b.run(chromedp.EmulateViewport(360, 640))
	const fits = "document.documentElement.scrollWidth <= innerWidth"
	b.until(fits)
	b.picture("phone-migration-service")
	b.keys("3")
	b.until(fits)
	b.picture("phone-migration")
	b.keys("1")
	m.set(t, migrate.NewRead)
	b.shows("#detail", "new-read")
	b.keys("2")
	b.shows("#changes", "union to new-read")
}

// TestBrowserSteps goes ahead and back in a migration with the keyboard alone.
func TestBrowserSteps(t *testing.T) {
	actions := new(fakeActions)
	m := startMigration(t, Options{Registry: "migrate:", Actions: actions, Token: "secret"})
	b := openPage(t, m.URL+"/#token=secret")
	b.allowed = "409"
	b.shows("#list", "greeter")
	b.keys("j")
	b.shows("#detail", "both:80")
	b.keys(kb.Enter)
	b.tabTo("#detail .buttons button")
	b.keys(kb.Enter)
	b.shows("#ask", "greeter: 5 new-read → 6 new-write")
	b.shows("#ask", "nobody can see that")
	b.until("document.getElementById('ask-yes').disabled")
	b.picture("gate")
	b.tabTo("#ask .gate input")
	b.keys(" ")
	b.until("!document.getElementById('ask-yes').disabled")
	b.tabTo("#ask-yes")
	b.keys(kb.Enter)
	b.shows("#message.good", "greeter: 5 new-read to 6 new-write.")
	look, confirmed := "ahead greeter false {old false 0 false}  [] false", "ahead greeter true {new-write true 0 false} 5 new-read [readers] false"
	b.taken(actions, look, confirmed)
	b.tabTo("#detail .buttons button:nth-child(2)")
	b.keys(kb.Enter)
	b.shows("#ask", "A step back has no gate.")
	b.shows("#ask", "be careful")
	b.picture("back")
	b.tabTo("#ask-yes")
	b.keys(kb.Enter)
	b.shows("#message.good", "greeter: 5 new-read to 4 prefer-new 1.")
	b.taken(actions, look, confirmed, "back greeter false", "back greeter true")
	b.keys("3")
	b.do("document.querySelector('#all button').click()")
	b.shows("#ask", "all services: 5 new-read → 6 new-write")
	b.do("document.querySelector('#ask .force input').click()")
	b.until("!document.getElementById('ask-yes').disabled")
	b.run(chromedp.Click(chromedp.CSS("#ask-yes")))
	b.shows("#message.good", "all services: 5 new-read to 6 new-write.")
}

// TestBrowserKeepsFocus: a change of the registry takes the focus from no button, also while a
// question is asked, and replaces no button without need.
func TestBrowserKeepsFocus(t *testing.T) {
	m := startMigration(t, Options{Registry: "migrate:", Actions: new(fakeActions), Token: "secret"})
	b := openPage(t, m.URL+"/#token=secret")
	b.shows("#list", "greeter")
	b.keys("j")
	b.shows("#detail", "both:80")
	b.keys(kb.Enter)
	b.tabTo("#detail .buttons button:nth-child(2)")
	const focused = "document.activeElement.textContent === 'Back…'"
	b.do("window.head = document.querySelector('#detail .head'); loadDetail().then(() => { window.loaded = 1; })")
	b.until("window.loaded === 1")
	b.until("window.head.isConnected && " + focused)
	m.set(t, migrate.NewRead)
	b.shows("#detail", "new-read")
	b.until("!window.head.isConnected && " + focused)
	b.keys(kb.Enter)
	b.shows("#ask", "A step back has no gate.")
	m.set(t, migrate.Shadow)
	b.shows("#detail", "shadow")
	b.keys(kb.Escape)
	b.until("!asking && " + focused)
}

// BenchmarkFirstPaint measures the time from the request to the painted list, in the clock of
// the browser, and the delay of a change from the put to the page, with 5,000 services of 20
// endpoints.
func BenchmarkFirstPaint(b *testing.B) {
	store := new(memory.Store)
	for i := range 5000 {
		changes := make([]naming.Change, 20)
		for j := range changes {
			changes[j] = naming.Change{Endpoint: naming.Endpoint{ID: fmt.Sprintf("instance-%d", j), Addr: fmt.Sprintf("10.%d.%d.%d:8080", i/250, i%250, j), Metadata: json.RawMessage(`{"weight":1,"zone":"a"}`)}}
		}
		if err := store.Apply(b.Context(), fmt.Sprintf("service-%04d", i), changes...); err != nil {
			b.Fatal(err)
		}
	}
	w := start(b, store, Options{})
	w.wait(b, 5000)
	page := openPage(b, w.URL)
	var paint, change float64
	for i := 0; b.Loop(); i++ {
		page.run(chromedp.Navigate(w.URL))
		page.until("document.body.dataset.painted === '5000' && painted > 0")
		paint = evaluate[float64](page, "painted")
		page.do("select('service-0000', true)")
		page.shows("#detail", "10.0.0.0:8080")
		name := fmt.Sprintf("added-%d", i)
		page.do(fmt.Sprintf(watchDetail, name))
		begin := time.Now()
		w.Put(b, "service-0000", naming.Change{Endpoint: naming.Endpoint{ID: "added", Addr: name + ":80"}})
		change = evaluate[float64](page, "window.seen", chromedp.EvalAwaitPromise) - float64(begin.UnixMilli())
	}
	b.ReportMetric(paint, "paint-ms")
	b.ReportMetric(change, "change-ms")
}

// watchDetail makes a promise of the time at which the service shows a text.
const watchDetail = `window.seen = new Promise(done => new MutationObserver(() => {
	const detail = document.getElementById('detail');
	if (detail.innerText.includes(%q)) done(Date.now());
}).observe(document.getElementById('detail'), {subtree: true, childList: true})); 0`
