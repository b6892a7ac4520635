package serve

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/cmd/naming/internal/hub"
	"github.com/naming-go/naming/cmd/naming/internal/hub/hubtest"
)

const prometheusConfig = `
global: {scrape_interval: 1h}
scrape_configs:
- job_name: naming
  http_sd_configs: [{url: "%s/prometheus/targets", refresh_interval: 1s}]
  relabel_configs:
  - {source_labels: [__meta_naming_service], target_label: service}
  - {source_labels: [__meta_naming_state], regex: withheld, action: drop}
`

// startPrometheus runs a Prometheus on the targets of a server until the test ends. It returns
// the URL of Prometheus.
func startPrometheus(t *testing.T, server string) string {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, prometheusConfig, server), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	logs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: scripts/setup.sh installs Prometheus", err)
	}
	addr, done := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(done)
		listening := regexp.MustCompile(`msg="Listening on" address=(\S+)`)
		for lines := bufio.NewScanner(logs); lines.Scan(); {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				addr <- m[1]
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	select {
	case a := <-addr:
		return "http://" + a
	case <-done:
		t.Fatal("Prometheus has ended")
	case <-time.After(time.Minute):
		t.Fatal("Prometheus does not listen")
	}
	return ""
}

// activeTargets returns the targets of a Prometheus, as service and address, sorted.
func activeTargets(t *testing.T, prometheus string) []string {
	t.Helper()
	resp, err := http.Get(prometheus + "/api/v1/targets?state=active")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc struct {
		Data struct {
			ActiveTargets []struct {
				DiscoveredLabels, Labels map[string]string
			}
		}
	}
	if resp.StatusCode != http.StatusOK {
		return nil // Prometheus is not ready.
	}
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	targets := []string{}
	for _, a := range doc.Data.ActiveTargets {
		if a.DiscoveredLabels["__meta_naming_id"] == "" {
			t.Fatalf("the target %v has no ID", a)
		}
		targets = append(targets, a.Labels["service"]+" "+a.Labels["instance"])
	}
	slices.Sort(targets)
	return targets
}

func TestPrometheusHasTheTargetsOfTheRegistry(t *testing.T) {
	w := start(t, new(memory.Store), hub.Options{})
	at := func(id, addr string) naming.Change {
		return naming.Change{Endpoint: naming.Endpoint{ID: id, Addr: addr, Metadata: json.RawMessage(`{"zone":"z","tags":["a","b"]}`)}}
	}
	w.Put(t, "a", at("1", "127.0.0.1:1"), at("2", "[::1]:1"), at("3", "127.0.0.1:3"))
	w.Put(t, "team/b", at("1", "127.0.0.1:1"), at("socket", "unix:/run/b.sock"))
	prometheus := startPrometheus(t, w.URL)
	want := func(targets ...string) {
		t.Helper()
		hubtest.Eventually(t, fmt.Sprintf("the targets are %q", targets), func() bool { return slices.Equal(activeTargets(t, prometheus), targets) })
	}
	want("a 127.0.0.1:1", "a 127.0.0.1:3", "a [::1]:1", "team/b 127.0.0.1:1")
	w.Store.Withhold("a", "3", naming.FailedCheck, "refused")
	w.Put(t, "c", at("new", "127.0.0.1:4"))
	want("a 127.0.0.1:1", "a [::1]:1", "c 127.0.0.1:4", "team/b 127.0.0.1:1")

	// A registry that fails changes nothing.
	w.Store.Down(errors.New("down"))
	hubtest.Eventually(t, "the answers are stale", func() bool { resp, _ := w.Get(t, "/readyz"); return resp.Header.Get("Naming-Stale") == "true" })
	refreshes := w.refreshes.Load()
	hubtest.Eventually(t, "Prometheus has read the targets again", func() bool { return w.refreshes.Load() > refreshes+1 })
	want("a 127.0.0.1:1", "a [::1]:1", "c 127.0.0.1:4", "team/b 127.0.0.1:1")
	w.Store.Up()
	w.Put(t, "a", naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: "1"}})
	// The last endpoint of a service is held when it vanishes, unless it drains.
	w.Put(t, "c", naming.Change{Endpoint: naming.Endpoint{ID: "new", Addr: "127.0.0.1:4", Draining: true}})
	hubtest.Eventually(t, "the endpoint drains", func() bool { _, body := w.Get(t, "/v1/services/c"); return strings.Contains(body, `"draining":1`) })
	w.Put(t, "c", naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: "new"}})
	want("a [::1]:1", "team/b 127.0.0.1:1")
}
