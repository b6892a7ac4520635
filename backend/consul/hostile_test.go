package consul_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
)

// nonsense are the answers of a hostile agent.
type nonsense struct {
	status  int // 0: 200
	header  map[string]string
	body    string
	endless string        // is repeated after body for ever
	slow    time.Duration // before each byte
	err     error         // in the place of an answer

	fine  bool // it can be understood: nothing is stale
	empty bool // it says that there is no endpoint, or another
}

const sound = `[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"x","Service":"greeter","Address":"h","Port":1},"Checks":[]}]`

// with returns the sound answer with a part replaced.
func with(old, new string) string { return strings.Replace(sound, old, new, 1) }

var hostile = map[string]nonsense{
	"nothing":          {body: ""},
	"null":             {body: "null"},
	"a string":         {body: `"x"`},
	"a number":         {body: "1e999"},
	"an object":        {body: "{}"},
	"HTML":             {body: "<html><body>Sign in</body></html>", header: map[string]string{"Content-Type": "text/html"}},
	"truncated":        {body: sound[:len(sound)-20]},
	"truncated at the": {body: sound[:1]},
	"null element":     {body: "[null]"},
	"null and sound":   {body: "[null," + sound[1:]},
	"empty element":    {body: "[{}]"},
	"null service":     {body: `[{"Node":{},"Service":null,"Checks":null}]`},
	"null node":        {body: with(`{"Node":"n","Address":"10.0.0.1"}`, "null"), fine: true},
	"null checks":      {body: with(`"Checks":[]`, `"Checks":null`), fine: true},
	"null check":       {body: with(`"Checks":[]`, `"Checks":[null]`), fine: true, empty: true},
	"ID a number":      {body: with(`"x"`, "7")},
	"port a string":    {body: with(`"Port":1`, `"Port":"1"`)},
	"port a fraction":  {body: with(`"Port":1`, `"Port":1.5`)},
	"port too large":   {body: with(`"Port":1`, `"Port":99999999999999999999`)},
	"port negative":    {body: with(`"Port":1`, `"Port":-1`), fine: true, empty: true},
	"weight negative":  {body: with(`"Port":1`, `"Port":1,"Weights":{"Passing":-7,"Warning":-1}`), fine: true},
	"weights null":     {body: with(`"Port":1`, `"Port":1,"Weights":null,"Tags":null,"Meta":null,"TaggedAddresses":null`), fine: true},
	"meta a list":      {body: with(`"Port":1`, `"Port":1,"Meta":["a"]`)},
	"meta of numbers":  {body: with(`"Port":1`, `"Port":1,"Meta":{"a":1}`)},
	"addresses":        {body: with(`"Port":1`, `"Port":1,"TaggedAddresses":{"a://":7}`), fine: true},
	"not UTF-8":        {body: with(`"h"`, "\"\xff\xfe\""), fine: true, empty: true},
	"control":          {body: with(`"h"`, `"h\u001b[31m\u0000"`), fine: true, empty: true},
	"ours, broken":     {body: with(`"Port":1`, `"Port":1,"Meta":{"naming-id":"a","naming-form":"object","naming-json":"{"}`), fine: true, empty: true},
	"deep":             {body: strings.Repeat("[", 20_000)},
	"deep inside":      {body: with(`"Checks":[]`, `"Checks":`+strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000))},
	"deep metadata":    {body: with(`"Port":1`, `"Port":1,"Meta":{"naming-id":"a","naming-form":"value","naming-json":"`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+`"}`), fine: true, empty: true},
	"long string":      {body: `[{"Service":{"ID":"` + strings.Repeat("x", 3<<20) + `"}}]`},
	"garbage behind":   {body: sound + "\x00\xff}}}", fine: true},

	"endless spaces":   {endless: strings.Repeat(" ", 4096)},
	"endless brackets": {endless: strings.Repeat("[", 4096)},
	"endless string":   {body: `["`, endless: strings.Repeat("x", 4096)},
	"endless nulls":    {body: "[", endless: strings.Repeat("null,", 1000)},
	"endless objects":  {body: "[", endless: strings.Repeat("{},", 1000)},
	"endless errors":   {status: 500, endless: strings.Repeat("\x1b]0;x\a\n", 1000)},
	"slow":             {body: sound, slow: time.Second},
	"slow and endless": {body: "[", endless: " ", slow: time.Second},
	"slow error":       {status: 500, endless: "x", slow: time.Second},

	"index missing":     {body: sound, header: map[string]string{"X-Consul-Index": ""}, fine: true},
	"index 0":           {body: sound, header: map[string]string{"X-Consul-Index": "0"}, fine: true},
	"index negative":    {body: sound, header: map[string]string{"X-Consul-Index": "-1"}, fine: true},
	"index no number":   {body: sound, header: map[string]string{"X-Consul-Index": "x\x00"}, fine: true},
	"index largest":     {body: sound, header: map[string]string{"X-Consul-Index": "18446744073709551615"}, fine: true},
	"index too large":   {body: sound, header: map[string]string{"X-Consul-Index": "18446744073709551616"}, fine: true},
	"contact no number": {body: sound, header: map[string]string{"X-Consul-LastContact": "soon", "Age": "-1"}, fine: true},
	"filtered":          {body: sound, header: map[string]string{"X-Consul-Results-Filtered-By-ACLs": "true"}},

	"429":              {status: 429, body: "slow down"},
	"429 later":        {status: 429, header: map[string]string{"Retry-After": "99999999999999999999"}},
	"429 at once":      {status: 429, header: map[string]string{"Retry-After": "-1"}},
	"429 connections":  {status: 429, body: "Your IP is issuing too many concurrent connections, please rate limit your calls"},
	"reset":            {err: io.ErrUnexpectedEOF},
	"refused":          {err: errors.New("connection \x1b[31mrefused\n" + strings.Repeat("x", 200_000))},
	"redirect":         {status: 307, header: map[string]string{"Location": "http://elsewhere/"}},
	"redirect here":    {status: 307, header: map[string]string{"Location": "/v1/health/service/greeter"}},
	"redirect nowhere": {status: 302, header: map[string]string{"Location": "\x7f://"}},
}

