package consulcodec

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/internal/wire"
	"github.com/naming-go/naming/backend/consul/internal/wire/wiretest"
)

// codecs are all codecs, by the names of their golden files.
var codecs = map[string]*consul.Codec{"kratos": Kratos(), "gomicro": GoMicro(), "grpcspring": GRPCSpring()}

// format returns the format of a codec, which may be nil.
func format(c *consul.Codec) *wire.Format {
	if c == nil {
		return nil
	}
	return c.Format
}

// golden reads the lines of a golden file. A line has an entry as Consul returns it after
// the framework's own code has registered a service, a tab, and the endpoint as JSON. In
// the place of the endpoint there may be a part of the expected error.
func golden(t testing.TB, name string) (lines [][2]string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "golden", name))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		entry, want, ok := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		if !ok {
			t.Fatalf("%s: no tab in %q", name, line)
		}
		lines = append(lines, [2]string{entry, want})
	}
	return lines
}

// tripWith fails the test if an endpoint that is put with a codec does not come back when
// it is read with any codec.
func tripWith(t *testing.T, name string, e naming.Endpoint) {
	t.Helper()
	changes, err := naming.Normalize("s", []naming.Change{{Endpoint: e}})
	if err != nil {
		t.Fatalf("%s: %+v: %v", name, e, err)
	}
	e = changes[0].Endpoint
	r, err := wiretest.Encode(t, e, 7, format(codecs[name]))
	if err != nil {
		if len(e.Metadata)+len(e.ID)+len(e.Addr) < 12_000 {
			t.Errorf("%s: %q %q %.200s: %v", name, e.ID, e.Addr, e.Metadata, err)
		}
		return
	}
	i := wiretest.Stored(t, r)
	for _, c := range []*consul.Codec{nil, Kratos(), GoMicro(), GRPCSpring()} {
		if got, err := i.Endpoint(wire.Rules{Format: format(c)}); err != nil || !got.Equal(e) {
			t.Errorf("%s: got %q %q %.1000s, %v\nwant %q %q %.1000s", name, got.ID, got.Addr, got.Metadata, err, e.ID, e.Addr, e.Metadata)
		}
	}
	// Without the keys of a Store, the entry is what a program of the framework would
	// have registered. That entry must be understood too, if its address can be dialled.
	for key := range i.Service.Meta {
		if strings.HasPrefix(key, "naming-") {
			delete(i.Service.Meta, key)
		}
	}
	if got, err := i.Endpoint(wire.Rules{Format: format(codecs[name])}); dialable(e.Addr) && (err != nil || got.Addr != e.Addr) {
		t.Errorf("%s: read as another's, %q %.500s has address %q, %v", name, e.Addr, e.Metadata, got.Addr, err)
	}
}

func dialable(addr string) bool {
	_, _, ok := wire.SplitAddr(addr)
	return ok
}

func TestGolden(t *testing.T) {
	for name, c := range codecs {
		for _, line := range golden(t, name) {
			entry, want := line[0], line[1]
			i := wiretest.Parse(t, entry)
			got, err := i.Endpoint(wire.Rules{Format: format(c)})
			if !strings.HasPrefix(want, "{") {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %.2000s\nis %+v, %v, want an error with %q in it", name, entry, got, err, want)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %.2000s: %v", name, entry, err)
				continue
			}
			var w naming.Endpoint
			if err := json.Unmarshal([]byte(want), &w); err != nil {
				t.Fatal(err)
			}
			if !got.Equal(w) {
				t.Errorf("%s: %.2000s\nis   %s %s %s\nwant %s %s %s", name, entry, got.ID, got.Addr, got.Metadata, w.ID, w.Addr, w.Metadata)
			}
			tripWith(t, name, got)
			if len(i.Checks) == 0 {
				continue // no program of the framework has registered it
			}
			// A program of the framework reads the same from a copy.
			r, err := wiretest.Encode(t, got, 1, format(c))
			if err != nil {
				t.Fatal(err)
			}
			copied := wiretest.Stored(t, r)
			if a, b := asPeer(t, name, i), asPeer(t, name, copied); a != b {
				t.Errorf("%s: %.2000s\nsays   %s\na copy %s", name, entry, a, b)
			}
		}
	}
}

