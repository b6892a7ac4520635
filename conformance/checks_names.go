package conformance

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/naming-go/naming"
)

// nasty are valid names that all differ. A backend that cuts, joins, cleans, folds or
// escapes names without care confuses some of them.
var nasty = []string{
	"a", "ab", "abc", "A", "aB", "AB",
	"a/b", "a/b/c", "a/", "/a", "a//b", "a/./b", "a/../b", "a/b/", "/", "//",
	"a.b", "a-b", "a_b", "a:b", "a;b", "a,b", "a=b", "a&b", "a#b", "a?b", "a*", "a+b", "a@b", "a|b", "a~b", `a\b`,
	".", "..", "...", "../a", "~", "*", "-", "_", "0", "-1",
	"a b", " a", "a ", " ", "a  b",
	"%", "%2F", "%2f", "a%2Fb", "a%2fb", "a%252Fb", "%00", "a%20b",
	"é", "e\u0301", "É", "ß", "ss", "ſ", "s", "S", "K", "k", "\u212a", "世界", "🙂", "\u200b", "\ufeffa", "\u202ea",
	"a\x00", "a\x00b", "\x00", "a\nb", "a\r\nb", "a\tb", "\x1b[0m", "\x7f", "a\u0085",
	"'a'", `"a"`, "`a`", "<a>", "{a}", "[a]", "$a", "${a}", "null", "a,b=c",
}

// nastyNames returns nasty and some long names.
func nastyNames() []string {
	// Far shorter than registries allow, and longer than file names may be.
	return append(slices.Clone(nasty), strings.Repeat("long-", 80)+"1", strings.Repeat("long-", 80)+"2", strings.Repeat("é/", 100))
}

func servicesAreApart(e *env) error {
	names := nastyNames()
	scenes := make([]*scene, len(names))
	for i, name := range names {
		s := e.newScene(name)
		scenes[i] = s
		// The watch starts before the service exists, so that it shows changes of
		// other services.
		s.readers = append(s.readers, e.watch(name, set{}, nil))
	}
	for i, s := range scenes {
		r := s.readers[0]
		if err := r.begun(); err != nil {
			return err
		}
		// The same ID in every service, and an ID that together with the name of
		// the service is the name and the ID in another service.
		changes := add(nil, ep("x", "10.0.0.1:80", strconv.Quote("of "+strconv.Itoa(i))), ep("b/x", "10.0.0.2:80", strconv.Itoa(i)))
		if err := s.apply(changes...); err != nil {
			return err
		}
	}
	if err := sameNames(e, names); err != nil {
		return err
	}
	for _, s := range scenes {
		if err := e.listed(s.service, s.now); err != nil {
			return err
		}
	}
	if err := quietAll(e, scenes); err != nil {
		return err
	}
	// A change of one service changes no other.
	for i, s := range scenes {
		if i%2 == 0 {
			if err := s.apply(del(ep("x", "", ""), ep("b/x", "", ""))...); err != nil {
				return err
			}
		}
	}
	var left []string
	for i, s := range scenes {
		if err := e.listed(s.service, s.now); err != nil {
			return err
		}
		if err := s.during(0); err != nil {
			return err
		}
		if i%2 == 1 {
			left = append(left, s.service)
		}
	}
	return sameNames(e, left)
}

// sameNames returns an error if the list of services is not the one that is wanted.
func sameNames(e *env, want []string) error {
	got, err := e.names()
	if err != nil {
		return err
	}
	want = slices.Sorted(slices.Values(want))
	for _, name := range want {
		if !slices.Contains(got, name) {
			return fmt.Errorf("the list of services lacks %s", brief(name))
		}
	}
	for _, name := range got {
		if !slices.Contains(want, name) {
			return fmt.Errorf("the list of services has %s, which has no endpoints", brief(name))
		}
	}
	return nil
}

// quietAll returns an error if a watch of a service shows a change that was not made.
func quietAll(e *env, scenes []*scene) error {
	e.pause(e.quiet)
	for _, s := range scenes {
		if err := s.during(0); err != nil {
			return err
		}
	}
	return nil
}

func idsRoundTrip(e *env) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	var eps []naming.Endpoint
	for i, id := range nastyNames() {
		eps = append(eps, ep(id, "10.0.0.1:80", strconv.Itoa(i)))
	}
	return roundTrip(s, eps)
}

