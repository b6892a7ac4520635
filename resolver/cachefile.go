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

// The form of a file of the cache: one line with cacheMagic and the checksum of all that
// follows the line, in hexadecimal, and then a cacheContent as JSON.

const cacheMagic = "naming endpoints 1 "

const (
	// maxCacheFile is the largest file that is written or read, in bytes. A larger
	// limit lets a damaged or hostile file cost more memory. A smaller limit leaves
	// endpoints of large services out: an endpoint may have up to
	// naming.MaxMetadata of metadata.
	maxCacheFile = 256 << 20
	// cacheOverhead is an upper bound of what a file has beside the endpoints: the
	// first line and the name of the service.
	cacheOverhead = 64 << 10
)

var errVersion = errors.New("not a cache of this version")

// cacheContent is the content of a file. Endpoints and Withheld are each sorted by ID.
type cacheContent struct {
	Service   string
	Endpoints []json.RawMessage // savedEndpoint
	Withheld  []json.RawMessage `json:",omitempty"` // savedEndpoint with a Reason
}

// savedEndpoint is an endpoint in a file.
type savedEndpoint struct {
	ID             string
	Addr           string
	Metadata       json.RawMessage `json:",omitempty"`
	Draining       bool            `json:",omitempty"`
	NoDrainingMark bool            `json:"NoDrain,omitempty"`
	Reason         naming.Reason   `json:",omitempty"`
	Detail         string          `json:",omitempty"`
}

// newSavedEndpoint returns the form of e in a file.
func newSavedEndpoint(e naming.Endpoint) savedEndpoint {
	return savedEndpoint{ID: e.ID, Addr: e.Addr, Metadata: e.Metadata, Draining: e.Draining, NoDrainingMark: e.NoDrainingMark}
}

// endpoint returns the endpoint of which e is the form in a file.
func (e savedEndpoint) endpoint() naming.Endpoint {
	return naming.Endpoint{ID: e.ID, Addr: e.Addr, Metadata: e.Metadata, Draining: e.Draining, NoDrainingMark: e.NoDrainingMark}
}

// check returns an error if e must not be in a file.
func (e savedEndpoint) check() error {
	switch {
	case e.ID == "":
		return errors.New("no ID")
	case e.Addr == "" && e.Reason == 0:
		return errors.New("no address")
	}
	return naming.CheckEndpoint(e.endpoint())
}

// savedSet is the set of a service in the cache: the usable endpoints and the withheld
// ones, each sorted by ID.
type savedSet struct {
	endpoints []naming.Endpoint
	withheld  []naming.Withheld
}

func (s savedSet) empty() bool { return len(s.endpoints)+len(s.withheld) == 0 }

// encodeCache returns the content of a file, and the errors of the endpoints that were
// left out. An endpoint is left out if it could not be read back. The largest endpoints
// are left out if all together exceed maxCacheFile.
func encodeCache(service string, set savedSet) (data []byte, left []error, err error) {
	var e encoder
	c := cacheContent{Service: service, Endpoints: make([]json.RawMessage, 0, len(set.endpoints))}
	for _, endpoint := range set.endpoints {
		c.Endpoints = e.add(c.Endpoints, newSavedEndpoint(endpoint))
	}
	for _, w := range set.withheld {
		saved := newSavedEndpoint(w.Endpoint)
		saved.Reason, saved.Detail = cmp.Or(w.Reason, naming.Maintenance), naming.SafeText(w.Detail)
		c.Withheld = e.add(c.Withheld, saved)
	}
	if room := maxCacheFile - cacheOverhead; e.size > room {
		n := len(c.Endpoints) + len(c.Withheld)
		c.Endpoints, c.Withheld = fit(room, c.Endpoints, c.Withheld)
		e.left = append(e.left, fmt.Errorf("%d endpoints are larger together than the %d bytes of a file", n, maxCacheFile))
	}
	content, err := marshal(c)
	if err != nil {
		return nil, e.left, err
	}
	sum := sha256.Sum256(content)
	return slices.Concat([]byte(cacheMagic), []byte(hex.EncodeToString(sum[:])), []byte("\n"), content), e.left, nil
}