func init() {
	for _, status := range []int{101, 199, 201, 204, 206, 300, 304, 400, 401, 403, 404, 405, 413, 418, 500, 502, 503, 504, 599, 999} {
		hostile[fmt.Sprint("status ", status)] = nonsense{status: status, body: "\x1b[31mno\n"}
	}
}

// hostileAgent is a transport. It does no I/O.
type hostileAgent struct {
	mu       sync.Mutex
	now      *nonsense // nil: it is sound
	requests int
	most     int64 // bytes that were read of one answer
}

func (a *hostileAgent) turn(n *nonsense) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now, a.requests = n, 0
}

func (a *hostileAgent) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	a.requests++
	n := a.now
	a.mu.Unlock()
	h := http.Header{"X-Consul-Index": {"5"}, "X-Consul-Lastcontact": {"0"}}
	if n == nil {
		if r.URL.Query().Get("index") == "5" {
			t := time.NewTimer(10 * time.Second)
			defer t.Stop()
			select {
			case <-t.C:
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}
		return &http.Response{StatusCode: 200, Header: h, Body: io.NopCloser(strings.NewReader(sound)), Request: r}, nil
	}
	if n.err != nil {
		return nil, n.err
	}
	for key, value := range n.header {
		if value == "" {
			h.Del(key)
		} else {
			h[http.CanonicalHeaderKey(key)] = []string{value}
		}
	}
	status := n.status
	if status == 0 {
		status = 200
	}
	b := &hostileBody{a: a, ctx: r.Context(), n: n, rest: []byte(n.body)}
	return &http.Response{StatusCode: status, Header: h, ContentLength: -1, Body: b, Request: r}, nil
}

type hostileBody struct {
	a    *hostileAgent
	ctx  context.Context
	n    *nonsense
	rest []byte
	read int64
}

func (b *hostileBody) Close() error { return nil }

