package consulcodec

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// GoMicro returns the format of go-micro's Consul registry:
//
//	ID             greeter-1
//	Name           greeter
//	Address, Port  127.0.0.1, 9000
//	Tags           t-789c…, e-789c…, v-789c…
//
// The tags are compressed data in hexadecimal. Each tag t- is JSON with a part of the
// metadata. Each tag e- is JSON with an endpoint in go-micro's sense, a method. The
// tag v- is the version, which is not JSON. The older form with plain tags
// (t={"zone":"a"}) is read too. The metadata consists of Meta and of the tags. The
// version is its member "version", and methods are the member "endpoints" of "@entry".
// Tags of another form, and tags that contradict Meta, are the member "tags".
//
// A Store puts such tags for the members of the metadata that are strings. The weight,
// a number in the metadata, is a string there and in Meta. An entry is malformed if a
// tag of it is compressed data that is not of this form, or if its tags expand to more
// than half a megabyte.
func GoMicro() *consul.Codec {
	return &consul.Codec{Format: &wire.Format{Decode: decodeGoMicro, Encode: encodeGoMicro}}
}

// maxInflated is the largest size that the tags of an entry expand to, in bytes.
const maxInflated = naming.MaxMetadata / 2

func decodeGoMicro(entry *wire.Entry, ep *naming.Endpoint) error {
	d := goMicroDecoder{m: entry.Members(), left: maxInflated}
	tags := d.m.Tags
	d.m.Tags = nil
	for _, tag := range tags {
		understood, err := d.decodeTag(tag)
		if err != nil {
			return fmt.Errorf("tag %.40q: %w", tag, err)
		}
		if !understood {
			d.m.Tags = append(d.m.Tags, tag)
		}
	}
	d.m.Number("weight")
	if len(d.methods) > 0 {
		d.m.SetAsideEndpoints(d.methods)
	}
	ep.Metadata = d.m.Metadata()
	return nil
}

// goMicroDecoder decodes the tags of one entry.
type goMicroDecoder struct {
	m       *wire.Members
	methods []json.RawMessage
	version bool // a tag with the version has been decoded
	left    int  // how many bytes the remaining tags may expand to
}

// decodeTag reports whether the metadata has all that the tag says.
func (d *goMicroDecoder) decodeTag(tag string) (understood bool, err error) {
	kind, value, err := goMicroTag(tag, &d.left)
	if err != nil {
		return false, err
	}
	switch kind {
	case 't':
		var pairs map[string]string
		if err := json.Unmarshal(value, &pairs); err != nil {
			return false, err
		}
		understood = len(pairs) > 0
		for key, s := range pairs {
			understood = d.m.Says(key, s) && understood
		}
	case 'e':
		if _, ok := wire.Object(value); !ok {
			return false, errors.New("not a JSON object")
		}
		d.methods = append(d.methods, json.RawMessage(wire.Compact(value)))
		understood = true
	case 'v':
		understood = !d.version && (len(value) == 0 || d.m.Says("version", string(value)))
		d.version = true
	}
	return understood, nil
}

// goMicroTag returns the kind and the value of a tag of go-micro's, and kind 0 for any
// other tag. It subtracts the size of an inflated value from left.
func goMicroTag(tag string, left *int) (kind byte, value []byte, err error) {
	if len(tag) < 2 || !strings.Contains("tev", tag[:1]) {
		return 0, nil, nil
	}
	switch kind = tag[0]; {
	case tag[1] == '=' && (kind == 'v' || strings.HasPrefix(tag[2:], "{")):
		return kind, []byte(tag[2:]), nil
	case tag[1] != '-':
		return 0, nil, nil
	}
	// Other programs have tags like v-10. The first two bytes are the header of zlib,
	// which distinguishes the two kinds.
	b, err := hex.DecodeString(tag[2:])
	if err != nil || len(b) < 2 || b[0] != 0x78 || (int(b[0])<<8|int(b[1]))%31 != 0 {
		return 0, nil, nil
	}
	value, err = inflate(b, *left)
	switch *left -= len(value); {
	case err != nil:
		return 0, nil, err
	case *left < 0:
		return 0, nil, fmt.Errorf("the tags have more than %d bytes", maxInflated)
	case !utf8.Valid(value):
		return 0, nil, errors.New("not UTF-8")
	}
	return kind, value, nil
}

func encodeGoMicro(ep naming.Endpoint, r *api.AgentServiceRegistration) (peer []string) {
	members, tags, methods := wire.Parts[json.RawMessage](ep.Metadata)
	if w, ok := wire.Weight(members); ok {
		r.Meta["weight"] = w
		members["weight"] = json.RawMessage(wire.Marshal(w))
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if s, ok := wire.Text(members, name); ok && name != "version" {
			peer = append(peer, "t-"+deflate(wire.Marshal(map[string]string{name: s})))
		}
	}
	for _, m := range methods {
		if _, ok := wire.Object(m); ok {
			peer = append(peer, "e-"+deflate(wire.Compact(m)))
		}
	}
	left := maxInflated
	if !slices.ContainsFunc(tags, func(tag string) bool { kind, _, _ := goMicroTag(tag, &left); return kind == 'v' }) {
		version, _ := wire.Text(members, "version")
		peer = append(peer, "v-"+deflate(version))
	}
	return peer
}

// deflaters and inflaters are reused, as each has several times the memory of all the
// tags of an entry: a writer has 800 kB and a reader 40 kB.
var (
	deflaters = sync.Pool{New: func() any { return zlib.NewWriter(nil) }}
	inflaters sync.Pool // without New: zlib.NewReader reads a header at once
)

// deflate returns the compressed form of s in hexadecimal.
func deflate(s string) string {
	var b bytes.Buffer
	w := deflaters.Get().(*zlib.Writer)
	defer deflaters.Put(w)
	w.Reset(&b)
	_, _ = io.WriteString(w, s) // to memory
	_ = w.Close()
	return hex.EncodeToString(b.Bytes())
}

// inflate returns the first most+1 bytes of the compressed b at most.
func inflate(b []byte, most int) ([]byte, error) {
	r, err := newInflater(b)
	if err != nil {
		return nil, err
	}
	defer inflaters.Put(r)
	return io.ReadAll(io.LimitReader(r, int64(most)+1))
}

func newInflater(b []byte) (io.ReadCloser, error) {
	r, ok := inflaters.Get().(io.ReadCloser)
	if !ok {
		return zlib.NewReader(bytes.NewReader(b))
	}
	if err := r.(zlib.Resetter).Reset(bytes.NewReader(b), nil); err != nil {
		return nil, err
	}
	return r, nil
}
