package actor

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	Main(map[string]Role{
		"echo": func(commands <-chan json.RawMessage, tell func(any)) error {
			for c := range commands {
				os.Stdout.WriteString("this is not an event\n")
				tell(c)
			}
			return nil
		},
		"panic": func(<-chan json.RawMessage, func(any)) error { panic("as it may happen") },
		"error": func(<-chan json.RawMessage, func(any)) error { return errors.New("as it may happen") },
	})
	os.Exit(m.Run())
}

func TestEcho(t *testing.T) {
	events := make(chan string)
	p, err := Start("echo", func(e json.RawMessage) { events <- string(e) })
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"a"`, `"b"`} {
		if err := p.Send(json.RawMessage(want)); err != nil {
			t.Fatal(err)
		}
		if got := <-events; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if err := p.Err(); err != nil {
		t.Errorf("it has ended: %v", err)
	}
	p.Close()
	<-p.Done()
}

func TestEnds(t *testing.T) {
	for _, role := range []string{"panic", "error", "nobody knows this one"} {
		p, err := Start(role, func(json.RawMessage) {})
		if err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		if err := p.Err(); err == nil || role != "nobody knows this one" && !strings.Contains(err.Error(), "as it may happen") {
			t.Errorf("%s: %v", role, err)
		}
		p.Close()
	}
}
