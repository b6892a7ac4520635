package resolver

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/naming-go/naming"
)

const cacheMagic = "naming endpoints 1 "

// cacheContent is what a file says. Endpoints and Withheld are each sorted by ID.
type cacheContent struct {
	Service   string
	Endpoints []json.RawMessage // savedEndpoint
	Withheld  []json.RawMessage `json:",omitempty"` // savedEndpoint with a Reason
}

// savedEndpoint is an endpoint in a file.
type savedEndpoint struct {
	ID       string
	Addr     string
	Metadata json.RawMessage `json:",omitempty"`
	Draining bool            `json:",omitempty"`
	NoDrain  bool            `json:",omitempty"`
	Reason   naming.Reason   `json:",omitempty"`
	Detail   string          `json:",omitempty"`
}

// savedSet is the set of a service as the cache keeps it: the endpoints that may
// be used, and those that the registry withholds, each sorted by ID.
type savedSet struct {
	endpoints []naming.Endpoint
	withheld  []naming.Withheld
}

func (s savedSet) empty() bool { return len(s.endpoints)+len(s.withheld) == 0 }

// encodeCache returns the content of a file, and the errors of the endpoints that
// were left out. An endpoint is left out if it could not be read back, and the
// largest ones are left out if all together exceed maxCacheFile.
func encodeCache(service string, set savedSet) (data []byte, left []error, err error) {
	total := 0
	encode := func(list []json.RawMessage, e savedEndpoint) []json.RawMessage {
		data, err := marshal(e)
		if err == nil {
			err = checkSaved(e)
		}
		if err != nil {
			left = append(left, fmt.Errorf("endpoint %q: %w", naming.SafeText(e.ID), err))
			return list
		}
		total += len(data) + 1
		return append(list, data)
	}
	c := cacheContent{Service: service, Endpoints: make([]json.RawMessage, 0, len(set.endpoints))}
	for _, e := range set.endpoints {
		c.Endpoints = encode(c.Endpoints, savedEndpoint{ID: e.ID, Addr: e.Addr, Metadata: e.Metadata, Draining: e.Draining, NoDrain: e.NoDrain})
	}
	for _, w := range set.withheld {
		e := w.Endpoint
		c.Withheld = encode(c.Withheld, savedEndpoint{ID: e.ID, Addr: e.Addr, Metadata: e.Metadata, Draining: e.Draining, NoDrain: e.NoDrain,
			Reason: cmp.Or(w.Reason, naming.Maintenance), Detail: naming.SafeText(w.Detail)})
	}
	if room := maxCacheFile - cacheOverhead; total > room {
		n := len(c.Endpoints) + len(c.Withheld)
		c.Endpoints, c.Withheld = fit(room, c.Endpoints, c.Withheld)
		left = append(left, fmt.Errorf("%d endpoints are larger together than the %d bytes of a file", n, maxCacheFile))
	}
	content, err := marshal(c)
	if err != nil {
		return nil, left, err
	}
	sum := sha256.Sum256(content)
	return slices.Concat([]byte(cacheMagic), []byte(hex.EncodeToString(sum[:])), []byte("\n"), content), left, nil
}

// marshal returns the JSON of v without the escapes that json.Marshal makes for
// HTML: metadata is saved with the bytes that the registry has.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// fit returns two lists without the largest elements of both, so that what remains
// has room bytes with a comma each.
func fit(room int, a, b []json.RawMessage) (_, _ []json.RawMessage) {
	sizes := make([]int, 0, len(a)+len(b))
	for _, e := range slices.Concat(a, b) {
		sizes = append(sizes, len(e)+1)
	}
	slices.Sort(sizes)
	n := 0
	for n < len(sizes) && sizes[n] <= room {
		room -= sizes[n]
		n++
	}
	// Of those that are as large as the first that has no room, none is kept.
	keep := func(list []json.RawMessage) []json.RawMessage {
		return slices.DeleteFunc(list, func(e json.RawMessage) bool { return n < len(sizes) && len(e)+1 >= sizes[n] })
	}
	return keep(a), keep(b)
}

// checkSaved returns an error if an endpoint has no place in a file.
func checkSaved(e savedEndpoint) error {
	switch {
	case e.ID == "":
		return errors.New("no ID")
	case e.Addr == "" && e.Reason == 0:
		return errors.New("no address")
	}
	return naming.CheckEndpoint(e.endpoint())
}

func (e savedEndpoint) endpoint() naming.Endpoint {
	return naming.Endpoint{ID: e.ID, Addr: e.Addr, Metadata: e.Metadata, Draining: e.Draining, NoDrain: e.NoDrain}
}

// decodeCache returns the set in a file, which is not empty, and the errors of the
// entries that were left out: one that cannot be understood spoils no other.
func decodeCache(service string, data []byte) (set savedSet, left []error, err error) {
	rest, ok := bytes.CutPrefix(data, []byte(cacheMagic))
	if !ok {
		return set, nil, errVersion
	}
	hexSum, content, ok := bytes.Cut(rest, []byte("\n"))
	sum := sha256.Sum256(content)
	if !ok || string(hexSum) != hex.EncodeToString(sum[:]) {
		return set, nil, errors.New("wrong checksum")
	}
	var c cacheContent
	if err := json.Unmarshal(content, &c); err != nil {
		return set, nil, err
	}
	if c.Service != service {
		return set, nil, fmt.Errorf("of service %q", naming.SafeText(c.Service))
	}
	decode := func(entries []json.RawMessage, take func(savedEndpoint)) error {
		last := ""
		for i, entry := range entries {
			var e savedEndpoint
			err := json.Unmarshal(entry, &e)
			if err == nil {
				err = checkSaved(e)
			}
			if err != nil {
				left = append(left, fmt.Errorf("entry %d: %w", i, err))
				continue
			}
			if e.ID <= last {
				return fmt.Errorf("endpoint %q after %q", naming.SafeText(e.ID), naming.SafeText(last))
			}
			last = e.ID
			take(e)
		}
		return nil
	}
	withheld := make(map[string]bool)
	err = decode(c.Withheld, func(e savedEndpoint) {
		withheld[e.ID] = true
		set.withheld = append(set.withheld, naming.Withheld{Endpoint: e.endpoint(), Reason: e.Reason, Detail: naming.SafeText(e.Detail)})
	})
	if err == nil {
		err = decode(c.Endpoints, func(e savedEndpoint) {
			if !withheld[e.ID] {
				set.endpoints = append(set.endpoints, e.endpoint())
			}
		})
	}
	switch {
	case err != nil:
	case !set.empty():
		return set, left, nil
	case len(left) > 0:
		err = left[0]
	default:
		err = errors.New("no endpoints")
	}
	return savedSet{}, nil, err
}

var errVersion = errors.New("not a cache of this version")