// encoder encodes the endpoints of a file.
type encoder struct {
	size int     // of all endpoints, with a comma each
	left []error // why endpoints were left out
}

// add appends the JSON of an endpoint to a list, or notes why the endpoint is left out.
func (e *encoder) add(list []json.RawMessage, endpoint savedEndpoint) []json.RawMessage {
	data, err := marshal(endpoint)
	if err == nil {
		err = endpoint.check()
	}
	if err != nil {
		e.left = append(e.left, fmt.Errorf("endpoint %q: %w", naming.SafeText(endpoint.ID), err))
		return list
	}
	e.size += len(data) + 1
	return append(list, data)
}

// marshal returns the JSON of v without the escapes that json.Marshal makes for HTML, so
// that metadata keeps its spelling, except for white space between tokens. Versions that escaped for HTML wrote
// the same format.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// fit returns two lists without the largest elements of both, so that the others take at
// most room bytes, with a comma each.
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
	// No element is kept that is as large as the first one without room.
	keep := func(list []json.RawMessage) []json.RawMessage {
		return slices.DeleteFunc(list, func(e json.RawMessage) bool { return n < len(sizes) && len(e)+1 >= sizes[n] })
	}
	return keep(a), keep(b)
}

// decodeCache returns the set in a file, and the errors of the entries that were left
// out. The set is not empty unless there is an error. An entry that cannot be decoded
// does not spoil the others.
func decodeCache(service string, data []byte) (set savedSet, left []error, err error) {
	c, err := openContent(service, data)
	if err != nil {
		return savedSet{}, nil, err
	}
	var d decoder
	withheld, err := d.decode(c.Withheld)
	if err != nil {
		return savedSet{}, nil, err
	}
	endpoints, err := d.decode(c.Endpoints)
	if err != nil {
		return savedSet{}, nil, err
	}
	ids := make(map[string]bool, len(withheld))
	for _, e := range withheld {
		ids[e.ID] = true
		set.withheld = append(set.withheld, naming.Withheld{Endpoint: e.endpoint(), Reason: e.Reason, Detail: naming.SafeText(e.Detail)})
	}
	for _, e := range endpoints {
		if !ids[e.ID] {
			set.endpoints = append(set.endpoints, e.endpoint())
		}
	}
	switch {
	case !set.empty():
		return set, d.left, nil
	case len(d.left) > 0:
		return savedSet{}, nil, d.left[0]
	default:
		return savedSet{}, nil, errors.New("no endpoints")
	}
}

// openContent checks the first line of a file, and decodes the rest.
func openContent(service string, data []byte) (c cacheContent, err error) {
	rest, ok := bytes.CutPrefix(data, []byte(cacheMagic))
	if !ok {
		return c, errVersion
	}
	hexSum, content, ok := bytes.Cut(rest, []byte("\n"))
	sum := sha256.Sum256(content)
	if !ok || string(hexSum) != hex.EncodeToString(sum[:]) {
		return c, errors.New("wrong checksum")
	}
	if err := json.Unmarshal(content, &c); err != nil {
		return c, err
	}
	if c.Service != service {
		return c, fmt.Errorf("of service %q", naming.SafeText(c.Service))
	}
	return c, nil
}

// decoder decodes the endpoints of a file.
type decoder struct {
	left []error // why entries were left out
}

// decode returns the endpoints of a list. The error is that of a list that is not sorted
// by ID.
func (d *decoder) decode(entries []json.RawMessage) (list []savedEndpoint, err error) {
	last := ""
	for i, entry := range entries {
		var e savedEndpoint
		err := json.Unmarshal(entry, &e)
		if err == nil {
			err = e.check()
		}
		if err != nil {
			d.left = append(d.left, fmt.Errorf("entry %d: %w", i, err))
			continue
		}
		if e.ID <= last {
			return nil, fmt.Errorf("endpoint %q after %q", naming.SafeText(e.ID), naming.SafeText(last))
		}
		last = e.ID
		list = append(list, e)
	}
	return list, nil
}
