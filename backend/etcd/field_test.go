package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd/internal/entry"
)

// readEntry returns the endpoint that a Store with this codec reads from a value.
func readEntry(c *Codec, value string) (naming.Endpoint, error) {
	return decode(c, value)
}

// TestFieldE8OtherSchema checks that no codec reads an entry of another format, or an entry
// with the address in its key, as an endpoint without an address.
func TestFieldE8OtherSchema(t *testing.T) {
	values := map[string]string{
		"default": `{"Op":0,"Addr":"a:1","Metadata":{"a":"b"}}`,
		"kratos":  `{"id":"i-1","name":"greeter","version":"v1","metadata":{"a":"b"},"endpoints":["grpc://a:1"]}`,
		"kitex":   `{"network":"tcp","address":"a:1","weight":10,"tags":{"a":"b"}}`,
		"gomicro": `{"name":"greeter","version":"v1","metadata":{"x":"y"},"endpoints":[],"nodes":[{"metadata":{"a":"b"},"id":"i-1","address":"a:1"}]}`,
		"gozero":  `a:1`,
		"gokit":   `http://a:1/path`,
		"jupiter": `{"name":"main","scheme":"grpc","address":"a:1","weight":100,"enable":true,"healthy":true,"metadata":{"a":"b"},"region":"","zone":"","kind":1,"deployment":"","group":"","services":{}}`,
		"dubbo":   `{"ID":"a:1","ServiceName":"greeter","Host":"a","Port":1,"Enable":true,"Healthy":true,"Metadata":{"a":"b"}}`,
		"rpcx":    `weight=10&group=test`,
		"gf":      `{"weight":10}`,
		"nothing": ``, "an object": `{}`, "null": `null`, "a list": `[]`, "metadata": `{"Metadata":{"a":"b"}}`, "text": `up`, "a number": `1`,
		"an ID": `{"ID":"i-1","Metadata":{"a":"b"}}`, "no address": `{"id":"i-1","endpoints":[]}`, "addressless": `{"Addr":null,"address":"","nodes":[{"id":"x"}]}`,
	}
	for name, c := range codecs {
		for other, value := range values {
			e, err := readEntry(c, value)
			if err == nil && e.Addr == "" {
				t.Errorf("%s reads an entry of %s as an endpoint without an address: %s", name, other, show(e))
			}
			if name == other && (err != nil || e.Addr != "a:1") {
				t.Errorf("%s reads its own %s as %s, err %v", name, value, show(e), err)
			}
		}
	}
	// The default format has endpoints without an address, with an explicit "Addr".
	if e, err := readEntry(Default(), `{"Op":0,"Addr":"","Metadata":{"a":"b"}}`); err != nil || e.Addr != "" {
		t.Errorf("an endpoint without an address decodes to %s, err %v", show(e), err)
	}
}

// TestFieldE9Prefix checks that the common prefix of all keys is a path.
func TestFieldE9Prefix(t *testing.T) {
	for _, tt := range []struct{ prefix, root, want string }{
		{"", "", ""},
		{"/naming", "", "/naming/"},
		{"/naming/", "", "/naming/"},
		{"naming", "", "naming/"},
		{"/", "", "/"},
		{"/env", "/microservices/", "/env/microservices/"},
		{"/env/", "/microservices/", "/env//microservices/"},
		{"/env", "kitex/registry-etcd/", "/env/kitex/registry-etcd/"},
		{"/env", "custom", "/env/custom/"},
		{"", "/custom", "/custom/"},
	} {
		if got := keyPrefix(tt.prefix, tt.root); got != tt.want {
			t.Errorf("prefix %q with root %q is %q, want %q", tt.prefix, tt.root, got, tt.want)
		}
	}
	s := offline(t, &Options{Prefix: "/naming"})
	for key, want := range map[string]string{
		"/naming/greeter/a:1": "greeter", "/naming/a/b/c": "a/b", "/naming2/greeter/a:1": "", "/naming": "", "/naminggreeter/a:1": "", "/naming/greeter": "",
		"/naming/" + strings.Repeat("x", naming.MaxServiceName+1) + "/a:1": "",
	} {
		if service, _, _, ok := s.layout.split(key); service != want || ok != (want != "") {
			t.Errorf("%.40q belongs to %q, %v, want %q", key, service, ok, want)
		}
	}
}