// asPeer returns what a program of the framework reads from an entry.
func asPeer(t *testing.T, name string, i *wire.Entry) string {
	t.Helper()
	var version string
	var endpoints []string
	metadata := make(map[string]string)
	switch s := i.Service; name {
	case "kratos":
		for _, tag := range s.Tags {
			if v, ok := strings.CutPrefix(tag, "version="); ok {
				version = v
			}
		}
		endpoints = slices.Sorted(maps.Values(s.TaggedAddresses))
		if len(endpoints) == 0 && s.Address != "" {
			endpoints = []string{fmt.Sprintf("http://%s:%d", s.Address, s.Port)}
		}
		maps.Copy(metadata, s.Meta)
		// These keys are for other readers.
		maps.DeleteFunc(metadata, func(key, _ string) bool { return key == "version" || strings.HasPrefix(key, "naming-") })
	case "grpcspring":
		port := fmt.Sprint(s.Port)
		if p, ok := springPort(i); ok {
			port = p
		}
		endpoints = []string{s.Address + " " + port}
		maps.Copy(metadata, s.Meta)
		maps.DeleteFunc(metadata, func(key, _ string) bool { return key == "gRPC_port" || strings.HasPrefix(key, "naming-") })
	case "gomicro":
		for _, tag := range slices.Backward(s.Tags) {
			value := inflated(t, tag)
			switch tag[0] {
			case 'v':
				version = value
			case 'e':
				endpoints = append(endpoints, value)
			case 't':
				if err := json.Unmarshal([]byte(value), &metadata); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return fmt.Sprintf("%q %q %q", version, endpoints, metadata)
}

// inflated returns the value of a tag of go-micro's, empty for any other tag.
func inflated(t *testing.T, tag string) string {
	if tag[1] == '=' {
		return tag[2:]
	}
	b, err := hex.DecodeString(tag[2:])
	if err != nil {
		return ""
	}
	r, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return ""
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRoundTripOfPeers(t *testing.T) {
	values := append([]string{
		`{"version":"v1","zone":"a","tags":["x","version=2"]}`, `{"version":1}`, `{"version":""}`, `{"@entry":1}`, `{"@entry":{"endpoints":1}}`,
		`{"@entry":{"endpoints":["grpc://10.0.0.1:80","http://10.0.0.1:81","http://10.0.0.1:82","%"]}}`, `{"@entry":{"endpoints":["http://10.0.0.2:81"]}}`,
		`{"@entry":{"endpoints":["grpc://"]}}`, `{"@entry":{"endpoints":[{"name":"a"},1,null]}}`, `{"@entry":{"endpoints":[null]},"naming-peer":"1"}`,
		`{"@entry":{"Meta":{"a":"b"}},"tags":["v=1","t={}","v-10"]}`,
	}, wiretest.Values...)
	for name := range codecs {
		for _, metadata := range values {
			for _, addr := range []string{"", "10.0.0.1:80", "[::1]:80", "[fe80::1%eth0]:80", "unix:/a", "0.0.0.0:80", "h:0", "h"} {
				tripWith(t, name, naming.Endpoint{ID: "id", Addr: addr, Metadata: json.RawMessage(metadata)})
			}
		}
	}
}

// TestPeersSee: programs of a framework read what a Store has put.
func TestPeersSee(t *testing.T) {
	e := naming.Endpoint{ID: "a", Addr: "[2001:db8::7]:9000", Metadata: json.RawMessage(`{"version":"v1","zone":"é","weight":3,"tags":["canary"]}`)}
	for name, want := range map[string]string{
		"kratos":     `"v1" ["grpc://[2001:db8::7]:9000"] map["weight":"3" "zone":"é"]`,
		"gomicro":    `"v1" [] map["weight":"3" "zone":"é"]`,
		"grpcspring": `"" ["2001:db8::7 9000"] map["version":"v1" "zone":"é"]`,
	} {
		r, err := wiretest.Encode(t, e, 1, format(codecs[name]))
		if err != nil {
			t.Fatal(err)
		}
		if got := asPeer(t, name, wiretest.Stored(t, r)); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if !slices.Contains(r.Tags, "canary") || r.Weights.Passing != 3 || r.Address != "2001:db8::7" || r.Port != 9000 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestBomb: tags that expand to far more than Consul holds are malformed, and take little
// memory.
func TestBomb(t *testing.T) {
	long := func(n int) string { return deflate(`{"a":"` + strings.Repeat("x", n-8) + `"}`) }
	for _, test := range []struct {
		tags []string
		ok   bool
	}{
		{[]string{"e-" + long(maxInflated)}, true},
		{[]string{"e-" + long(maxInflated+1)}, false},
		{[]string{"e-" + long(maxInflated/2), "e-" + long(maxInflated/2)}, true},
		{[]string{"e-" + long(maxInflated/2), "e-" + long(maxInflated/2), "v-" + deflate("1")}, false},
	} {
		var i wire.Entry
		i.Service.ID, i.Service.Address, i.Service.Port, i.Service.Tags = "x", "h", 1, test.tags
		if _, err := i.Endpoint(wire.Rules{Format: GoMicro().Format}); err == nil != test.ok {
			t.Errorf("%d tags of %d bytes: %v", len(test.tags), len(test.tags[0]), err)
		}
	}
	var i wire.Entry
	i.Service.Tags = []string{"e-" + deflate(strings.Repeat("x", 64<<20))}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := i.Endpoint(wire.Rules{Format: GoMicro().Format}); err == nil {
		t.Error("no error")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("a bomb of %d bytes took %d bytes of memory", len(i.Service.Tags[0]), n)
	}
}

// FuzzPeers: no entry causes a panic, and an endpoint that was read survives being put
// again.
func FuzzPeers(f *testing.F) {
	for name := range codecs {
		for _, line := range golden(f, name) {
			f.Add([]byte(line[0]))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, c := range codecs {
			var i wire.Entry
			if json.Unmarshal(b, &i) != nil {
				return
			}
			e, err := i.Endpoint(wire.Rules{Format: format(c)})
			if err != nil || e.ID == "" && e.Addr == "" || strings.ContainsRune(e.ID, 0) {
				continue
			}
			tripWith(t, name, e)
		}
	})
}

// FuzzPeersEncode: any endpoint makes the round trip.
func FuzzPeersEncode(f *testing.F) {
	for _, metadata := range wiretest.Values {
		f.Add("10.0.0.1:80", metadata)
	}
	f.Fuzz(func(t *testing.T, addr, metadata string) {
		changes, err := naming.Normalize("s", []naming.Change{{Endpoint: naming.Endpoint{ID: "id", Addr: addr, Metadata: json.RawMessage(metadata)}}})
		if err != nil {
			return
		}
		for name := range codecs {
			tripWith(t, name, changes[0].Endpoint)
		}
	})
}
