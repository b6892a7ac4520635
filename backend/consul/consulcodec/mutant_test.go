package consulcodec

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants bugs that others have had, and checks that a test finds them.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{Name: "dials the protocol that comes first", File: "kratos.go",
			Old: `{"grpc://", "grpcs://"}`, New: `{"http://", "grpc://", "grpcs://"}`, Test: "Golden"},
		{Name: "forgets the other protocols", File: "kratos.go",
			Old: "m.SetAsideEndpoints(urls)", New: "_ = urls", Test: "Golden"},
		{Name: "forgets methods", File: "gomicro.go",
			Old: "d.m.SetAsideEndpoints(d.methods)", New: "_ = d.methods", Test: "Golden"},
		{Name: "forgets what it has no place for", File: "../internal/wire/format.go",
			Old: "		m.meta[name] = old", New: "		_ = old", Test: "Golden"},
		{Name: "drops a tag that it does not understand", File: "gomicro.go",
			Old: "if !understood {", New: "if !understood && strings.ContainsRune(\"tev\", rune(tag[0])) {", Test: "Golden"},
		{Name: "takes any tag for compressed data", File: "gomicro.go",
			Old: " || len(b) < 2 || b[0] != 0x78 || (int(b[0])<<8|int(b[1]))%31 != 0", New: "", Test: "Golden"},
		{Name: "inflates without a bound", File: "gomicro.go",
			Old: "io.LimitReader(r, int64(most)+1)", New: "r", Test: "Bomb"},
		{Name: "has a bound for each tag only", File: "gomicro.go",
			Old: "switch *left -= len(value); {", New: "switch *left = maxInflated - len(value); {", Test: "Bomb"},
		{Name: "takes a version for text whatever it is", File: "gomicro.go",
			Old: "	case !utf8.Valid(value):", New: "	case !utf8.Valid(value) && false:", Test: "Golden"},
		{Name: "takes a host for an address", File: "kratos.go",
			Old: `u.Hostname() == "" || u.Port() == "" || `, New: "", Test: "Golden"},
		{Name: "has IPv6 addresses without brackets", File: "../internal/wire/address.go",
			Old: "	addr := net.JoinHostPort(host, strconv.Itoa(number))", New: "	addr := host + \":\" + strconv.Itoa(number)", Test: "FieldC9"},
		{Name: "takes the tags for a framework for the endpoint's", File: "../internal/wire/decode.go",
			Old: "tags = tags[n:]", New: "tags = tags[0:]", Test: "RoundTripOfPeers"},
		{Name: "puts no URL", File: "kratos.go",
			Old: "return []string{grpcURL(endpointAddr)}", New: "return nil", Test: "PeersSee"},
		{Name: "puts what others cannot inflate", File: "gomicro.go",
			Old: "	_ = w.Close()", New: "", Test: "PeersSee"},
		{Name: "takes a host for one whatever it is", File: "../internal/wire/address.go",
			Old: "	if host == \"\" || strings.ContainsFunc(", New: "	if false && strings.ContainsFunc(", Test: "FieldC9"},
		{Name: "keeps brackets", File: "../internal/wire/address.go",
			Old: "				return inner, nil", New: "				return host, nil", Test: "FieldC9"},
		{Name: "marks in the metadata's place", File: "../internal/wire/encode.go",
			Old: "r.Meta[metaDraining] = \"true\"", New: "r.Meta[\"draining\"] = \"true\"", Test: "FieldI1"},
		{Name: "takes weights of frameworks for text", File: "kratos.go",
			Old: "	m.Number(\"weight\")\n	if at", New: "	if at", Test: "FieldI3"},
	})
}