// TestFieldE10LastMember checks that of several members with one name, in any case, the
// last member counts in every format. encoding/json does the same.
func TestFieldE10LastMember(t *testing.T) {
	for _, tt := range []struct{ codec, value, addr, metadata string }{
		{"default", `{"Addr":"a:1","addr":"b:2"}`, "b:2", ""},
		{"default", `{"addr":"b:2","Addr":"a:1"}`, "a:1", ""},
		{"default", `{"Addr":"a:1","Addr":"b:2","ADDR":"c:3"}`, "c:3", ""},
		{"default", `{"Addr":"a:1","addr":null}`, "a:1", ""},
		{"default", `{"Addr":"a:1","Metadata":{"x":1},"METADATA":{"y":2}}`, "a:1", `{"y":2}`},
		{"default", `{"Addr":"a:1","Metadata":{"x":1},"metadata":null}`, "a:1", ""},
		{"kratos", `{"id":"1","endpoints":["grpc://a:1"],"ENDPOINTS":["grpc://b:2"],"version":"v1","Version":"v2"}`, "b:2", `{"version":"v2"}`},
		{"kitex", `{"network":"tcp","address":"a:1","Address":"b:2","weight":1,"Weight":2}`, "b:2", `{"weight":2}`},
		{"gomicro", `{"version":"v1","nodes":[{"id":"1","address":"a:1","Address":"b:2"}],"Version":"v2"}`, "b:2", `{"version":"v2"}`},
	} {
		e, err := readEntry(codecs[tt.codec], tt.value)
		if err != nil || e.Addr != tt.addr || !sameValue(string(e.Metadata), tt.metadata) {
			t.Errorf("%s: %s decodes to %s, err %v, want %s %s", tt.codec, tt.value, show(e), err, tt.addr, tt.metadata)
		}
	}
}

// FuzzLikeOldPackage compares the default format's readers with the old package's
// reader, which decodes a naming.Update with encoding/json.
func FuzzLikeOldPackage(f *testing.F) {
	for _, line := range golden(f, "default") {
		f.Add([]byte(line[0]))
	}
	for _, s := range []string{
		`{"Addr":"a:1","addr":"b:2"}`, `{"Op":0,"Addr":"a","Metadata":1}`, `{"\u0041ddr":"a:1"}`, `{"Op":0,"Addr":"a","Metadata":null,"Draining":true}`,
		`{"Op":null,"Addr":"a:1"}`, `{"Addr":"a:1","Metadata":1e999}`, `{"Addr":"a:1","Metadata":{"a":1,"a":2}}`, `{"Addr":"\ud800"}`, `{"op":1,"OP":-1}`,
		"{\"Addr\":\"a:1\",\"Metadat\u0101\":1}", `{"Addr":"a:1","Op":1.0}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		if err := likeOldPackage(value); err != nil {
			t.Fatal(err)
		}
	})
}

// TestFieldE10Mixed compares the same readers on objects whose members have many names,
// spellings and wrong types.
func TestFieldE10Mixed(t *testing.T) {
	names := []string{"Op", "op", "Addr", "addr", "ADDR", `\u0041ddr`, "Metadata", "metadata", "METADATA", "Metadat\u0101", "Extra", "Draining", "ID", "id", ""}
	values := []string{"0", "1", "null", "-1", "300", "1.5", `"a:1"`, `"b:2"`, `""`, `"\ud800"`, `{"a":1,"a":2}`, "[1,2]", "true", "1e999", "{}", "nul", `"x`}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		var members []string
		for range rnd.IntN(6) {
			members = append(members, `"`+names[rnd.IntN(len(names))]+`":`+values[rnd.IntN(len(values))])
		}
		if err := likeOldPackage([]byte("{" + strings.Join(members, ",") + "}")); err != nil {
			t.Error(err)
		}
	}
}

