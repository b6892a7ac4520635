package cli

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// hostileTexts are texts that a format could print as they are, misread or refuse.
var hostileTexts = []string{
	"\x1b[2J", "\u009b31m", "a\u202eb", "\u2066", "\x7f", "\u0085", "\u2028\u2029", "a\nb\r\n", "\t", "\x00", "\ufeff", "\ufeffx",
	"\U000e0041", "\U0001f600", "\ufffe", "\u00a0", "é", "no", "Y", "12:30", "1e3", "0x1f", "null", "~", "", " ", "- a", "a: b", "# a",
	"{", "2026-11-29T19:51:52Z", "2026-11-29", `"\u202e"`, "'", "%a", "@", "|", strings.Repeat("x y ", 200),
}

// Both formats return what they got, and every character of both prints.
func TestEncodeHostileTexts(t *testing.T) {
	want := map[string]any{"list": []any{}, "object": map[string]any{}, "null": nil, "true": true, "number": 1.5}
	var texts []any
	for _, text := range hostileTexts {
		want[text+"="], texts = text, append(texts, text)
	}
	want["texts"] = texts
	for name, got := range encodings(t, want) {
		if !reflect.DeepEqual(got, any(want)) {
			t.Errorf("%s has changed the document to\n%q", name, got)
		}
	}
}

// encodings encodes a document in all formats, and returns what a reader gets.
func encodings(t *testing.T, doc any) map[string]any {
	t.Helper()
	read := make(map[string]any)
	for name, format := range map[string]struct {
		encode func() ([]byte, error)
		decode func([]byte, any) error
	}{
		"line": {func() ([]byte, error) { return encodeJSON(doc, "") }, json.Unmarshal},
		"json": {func() ([]byte, error) { return encodeJSON(doc, "  ") }, json.Unmarshal},
		"yaml": {func() ([]byte, error) { return encodeYAML(doc) }, yaml.Unmarshal},
	} {
		b, err := format.encode()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if i := bytes.IndexFunc(b, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%s has the character %q", name, b[i:min(i+4, len(b))])
		}
		var got any
		if err := format.decode(b, &got); err != nil {
			t.Errorf("%s cannot be read: %v", name, err)
		}
		read[name] = got
	}
	return read
}

// Metadata of other programs may contain escapes of JSON that YAML does not have.
func TestEncodeMetadata(t *testing.T) {
	doc := struct {
		Metadata json.RawMessage `json:"metadata"`
	}{json.RawMessage(`{"a":"\ud83d\ude00\/","b":12345678901234567890,"c":1E5,"d":"` + "\xff" + `"}`)}
	b, err := encodeYAML(doc)
	if err != nil {
		t.Fatal(err)
	}
	const want = "metadata:\n  a: \"\\U0001F600/\"\n  b: 12345678901234567890\n  c: 1E5\n  d: \ufffd\n"
	if string(b) != want {
		t.Errorf("the YAML is\n%q, want\n%q", b, want)
	}
	if b, err = encodeJSON(doc, ""); err != nil || !json.Valid(b) {
		t.Errorf("the JSON is %q, error %v", b, err)
	}
}
