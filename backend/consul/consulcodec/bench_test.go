package consulcodec

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul/internal/wire"
	"github.com/naming-go/naming/backend/consul/internal/wire/wiretest"
)

// BenchmarkGoMicro encodes and decodes an endpoint with 20 members, each of which is a
// tag of compressed data.
func BenchmarkGoMicro(b *testing.B) {
	var members []string
	for i := range 20 {
		members = append(members, fmt.Sprintf("%q:%q", fmt.Sprint("key", i), strings.Repeat("value", i)))
	}
	e := naming.Endpoint{ID: "a", Addr: "10.0.0.1:80", Metadata: json.RawMessage("{" + strings.Join(members, ",") + "}")}
	format := GoMicro().Format
	r, err := wire.Encode(e, format)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := wire.Encode(e, format); err != nil {
				b.Fatal(err)
			}
		}
	})
	foreign := wiretest.Stored(b, r)
	for key := range foreign.Service.Meta {
		delete(foreign.Service.Meta, key)
	}
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := foreign.Endpoint(wire.Rules{Format: format}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