// likeOldPackage returns an error if a reader of the default format and the old package
// decode a value differently.
func likeOldPackage(value []byte) error {
	var want naming.Update
	wantErr := json.Unmarshal(value, &want)
	for name, decode := range map[string]func(service, tail string, value []byte) (naming.Endpoint, error){"Store": decodeUpdate, "GRPCResolver": decodePlain} {
		e, err := decode(service, "a", value)
		if wantErr != nil {
			var number *json.UnmarshalTypeError
			if err == nil && !(errors.As(wantErr, &number) && strings.HasPrefix(number.Value, "number ") && number.Field != "Op") {
				return fmt.Errorf("%s: %q decodes to %s, and encoding/json returns the error %v", name, value, show(e), wantErr)
			}
			continue // A number that does not fit into a float64 keeps its spelling.
		}
		if err != nil {
			if want.Addr != "" && utf8.Valid(value) {
				return fmt.Errorf("%s: %q: error %v, and encoding/json returns %+v", name, value, err, want)
			}
			continue // The documentation says that such values are left out.
		}
		metadata := e.Metadata
		if name == "Store" {
			metadata, _ = entry.RevealMembers(metadata, func(json.RawMessage, string, json.RawMessage) bool { return true })
		}
		var got any
		if len(metadata) > 0 {
			if err := json.Unmarshal(metadata, &got); err != nil {
				return fmt.Errorf("%s: %q has metadata %s: %v", name, value, metadata, err)
			}
		}
		if e.Addr != want.Addr || !reflect.DeepEqual(got, want.Metadata) {
			return fmt.Errorf("%s: %q decodes to %s, and with encoding/json to %+v", name, value, show(e), want)
		}
	}
	return nil
}

// TestFieldI9Deep checks that with Options.Deep every key below a service's path belongs
// to the service, and that the ID is the unescaped rest of the key.
func TestFieldI9Deep(t *testing.T) {
	value := []byte(`{"Op":0,"Addr":"a:1","Metadata":null}`)
	deep := offline(t, &Options{Deep: true}).layout
	flat := offline(t, nil).layout
	for _, tt := range []struct {
		tail string
		flat bool
	}{{"one", true}, {"sub/two", false}, {"a/b/c", false}, {"unix:/run/a.sock", false}, {"50%", true}, {"%2F", true}, {"x/", false}} {
		e, id, mine, err := deep.entry("off/svc", tt.tail, value)
		if !mine || err != nil || id != tt.tail || e.ID != tt.tail || !deep.sure(tt.tail) {
			t.Errorf("deep: %q has ID %q, mine %v, err %v", tt.tail, id, mine, err)
		}
		if key := deep.key("off/svc", id); key != "off/svc/"+tt.tail {
			t.Errorf("deep: the key of endpoint %q is %q", id, key)
		}
		if _, ok := deep.rawKey("off/svc", id); ok {
			t.Errorf("deep: endpoint %q has two keys", id)
		}
		if _, _, mine, _ := flat.entry("off/svc", tt.tail, value); mine != tt.flat {
			t.Errorf("without the option, %q belongs to the service: %v, want %v", tt.tail, mine, tt.flat)
		}
	}
	if _, _, mine, err := deep.entry("off/svc", "", value); !mine || err == nil {
		t.Errorf("a key without an ID: mine %v, err %v", mine, err)
	}
	if service, tail, unsure, ok := deep.split("off/svc/unix:/run/two"); service != "off/svc/unix:/run" || tail != "two" || unsure || !ok {
		t.Errorf("split returns %q, %q, unsure %v, ok %v", service, tail, unsure, ok)
	}
}

