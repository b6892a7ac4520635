package migrate

import (
	"encoding/json"
	"testing"

	"github.com/naming-go/naming"
)

// metadataSamples are metadata that a mark must not change.
var metadataSamples = []string{
	``, `null`, ` null `, `{}`, ` { } `, `{"a":1}`, ` {"a":1,"a":2} `, `{"a":1.0,"b":1e3}`, `[1,2]`, `"text"`, `7`, `true`,
	`{"naming-copy":1}`, `{"naming-copy":null}`, `{"naming-copy":{"origin":"x","bridge":"y","epoch":3}}`,
	`{"naming\u002dcopy":{"a":1},"b":2}`, `{"a":"\"naming-copy\""}`, `{"":{}}`, `{"<&>":"<&>"}`, `{"\ud800":1}`,
	`{"a":{"naming-copy":1}}`, `{"a":"\\"}`,
}

// checkRoundTrip fails t if Native does not restore the metadata of a copy.
func checkRoundTrip(t *testing.T, metadata string) {
	t.Helper()
	native := naming.Endpoint{ID: "1", Addr: "a:1", Metadata: json.RawMessage(metadata)}
	mark := Mark{Origin: "old", Bridge: "m", Epoch: 7}
	marked, ok := AddMark(native.Metadata, mark)
	c := naming.Endpoint{ID: CopyID("old", "1"), Addr: native.Addr, Metadata: marked}
	if !ok {
		if string(marked) != metadata {
			t.Errorf("AddMark(%q) has no room and returns %q", metadata, marked)
		}
		return
	}
	if got, ok := ReadMark(marked); !ok || got != mark {
		t.Errorf("the mark of %q is %v, %v, want %v", marked, got, ok, mark)
	}
	if !json.Valid(marked) {
		t.Errorf("AddMark(%q) is not JSON: %q", metadata, marked)
	}
	if back, _ := Native(c); !back.Equal(native) {
		t.Errorf("%q became %q with the mark and is %q without the mark", metadata, marked, back.Metadata)
	}
	if again, ok := AddMark(marked, mark); ok {
		c.Metadata = again
		if back, _ := Native(c); !sameMetadata(back.Metadata, marked) {
			t.Errorf("%q is %q after a second mark was added and removed", marked, back.Metadata)
		}
	}
}

func sameMetadata(a, b json.RawMessage) bool {
	return naming.Endpoint{Metadata: a}.Equal(naming.Endpoint{Metadata: b})
}

func TestMarkRoundTrip(t *testing.T) {
	for _, m := range metadataSamples {
		checkRoundTrip(t, m)
	}
}

// A mark that another program wrote in another form is not a mark, and nothing is lost.
func TestForeignMark(t *testing.T) {
	for _, m := range []string{`{"naming-copy":7}`, `{"naming-copy":"x","a":1}`, `{"naming-copy":{"epoch":-1}}`, `{"naming-copy":`} {
		e := naming.Endpoint{ID: CopyID("old", "1"), Metadata: json.RawMessage(m)}
		if native, ok := Native(e); !ok || string(native.Metadata) != m {
			t.Errorf("Native of metadata %q has metadata %q, %v", m, native.Metadata, ok)
		}
		if mark, ok := ReadMark(e.Metadata); ok {
			t.Errorf("ReadMark(%q) = %v", m, mark)
		}
	}
}

func TestCopyID(t *testing.T) {
	for _, id := range []string{"a", "10.0.0.1:80", "~x~y", "~", "a~b", "/"} {
		c := CopyID("old", id)
		if origin, native, ok := ParseCopyID(c); !ok || origin != "old" || native != id {
			t.Errorf("ParseCopyID(%q) = %q, %q, %v", c, origin, native, ok)
		}
	}
	for _, id := range []string{"", "a", "~", "~~", "~old", "~old~", "~~x"} {
		if origin, native, ok := ParseCopyID(id); ok {
			t.Errorf("ParseCopyID(%q) = %q, %q", id, origin, native)
		}
	}
}

func FuzzMark(f *testing.F) {
	for _, m := range metadataSamples {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, m string) {
		raw := json.RawMessage(m)
		ReadMark(raw)
		Native(naming.Endpoint{ID: "~a~b", Metadata: raw})
		if m == "" || json.Valid(raw) {
			checkRoundTrip(t, m)
		}
	})
}
