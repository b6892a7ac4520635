package consul

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants bugs that others have had, and asks the tests that need no
// agent to notice.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{Name: "goes on with an index that went backwards", File: "watch.go",
			Old: "			index, vain = 0, true\n			continue", New: "			index, vain = a.index, true\n			continue", Test: "IndexRules"},
		{Name: "shows what came with an index that went backwards", File: "watch.go",
			Old: "			index, vain = 0, true\n			continue", New: "			a.index = 0", Test: "IndexRules"},
		{Name: "asks with index 0 and so never waits", File: "read.go",
			Old: "all, max(meta.LastIndex, 1)", New: "all, meta.LastIndex", Test: "IndexRules"},
		{Name: "takes any replica's word for a snapshot", File: "read.go",
			Old: "RequireConsistent: !s.opts.AllowStale, ", New: "", Test: "IndexRules"},
		{Name: "waits for an answer for ever", File: "read.go",
			Old: "context.WithTimeout(ctx, bound)", New: "context.WithTimeout(ctx, 100*bound)", Test: "IndexRules"},
		{Name: "asks as often as it is answered", File: "pace.go",
			Old: "	return sleep(ctx, d)\n}\n\nfunc sleep", New: "	return sleep(ctx, d/100)\n}\n\nfunc sleep", Test: "HotAnswers"},
		{Name: "asks as often when there is no news", File: "pace.go",
			Old: "if vain {", New: "if false {", Test: "HotAnswers"},
		{Name: "reads a large service as often as one server changes", File: "pace.go",
			Old: "max(p.any.take(now), p.rest.Sub(now))", New: "p.any.take(now)", Test: "Rests"},
		{Name: "rests the longer the larger the service is", File: "pace.go",
			Old: "min(time.Duration(n)*entryRest, maxRest)", New: "time.Duration(n) * entryRest", Test: "Rests"},
		{Name: "is woken by what is no news", File: "read.go",
			Old: "old == nil || !old.endpoint.Equal(r.endpoint)", New: "true || old == nil", Test: "HotAnswers"},
		{Name: "reads twice what it has just read", File: "hub.go",
			Old: "missed := f.since.hub != h", New: "missed := true", Test: "SharedReadsOnce"},
		{Name: "overlooks what changed while it read", File: "hub.go",
			Old: "missed := f.since.hub != h", New: "missed := f.since.hub != h\n	f.since = h.mark()", Test: "SharedReadsOnce"},
		{Name: "has weights that Consul refuses", File: "codec.go",
			Old: "n == 0 || n > maxWeight || ", New: "n == 0 || ", Test: "RoundTrip"},
		{Name: "cuts a character in two", File: "codec.go",
			Old: "!utf8.RuneStart(value[n])", New: "false", Test: "RoundTrip"},
		{Name: "makes nothing of an empty list of tags", File: "codec.go",
			Old: "len(list) == 0 || ", New: "", Test: "RoundTrip"},
		{Name: "lets a member take the place of a key of ours", File: "codec.go",
			Old: "!strings.HasPrefix(lower, reserved) && ", New: "", Test: "RoundTrip"},
		{Name: "does not tell an escaped name from a plain one", File: "names.go",
			Old: "if plain(name) && !isEscaped(name) {", New: "if plain(name) {", Test: "Names"},

		{Name: "dials the protocol that comes first", File: "peers.go",
			Old: `{"grpc://", "grpcs://"}`, New: `{"http://", "grpc://", "grpcs://"}`, Test: "Golden"},
		{Name: "forgets the other protocols", File: "peers.go",
			Old: "f.aside[endpointsMember] = json.RawMessage(marshal(list))", New: "_ = list", Test: "Golden"},
		{Name: "forgets methods", File: "peers.go",
			Old: "f.aside[endpointsMember] = json.RawMessage(marshal(methods))", New: "_ = methods", Test: "Golden"},
		{Name: "forgets what it has no place for", File: "peers.go",
			Old: "		e.meta[name] = old", New: "		_ = old", Test: "Golden"},
		{Name: "drops a tag that it does not understand", File: "peers.go",
			Old: "if !understood {", New: "if !understood && kind != 0 {", Test: "Golden"},
		{Name: "takes any tag for compressed data", File: "peers.go",
			Old: " || len(b) < 2 || b[0] != 0x78 || (int(b[0])<<8|int(b[1]))%31 != 0", New: "", Test: "Golden"},
		{Name: "inflates without a bound", File: "peers.go",
			Old: "io.LimitReader(r, int64(*left)+1)", New: "r", Test: "Bomb"},
		{Name: "has a bound for each tag only", File: "peers.go",
			Old: "switch *left -= len(value); {", New: "switch *left = maxInflated - len(value); {", Test: "Bomb"},
		{Name: "takes a version for text whatever it is", File: "peers.go",
			Old: "	case !utf8.Valid(value):", New: "	case false:", Test: "Golden"},
		{Name: "takes a host for an address", File: "peers.go",
			Old: `u.Hostname() == "" || u.Port() == "" || `, New: "", Test: "Golden"},
		{Name: "has IPv6 addresses without brackets", File: "codec.go",
			Old: "	return net.JoinHostPort(host, strconv.Itoa(i.Service.Port))", New: "	return host + \":\" + strconv.Itoa(i.Service.Port)", Test: "Golden"},
		{Name: "does not know of a service without an address", File: "codec.go",
			Old: "		host = i.Node.Address", New: "", Test: "Golden"},
		{Name: "takes the tags for a framework for the endpoint's", File: "codec.go",
			Old: "tags = tags[n:]", New: "tags = tags[0:]", Test: "RoundTripOfPeers"},
		{Name: "puts no URL", File: "peers.go",
			Old: "list = []string{grpcURL(e.Addr)}", New: "", Test: "PeersSee"},
		{Name: "puts what others cannot inflate", File: "peers.go",
			Old: "	_ = w.Close()", New: "", Test: "PeersSee"},
		{Name: "does not see where a tag ends", File: "codec.go",
			Old: "		number(len(s))\n", New: "", Test: "Digest"},
		{Name: "overlooks that a URL has changed", File: "codec.go",
			Old: "	object(s.TaggedAddresses)\n", New: "", Test: "URLChanges"},
	})
}