// TestFieldLimits checks that an entry with an invalid endpoint is malformed in every
// format. So is an entry that is too deep in a part that the endpoint does not have.
func TestFieldLimits(t *testing.T) {
	long, deepest := strings.Repeat("x", naming.MaxAddr), strings.Repeat("[", naming.MaxDepth)+strings.Repeat("]", naming.MaxDepth)
	quote := func(s string) string { return string(entry.AppendString(nil, s)) }
	for _, tt := range []struct {
		name, codec, value string
		good               bool
	}{
		{"the longest address", "default", `{"Addr":` + quote(long) + `}`, true},
		{"a longer one", "default", `{"Addr":` + quote(long+"x") + `}`, false},
		{"an address that steers a terminal", "default", `{"Addr":"h\u001b[31m:1"}`, false},
		{"an address with NUL", "kitex", `{"network":"tcp","address":"h\u0000:1"}`, false},
		{"a line end", "kratos", `{"id":"1","endpoints":["grpc://h\n:1"]}`, false},
		{"a direction mark", "gomicro", `{"nodes":[{"id":"1","address":"h\u202e:1"}]}`, false},
		{"a bare address that steers", "gozero", "h\x1b:1", false},
		{"the deepest metadata", "default", `{"Addr":"a:1","Metadata":` + deepest + `}`, true},
		{"deeper", "default", `{"Addr":"a:1","Metadata":[` + deepest + `]}`, false},
		{"deeper, with the canonical spelling", "default", `{"Op":0,"Addr":"a:1","Metadata":[` + deepest + `]}`, false},
		{"a bomb", "default", `{"Op":0,"Addr":"a:1","Metadata":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`, false},
		{"an open bomb", "default", `{"Op":0,"Addr":"a:1","Metadata":` + strings.Repeat("[", 100_000), false},
		{"a bomb beside it", "default", `{"Addr":"a:1","Extra":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + `}`, false},
		{"a bomb in a map of strings", "kratos", `{"id":"1","endpoints":["grpc://a:1"],"metadata":{"naming.metadata":` + quote(strings.Repeat("[", 9_000)+strings.Repeat("]", 9_000)) + `}}`, false},
		{"a large one", "default", `{"Addr":"a:1","Metadata":` + quote(strings.Repeat("x", naming.MaxMetadata)) + `}`, false},
	} {
		e, err := readEntry(codecs[tt.codec], tt.value)
		if (err == nil) != tt.good {
			t.Errorf("%s: err %v, address %.40q", tt.name, err, e.Addr)
		}
		if err != nil && len(err.Error()) > 3*naming.MaxText {
			t.Errorf("%s: the error has %d bytes, more than %d", tt.name, len(err.Error()), 3*naming.MaxText)
		}
	}
	l := &layout{codec: Default()}
	value := []byte(`{"Op":0,"Addr":"a:1","Metadata":null}`)
	for tail, good := range map[string]bool{
		strings.Repeat("x", naming.MaxID): true, strings.Repeat("x", naming.MaxID+1): false, "": false, "\xff": false, "%2F": true,
	} {
		if _, _, mine, err := l.entry(service, tail, value); !mine || (err == nil) != good {
			t.Errorf("an ID of %d bytes: mine %v, err %v", len(tail), mine, err)
		}
	}
	// The old package puts an update without an address under a key without a tail.
	plain := &layout{codec: &Codec{Encode: encodeUpdate, Decode: decodePlain, valid: true}, plain: true}
	var ids []string
	for _, tail := range []string{"", "/", "//", "a", "a/"} {
		e, _, mine, err := plain.entry(service, tail, value)
		if !mine || err != nil || e.ID == "" || slices.Contains(ids, e.ID) {
			t.Errorf("GRPCResolver: %q has ID %q, mine %v, err %v", tail, e.ID, mine, err)
		}
		ids = append(ids, e.ID)
	}
	// The Store itself checks the metadata that a foreign codec returns.
	bad := &layout{codec: &Codec{Decode: func(_, _ string, value []byte) (naming.Endpoint, error) {
		return naming.Endpoint{Addr: "a:1", Metadata: value}, nil
	}}}
	for metadata, good := range map[string]bool{`{"a":1}`: true, `{"a":`: false, "\xff": false} {
		if _, _, _, err := bad.entry(service, "a:1", []byte(metadata)); (err == nil) != good {
			t.Errorf("metadata %q: err %v", metadata, err)
		}
	}
}