func (b *hostileBody) Read(p []byte) (int, error) {
	if b.n.slow > 0 {
		p = p[:min(len(p), 1)]
		t := time.NewTimer(b.n.slow)
		defer t.Stop()
		select {
		case <-t.C:
		case <-b.ctx.Done():
		}
	}
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if len(b.rest) == 0 {
		if b.rest = []byte(b.n.endless); len(b.rest) == 0 {
			return 0, io.EOF
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	b.read += int64(n)
	b.a.mu.Lock()
	defer b.a.mu.Unlock()
	b.a.most = max(b.a.most, b.read)
	return n, nil
}

// presentable reports whether a text can be shown on a terminal.
func presentable(s string) bool {
	return len(s) <= 4*naming.MaxText && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// TestHostile: whatever an agent answers, a Client keeps the last good set, reports it as
// stale within the bound of silence, keeps the limits of requests and of an answer's
// size, and recovers when the agent does.
func TestHostile(t *testing.T) {
	for name, n := range hostile {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := new(hostileAgent)
				client, err := consul.NewClient(&api.Config{Address: "agent:8500", HttpClient: &http.Client{Transport: a}})
				if err != nil {
					t.Fatal(err)
				}
				s := consul.New(client, nil)
				c := naming.New(s, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
				defer c.Close()
				var mu sync.Mutex
				var view naming.View
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					for v, err := range c.Watch(ctx, "greeter") {
						if err != nil {
							return
						}
						mu.Lock()
						view = v
						mu.Unlock()
					}
				}()
				now := func() naming.View {
					synctest.Wait()
					mu.Lock()
					defer mu.Unlock()
					return view
				}
				right := func() bool {
					v := now()
					return v.Synced && v.Err == nil && len(v.Endpoints) == 1 && v.Endpoints[0].Addr == "h:1"
				}
				time.Sleep(time.Second)
				if !right() {
					t.Fatalf("at first: %+v", now())
				}
				const d = 2 * time.Minute
				a.turn(&n)
				time.Sleep(d)
				v := now()
				if len(v.Endpoints) == 0 && !n.empty {
					t.Errorf("the last good set was given up: %+v", v)
				}
				if !n.fine && v.Err == nil {
					t.Errorf("nothing says that it is stale: %+v", v)
				}
				if n.fine && v.Err != nil {
					t.Errorf("stale, with %v", v.Err)
				}
				if v.Err != nil && !presentable(v.Err.Error()) {
					t.Errorf("error of %d bytes: %.300q", len(v.Err.Error()), v.Err)
				}
				a.mu.Lock()
				requests, most := a.requests, a.most
				a.mu.Unlock()
				if most := 16 + 2*int(d/time.Second) + 20; requests > most {
					t.Errorf("%d requests in %v, at most %d are asked", requests, d, most)
				}
				if most > 4<<20 {
					t.Errorf("%d bytes of an answer were read", most)
				}
				// A write ends with its context.
				limited, done := context.WithTimeout(ctx, 10*time.Second)
				began := time.Now()
				_, gErr := s.Grant(limited, time.Minute)
				aErr := s.Apply(limited, "greeter", add(nil, ep("a", "h:2", ""))...)
				done()
				if took := time.Since(began); took > 15*time.Second {
					t.Errorf("writes took %v", took)
				}
				for _, err := range []error{gErr, aErr} {
					if err != nil && !presentable(err.Error()) {
						t.Errorf("error of %d bytes: %.300q", len(err.Error()), err)
					}
				}
				a.turn(nil)
				time.Sleep(s.SilenceBound() + time.Minute)
				if !right() {
					t.Errorf("afterwards: %+v", now())
				}
			})
		})
	}
}

// FuzzHostile is an agent that answers every request with what a fuzzer chooses.
func FuzzHostile(f *testing.F) {
	for _, n := range hostile {
		f.Add(n.status, n.header["X-Consul-Index"], []byte(n.body[:min(len(n.body), 1<<12)]))
	}
	f.Fuzz(func(t *testing.T, status int, index string, body []byte) {
		n := &nonsense{status: status, body: string(body), header: map[string]string{"X-Consul-Index": index}}
		synctest.Test(t, func(t *testing.T) {
			a := &hostileAgent{now: n}
			client, err := consul.NewClient(&api.Config{Address: "agent:8500", HttpClient: &http.Client{Transport: a}})
			if err != nil {
				t.Fatal(err)
			}
			s := consul.New(client, nil)
			const d = 20 * time.Second
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			check := func(err error) {
				if err != nil && !presentable(err.Error()) {
					t.Errorf("error of %d bytes: %.300q", len(err.Error()), err)
				}
			}
			for b, err := range s.Watch(ctx, "greeter") {
				check(err)
				ids := make(map[string]bool)
				for _, e := range b.Put {
					if err := naming.CheckEndpoint(e); err != nil || ids[e.ID] {
						t.Errorf("endpoint %+v: %v", e, err)
					}
					ids[e.ID] = true
				}
			}
			if a.requests > 16+2*int(d/time.Second)+2 {
				t.Errorf("%d requests in %v", a.requests, d)
			}
			for _, err := range s.Services(ctx) {
				check(err)
				break
			}
		})
	})
}