// roundTrip puts endpoints, and deletes them one by one.
func roundTrip(s *scene, eps []naming.Endpoint) error {
	for some := range slices.Chunk(eps, 20) {
		if err := s.apply(add(nil, some...)...); err != nil {
			return err
		}
	}
	if err := s.e.listed(s.service, s.now); err != nil {
		return err
	}
	for i, ep := range eps {
		if err := s.apply(del(ep)...); err != nil {
			return err
		}
		if i == len(eps)/2 {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	return s.flush()
}

// addresses are addresses that gRPC dials, and some that a backend which parses
// addresses may change.
var addresses = []string{
	"10.0.0.7:9000", "10.0.0.7:1", "10.0.0.7:65535", "10.0.0.7:09000", "10.0.0.7:http",
	"[::1]:9000", "[2001:db8::1]:9000", "[2001:DB8::1]:9000", "[2001:db8:0:0:0:0:0:1]:9000", "[fe80::1%eth0]:9000", "[::ffff:10.0.0.7]:9000", "[::]:9000",
	"unix:run/a.sock", "unix:/run/a.sock", "unix:///run/a.sock", "unix:///run/a%20b.sock", "unix-abstract:a", "unix:",
	"localhost:9000", "a.example.com:443", "a.example.com.:443", "A.Example.com:443", "a_b:80", "例え.jp:80",
	"a.example.com", "::1", "2001:db8::1", "[::1]", "10.0.0.7", ":9000", "dns:///a.example.com:443", "vsock:2:1024", "a:b:c", " 10.0.0.7:80 ",
}

func addressesRoundTrip(e *env) error {
	var eps []naming.Endpoint
	for i, addr := range addresses {
		eps = append(eps, ep("", addr, ""), ep("id-"+strconv.Itoa(i), addr, `{"weight":1}`))
	}
	// An endpoint may have no address.
	eps = append(eps, ep("nowhere", "", ""), ep("nowhere with metadata", "", `{"weight":1}`))
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	return roundTrip(s, eps)
}

// values returns JSON values that all differ. A backend that decodes and encodes them
// without care changes some of them.
func values() []string {
	return []string{
		``, `true`, `false`, `0`, `1`, `1.0`, `1e0`, `-0`, `-0.0`, `-1`, `0.1`, `1e5`, `1E5`, `1e+5`, `1e-7`, `100000`,
		`9007199254740993`, `12345678901234567890`, `-12345678901234567890`, `123456789012345678901234567890.125`, `1e400`, `-1e-400`, `0.10`, `3.14159265358979323846264338327950288`,
		`""`, `"0"`, `"null"`, `"a"`, `" a "`, `"A"`, `"<>&"`, `"&lt;&gt;&amp;"`, `"é"`, `"e\u0301"`, `"世界 🙂"`, `"\u2028\u2029"`, `"\u0000"`, `"\"\\\/\b\f\n\r\t"`, `"\\u00e9"`, `"%20%2F+"`, `"a=b,c;d"`, `"{\"a\":1}"`,
		`[]`, `{}`, `[[]]`, `[{}]`, `[null]`, `[1]`, `[1.0]`, `[1,2]`, `[2,1]`, `{"":""}`, `{"a":null}`, `{"a":1}`, `{"A":1}`, `{"a":1.0}`, `{"a":[1,"1",true,null,{"b":[]}]}`, `{"a b":1,"a/b":2,"a.b":3,"é":4,"a\nb":5,"<":6}`,
		`{"weight":3,"zone":"eu-1a","version":"1.2.3","tags":["x","y"],"draining":true}`,
		`{"weight":"heavy","zone":7,"tags":"x","draining":"no"}`,
		`{"ID":"id","Addr":"10.6.6.6:6","Metadata":{"Op":1},"Op":0,"_id":"x","meta":"y"}`,
		strings.Repeat("[", 100) + strings.Repeat("]", 100),
		strings.Repeat(`{"a":`, 100) + `1` + strings.Repeat(`}`, 100),
		`"` + strings.Repeat("0123456789abcde\u00e9", 256) + `"`,
		`{"` + strings.Repeat("k", 300) + `":"` + strings.Repeat("v", 1000) + `"}`,
		strings.TrimSuffix(`[`+strings.Repeat(`1234567,`, 512), ",") + `]`,
	}
}

func metadataRoundTrip(e *env) error {
	values := values()
	var eps []naming.Endpoint
	for i, metadata := range values {
		eps = append(eps, ep(fmt.Sprintf("id-%02d", i), "10.0.0.1:80", metadata))
	}
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	if err := roundTrip(s, eps); err != nil {
		return err
	}
	// One endpoint gets one value after the other. All differ.
	for _, metadata := range values {
		if err := s.apply(add(nil, ep("one", "10.0.0.1:80", metadata))...); err != nil {
			return err
		}
	}
	// Other spellings of some values.
	for _, metadata := range []string{" {\"a\" :\n1 } ", `"\u00e9\u003c\ud83d\ude42"`, " null ", `{"b":2,"a":1}`} {
		if err := s.apply(add(nil, ep("one", "10.0.0.1:80", metadata))...); err != nil {
			return err
		}
	}
	return s.flush()
}
