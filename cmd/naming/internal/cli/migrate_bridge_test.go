package cli

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// blocked is an output whose reader has stopped to read, until open is closed.
type blocked struct {
	open chan struct{}
	bytes.Buffer
}

func (b *blocked) Write(p []byte) (int, error) {
	<-b.open
	return b.Buffer.Write(p)
}

// TestBridgePrinterBlocked: a reader that does not read stops neither the bridge nor its end.
// The output has the number of the events that the reader has missed.
func TestBridgePrinterBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &blocked{open: make(chan struct{})}
		p := newBridgePrinter(&app{Env: Env{Out: out}, format: asJSON})
		go p.run()
		for range maxEvents + 11 {
			p.print(bridgeEvent{Event: "copied"})
		}
		synctest.Wait()
		for range 10 {
			p.print(bridgeEvent{Event: "copied"})
		}
		begin := time.Now()
		p.stop(time.Second)
		if d := time.Since(begin); d != time.Second {
			t.Errorf("the end took %v", d)
		}
		close(out.open)
		synctest.Wait()
		p.stop(time.Second)
		got := out.String()
		if n := strings.Count(got, `"copied"`); n < maxEvents || !strings.Contains(got, `"event":"dropped","count":`) || !strings.HasSuffix(got, `"event":"stopped"}`+"\n") {
			t.Errorf("%d events of copies, and %.300s", n, got[len(got)-300:])
		}
	})
}

// TestBridgePrinterFailures: an outage is one line in ten seconds, whatever the number of
// services.
func TestBridgePrinterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newBridgePrinter(&app{Env: Env{Out: &out}, format: asJSON})
		go p.run()
		for range 40 {
			p.print(bridgeEvent{Event: "failed", Service: "a", Detail: "down"})
			p.print(bridgeEvent{Event: "failed", Service: "b", Detail: "down"})
			time.Sleep(time.Second)
		}
		p.print(bridgeEvent{Event: "copied", Service: "a"})
		p.stop(time.Second)
		got := out.String()
		if n := strings.Count(got, `"failed"`); n != 4 || strings.Count(got, `"count":20`) != 3 || !strings.Contains(got, `"copied"`) {
			t.Errorf("%d lines of failures:\n%s", n, got)
		}
	})
}
