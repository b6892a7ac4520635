package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Documents contain texts from a registry, and a terminal may show them. A terminal obeys
// control characters, and characters that change the direction of text hide what stands there.
// So both formats escape every character that does not print. A reader of JSON or YAML gets
// the same text as without the escapes.

// encodeJSON returns a document as JSON, with a line end. An empty indent means one line.
func encodeJSON(doc any, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(doc); err != nil {
		return nil, err
	}
	return escape(b.Bytes(), func(r rune) string {
		if high, low := utf16.EncodeRune(r); high != unicode.ReplacementChar {
			return fmt.Sprintf(`\u%04x\u%04x`, high, low)
		}
		return fmt.Sprintf(`\u%04x`, r)
	}), nil
}

// encodeYAML returns a document as YAML. The members have the order of the JSON.
func encodeYAML(doc any) ([]byte, error) {
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	node, err := yamlNode(dec)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(node), enc.Close()); err != nil {
		return nil, err
	}
	return escape(out.Bytes(), func(r rune) string {
		if r > 0xffff {
			return fmt.Sprintf(`\U%08x`, r)
		}
		return fmt.Sprintf(`\u%04x`, r)
	}), nil
}

// escape replaces the characters that do not print, but for line ends.
func escape(b []byte, replace func(rune) string) []byte {
	safe := func(r rune) bool { return r == '\n' || unicode.IsPrint(r) }
	if bytes.IndexFunc(b, func(r rune) bool { return !safe(r) }) < 0 && utf8.Valid(b) {
		return b
	}
	var out bytes.Buffer
	for _, r := range string(b) {
		if safe(r) {
			out.WriteRune(r)
		} else {
			out.WriteString(replace(r))
		}
	}
	return out.Bytes()
}

// yamlNode reads the next value of a JSON text.
func yamlNode(dec *json.Decoder) (*yaml.Node, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	n := new(yaml.Node)
	switch t := t.(type) {
	case json.Delim:
		if n.Kind = yaml.SequenceNode; t == '{' {
			n.Kind = yaml.MappingNode
		}
		for dec.More() {
			// The names of the members of an object are tokens among the values.
			part, err := yamlNode(dec)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, part)
		}
		if len(n.Content) == 0 {
			n.Style = yaml.FlowStyle
		}
		_, err = dec.Token()
		return n, ignoreEOF(err)
	case string:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!str", t
		if mustQuote(t) {
			n.Style = yaml.DoubleQuotedStyle
		}
	case nil:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!null", "null"
	default: // a number, true or false
		n.Kind, n.Value = yaml.ScalarNode, fmt.Sprint(t)
	}
	return n, nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// otherInYAML11 are texts that YAML 1.1 reads as true or false, and numbers of the base 60.
var otherInYAML11 = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)$`)

// mustQuote reports whether a text needs quotes besides those that package yaml adds: for the
// escapes of characters that do not print, and for readers of YAML 1.1.
func mustQuote(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || otherInYAML11.MatchString(s)
}