// TestMutantsOnAgents plants bugs that only a real agent shows, and so only at
// full length.
func TestMutantsOnAgents(t *testing.T) {
	mutant.Run(t, ".", 0, []mutant.Mutant{
		{Name: "overlooks the tag", File: "read.go",
			Old: " || !v.store.tagged(i)", New: "", Test: "TagOfNewest"},
		{Name: "lets an old registration with the tag count", File: "read.go",
			Old: "		r := &seen[n]", New: "		if !v.store.tagged(i) {\n			continue\n		}\n		r := &seen[n]", Test: "TagOfNewest"},
		{Name: "narrows by nodes at first only", File: "read.go",
			Old: "		NodeMeta:   s.opts.NodeMeta,", New: "", Test: "Narrow"},
		{Name: "overlooks that warnings count", File: "store.go",
			Old: "return s.opts.IncludeWarning", New: "return false", Test: "Narrow"},
		{Name: "needs a leader to read what is stale", File: "read.go",
			Old: "AllowStale: s.opts.AllowStale, RequireConsistent", New: "RequireConsistent", Test: "AllowStale"},
		{Name: "reads its own datacenter", File: "calls.go",
			Old: "token, s.opts.Datacenter,", New: `token, "",`, Test: "Datacenter"},
		{Name: "reads the default namespace", File: "calls.go",
			Old: "s.opts.Partition, s.opts.Namespace\n	return q.WithContext", New: "\"\", \"\"\n	return q.WithContext", Test: "Enterprise"},
		{Name: "hides the cause of an error", File: "watch.go",
			Old: `fmt.Errorf("consul: watch %q: %w"`, New: `fmt.Errorf("consul: watch %q: %v"`, Test: "TLS"},
		{Name: "puts one pair more than Consul takes", File: "codec.go",
			Old: "maxPairs = 64", New: "maxPairs = 65", Test: "Limits"},
		{Name: "puts longer values than Consul takes", File: "codec.go",
			Old: "maxValue = 512", New: "maxValue = 513", Test: "Limits"},
		{Name: "puts longer keys than Consul takes", File: "codec.go",
			Old: "maxKey   = 128", New: "maxKey   = 129", Test: "Limits"},
		{Name: "does not report what a codec refuses", File: "peers.go",
			Old: "	addr, err := kratosAddr(list)\n	if err != nil {\n		return err\n	}\n	if addr", New: "	addr, _ := kratosAddr(list)\n	if addr", Test: "BesidePeers"},
	})
}
