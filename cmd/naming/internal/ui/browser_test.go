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
	"github.com/naming-go/naming/cmd/naming/internal/hub"
	"github.com/naming-go/naming/migrate"
)

// browser is a page in a headless Chromium.
type browser struct {
	t   testing.TB
	ctx context.Context

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
		if len(b.problems) > 0 {
			t.Errorf("the browser reports %q", b.problems)
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
	w.put(t, "greeter", naming.Change{Endpoint: naming.Endpoint{ID: "one", Addr: "10.0.0.1:80", Metadata: json.RawMessage(`{"weight":2,"zone":"zone-a","version":"v1.2","tags":["blue"]}`)}},
		naming.Change{Endpoint: naming.Endpoint{ID: "two", Addr: "10.0.0.2:80", Draining: true}}, naming.Change{Endpoint: naming.Endpoint{ID: "three", Addr: "10.0.0.3:80"}})
	w.store.Withhold("greeter", "three", naming.Maintenance, "the disk is full")
	w.put(t, "<img src=x onerror=alert(1)>\x1b", newEndpoint("evil"))
	w.put(t, "orders", newEndpoint("one"))
}

func TestBrowserShowsServices(t *testing.T) {
	w := start(t, new(memory.Store), Options{Registry: "memory:"})
	fill(t, w)
	w.wait(t, 3)
	b := openPage(t, w.url)
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
	w.put(t, "greeter", newEndpoint("new"))
	b.shows("#detail", "new:80")
	b.do("document.querySelector('#detail summary').click()")
	b.shows("#detail details", "added")
	b.keys("2")
	b.shows("#changes", "new:80")
	b.until("document.querySelector('#chart canvas') !== null")
	b.picture("timeline")
	w.store.Down(errors.New("the cable is cut"))
	b.shows("#status", "the cable is cut")
	b.shows("#status", "stale for")
	b.keys("1")
	b.shows("#detail", "stale for")
	w.store.Up()
}

func TestBrowserDarkLightAndPhone(t *testing.T) {
	w := start(t, new(memory.Store), Options{})
	fill(t, w)
	w.wait(t, 3)
	b := openPage(t, w.url)
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

func TestBrowserActions(t *testing.T) {
	actions := new(fakeActions)
	w := start(t, new(memory.Store), Options{Actions: actions, Token: "secret"})
	w.put(t, "greeter", newEndpoint("one"))
	w.wait(t, 1)
	b := openPage(t, w.url+"/#token=secret")
	b.shows("#list", "greeter")
	b.until("location.hash === ''")
	b.keys("j")
	b.shows("#detail", "one:80")
	b.until("document.querySelector('#endpoints button') !== null")
	b.do("document.querySelector('#endpoints button').click()")
	b.shows("#ask", "drain one:80 of greeter?")
	b.run(chromedp.Click(chromedp.CSS("#ask button[value=no]")))
	b.until("!asking")
	b.do("document.querySelector('#endpoints button').click()")
	b.shows("#ask", "drain one:80 of greeter?")
	b.run(chromedp.Click(chromedp.CSS("#ask button[value=yes]")))
	for begin := time.Now(); len(actions.taken()) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("the action has not arrived")
		}
	}
	if got := actions.taken(); len(got) != 1 || got[0] != "drain greeter one" {
		t.Errorf("got the actions %q, want one drain", got)
	}
}

func TestBrowserScrollsManyServices(t *testing.T) {
	w := start(t, new(memory.Store), Options{})
	for i := range 3000 {
		w.put(t, fmt.Sprintf("service-%04d", i), newEndpoint("one"))
	}
	w.wait(t, 3000)
	b := openPage(t, w.url)
	b.shows("#count", "3000 services")
	b.until("document.querySelectorAll('#list [role=option]').length < 100")
	b.run(chromedp.Focus(chromedp.CSS("#list")))
	b.keys(kb.End)
	b.shows("#list", "service-2999")
	b.shows("#detail", "service-2999")
	b.until("document.getElementById('list').getAttribute('aria-activedescendant') === 'list-2999'")
}

func TestBrowserShowsAMigration(t *testing.T) {
	old, next, phases := new(memory.Store), new(memory.Store), new(migrate.Settable)
	set := func(phase migrate.Phase) {
		t.Helper()
		if err := phases.Set("*", migrate.State{Phase: phase, By: "ada"}); err != nil {
			t.Fatal(err)
		}
	}
	set(migrate.Union)
	w := &world{store: old, hub: hub.New(hub.Options{})}
	logger := slog.New(slog.DiscardHandler)
	j, err := migrate.Join(old, next, phases, &migrate.Options{Client: naming.Options{Logger: logger}, Hooks: w.hub.MigrateHooks(), OldName: "consul", NewName: "etcd", ParityAfter: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	w.put(t, "greeter", newEndpoint("both"), newEndpoint("missing"))
	if err := next.Apply(t.Context(), "greeter", newEndpoint("both")); err != nil {
		t.Fatal(err)
	}
	seat := naming.Endpoint{ID: "m~consul~etcd", Metadata: json.RawMessage(`{"holder":"x","by":"host/1","digest":"abc","deletes":7}`)}
	if err := next.Apply(t.Context(), migrate.BridgeService, naming.Change{Endpoint: seat}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	single, done := naming.New(next, &naming.Options{Logger: logger}), make(chan error)
	go func() { done <- w.hub.RunBridges(ctx, "etcd", single) }()
	t.Cleanup(func() { cancel(); <-done; single.Close() })
	startClient(t, w, j.Client, j, Options{Registry: "migrate:"})
	b := openPage(t, w.url)
	b.shows("#list", "greeter")
	b.until("!document.getElementById('tab-migration').hidden")
	b.keys("3")
	b.shows("#moving", "union")
	b.shows("#bridges", "the fuse has blown: 7 deletions wait (abc)")
	b.until("Array.from(document.querySelectorAll('#moving [role=option]')).some(e => e.innerText.includes('greeter') && e.innerText.includes('1 missing') && e.innerText.includes('old 2') && e.innerText.includes('new 1'))")
	b.picture("migration")
	b.do("Array.from(document.querySelectorAll('#moving [role=option]')).find(e => e.innerText.includes('greeter')).click()")
	for _, text := range []string{"consul", "etcd", "2 endpoints", "only here: missing:80", "by ada", "1 missing, 0 extra, 0 different"} {
		b.shows("#detail", text)
	}
	b.picture("migration-service")
	set(migrate.NewRead)
	b.shows("#detail", "new-read")
	b.keys("2")
	b.shows("#changes", "union to new-read")
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
	page := openPage(b, w.url)
	var paint, change float64
	for i := 0; b.Loop(); i++ {
		page.run(chromedp.Navigate(w.url))
		page.until("document.body.dataset.painted === '5000' && painted > 0")
		paint = evaluate[float64](page, "painted")
		page.do("select('service-0000', true)")
		page.shows("#detail", "10.0.0.0:8080")
		name := fmt.Sprintf("added-%d", i)
		page.do(fmt.Sprintf(watchDetail, name))
		begin := time.Now()
		w.put(b, "service-0000", naming.Change{Endpoint: naming.Endpoint{ID: "added", Addr: name + ":80"}})
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
