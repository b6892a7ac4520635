package httptransport

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestReplayable: the rule is that of net/http, for each of its parts.
func TestReplayable(t *testing.T) {
	stream := func() io.Reader { return io.MultiReader(strings.NewReader("x")) }
	for _, c := range []struct {
		method, header string
		body           io.Reader
		want           bool
	}{
		{"GET", "", nil, true},
		{"", "", nil, true},
		{"OPTIONS", "", nil, true},
		{"TRACE", "", nil, true},
		{"HEAD", "", http.NoBody, true},
		{"GET", "", strings.NewReader("x"), true},
		{"GET", "", stream(), false},
		{"POST", "", nil, false},
		{"PUT", "", nil, false},
		{"DELETE", "", nil, false},
		{"POST", "Idempotency-Key", nil, true},
		{"POST", "X-Idempotency-Key", strings.NewReader("x"), true},
		{"POST", "Idempotency-Key", stream(), false},
	} {
		req, err := http.NewRequest(c.method, "http://greeter/", c.body)
		if err != nil {
			t.Fatal(err)
		}
		req.Method = c.method
		if c.header != "" {
			req.Header[c.header] = nil
		}
		if got := isReplayable(req); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

// countedBody counts the calls of Close.
type countedBody struct {
	io.Reader
	closes int
}

func (b *countedBody) Close() error {
	b.closes++
	return nil
}

// TestBodyOfAttempts: a body that an attempt has read from is not given to another one. An
// attempt that has ended neither reads nor closes the body of the next.
func TestBodyOfAttempts(t *testing.T) {
	source := &countedBody{Reader: strings.NewReader("hello")}
	b := &requestBody{req: &http.Request{Body: source}}
	first, _ := b.next()
	_ = first.Close()
	if !b.rewind() || source.closes != 0 {
		t.Fatalf("the body was closed %d times, or cannot be sent again", source.closes)
	}
	second, _ := b.next()
	if n, err := first.Read(make([]byte, 1)); n != 0 || err != errDetached {
		t.Errorf("the first attempt read %d bytes, %v", n, err)
	}
	_ = first.Close()
	if text, err := io.ReadAll(second); string(text) != "hello" || err != nil {
		t.Errorf("the second attempt read %q, %v", text, err)
	}
	if b.rewind() {
		t.Error("a body that was read can be sent again")
	}
	b.settle()
	if source.closes != 0 {
		t.Error("closed before the attempt closed it")
	}
	_ = second.Close()
	_ = second.Close()
	if source.closes != 1 {
		t.Errorf("closed %d times", source.closes)
	}
}
