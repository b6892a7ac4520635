package serve

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/naming-go/naming"
)

// EnvPrefix is the default beginning of the variables of [Options.FillFromEnv].
const EnvPrefix = "NAMING_"

// maxStopTimeout is the longest NAMING_STOP_TIMEOUT.
const maxStopTimeout = 24 * time.Hour

// FillFromEnv sets the options that are not set yet from environment variables. What the
// program has set wins. An empty variable counts as not set.
//
//	variable               option             value
//	NAMING_ADDR            Addr               host:port that clients dial
//	NAMING_HOST_ENV        Host               name of a variable: HostFromEnv
//	NAMING_HOST_INTERFACE  Host               name of an interface: HostOfInterface
//	NAMING_HOST_ROUTE      Host               host:port: HostOnRouteTo
//	NAMING_ID              ID                 text
//	NAMING_METADATA        Metadata           JSON
//	NAMING_WEIGHT          "weight" in it     number above 0
//	NAMING_ZONE            "zone" in it       text
//	NAMING_VERSION         "version" in it    text
//	NAMING_TAGS            "tags" in it       texts, separated by commas
//	NAMING_TTL             Register.TTL       duration from 1s to 24h
//	NAMING_DRAIN_DELAY     Register.DrainDelay     duration up to 1h; 0s: none
//	NAMING_CLOSE_TIMEOUT   Register.CloseTimeout   duration above 0, up to 2h
//	NAMING_STOP_TIMEOUT    StopTimeout        duration up to 24h; 0s: calls are cut off
//	NAMING_READY_EVERY     ReadyEvery         duration from 10ms to 1h
//
// Durations are as in [time.ParseDuration]. Members mean the same as in
// [naming.EndpointInfo]. Variables have the names of the flags of the command naming.
//
// Addr and Host count as one option: if the program has set either, the four variables of
// the address have no effect. The environment may have one of the four. A member of the
// program's Metadata wins over a variable of its own. A member of NAMING_METADATA that also
// has a variable of its own is an error.
//
// The error is [naming.ErrInvalid] and names the variable. The options are unchanged then.
// Other variables are ignored, since programs share the prefix: the command naming reads
// NAMING_STORE. A program with several servers uses another prefix for each, such as
// "NAMING_HTTP_". An empty prefix means [EnvPrefix]. FillFromEnv replaces o.Register by a
// changed copy. It must not be called concurrently with a use of o.
func (o *Options) FillFromEnv(prefix string) error {
	if prefix == "" {
		prefix = EnvPrefix
	}
	e := environment{prefix: prefix}
	d := *o
	e.address(&d)
	if d.ID == "" {
		d.ID, _ = e.get("ID")
	}
	e.metadata(&d)
	e.durations(&d)
	if e.err != nil {
		return e.err
	}
	*o = d
	return nil
}

// environment reads variables. It keeps the first error.
type environment struct {
	prefix string
	err    error
}

// get returns the value of a variable that is set and not empty.
func (e *environment) get(name string) (value string, ok bool) {
	value = os.Getenv(e.prefix + name)
	return value, value != ""
}

// fail notes what is wrong with a variable.
func (e *environment) fail(name, format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf("%w: environment variable %s: %w", naming.ErrInvalid, e.prefix+name, fmt.Errorf(format, args...))
	}
}

// address sets Addr or Host.
func (e *environment) address(o *Options) {
	if o.Addr != "" || o.Host != nil {
		return
	}
	first := ""
	for _, v := range []struct {
		name string
		set  func(string)
	}{
		{"ADDR", func(s string) { o.Addr = s }},
		{"HOST_ENV", func(s string) { o.Host = HostFromEnv(s) }},
		{"HOST_INTERFACE", func(s string) { o.Host = HostOfInterface(s) }},
		{"HOST_ROUTE", func(s string) { o.Host = HostOnRouteTo(s) }},
	} {
		value, ok := e.get(v.name)
		if !ok {
			continue
		}
		if first != "" {
			e.fail(v.name, "%s is set too: remove one of them", e.prefix+first)
		}
		first = v.name
		v.set(value)
	}
	if o.Addr != "" {
		if err := naming.CheckAddress(o.Addr); err != nil {
			e.fail("ADDR", "%w", err)
		}
	}
}

// metadata sets Metadata and its reserved members.
func (e *environment) metadata(o *Options) {
	own := o.Metadata != nil
	if value, ok := e.get("METADATA"); ok && !own {
		if o.Metadata = json.RawMessage(value); !json.Valid(o.Metadata) {
			e.fail("METADATA", "not JSON")
			return
		}
	}
	for _, m := range []struct{ name, member string }{
		{"WEIGHT", "weight"}, {"ZONE", "zone"}, {"VERSION", "version"}, {"TAGS", "tags"},
	} {
		text, ok := e.get(m.name)
		if !ok {
			continue
		}
		var members map[string]json.RawMessage
		if len(o.Metadata) > 0 && json.Unmarshal(o.Metadata, &members) != nil {
			e.fail(m.name, "the metadata is not a JSON object, and has no place for the member %q", m.member)
			return
		}
		if _, set := members[m.member]; set {
			if !own {
				e.fail(m.name, "%sMETADATA has a member %q too", e.prefix, m.member)
			}
			continue
		}
		value, err := parseMember(m.name, text)
		if err != nil {
			e.fail(m.name, "%w", err)
			return
		}
		if members == nil { // no metadata yet, or null
			members = make(map[string]json.RawMessage)
		}
		members[m.member] = value
		if o.Metadata, err = json.Marshal(members); err != nil {
			e.fail(m.name, "%w", err)
			return
		}
	}
}

// parseMember returns the JSON value of a reserved member.
func parseMember(name, text string) (json.RawMessage, error) {
	switch name {
	case "WEIGHT":
		w, err := strconv.ParseFloat(text, 64)
		if err != nil || !(w > 0) || math.IsInf(w, 0) {
			return nil, fmt.Errorf("%.40q is not a number above 0", text)
		}
		return json.Marshal(w)
	case "TAGS":
		tags := strings.Split(text, ",")
		for i := range tags {
			if tags[i] = strings.TrimSpace(tags[i]); tags[i] == "" {
				return nil, fmt.Errorf("%.40q has an empty tag", text)
			}
		}
		return json.Marshal(tags)
	}
	return json.Marshal(text)
}

// durations sets the options that are durations.
func (e *environment) durations(o *Options) {
	var reg naming.RegisterOptions
	if o.Register != nil {
		reg = *o.Register
	}
	e.duration("TTL", &reg.TTL, time.Second, 24*time.Hour)
	e.duration("DRAIN_DELAY", &reg.DrainDelay, 0, time.Hour)
	e.duration("CLOSE_TIMEOUT", &reg.CloseTimeout, 1, 2*time.Hour)
	e.duration("STOP_TIMEOUT", &o.StopTimeout, 0, maxStopTimeout)
	e.duration("READY_EVERY", &o.ReadyEvery, minReadyEvery, maxReadyEvery)
	o.Register = &reg
}

// duration sets *d if it is 0. Options read 0 as the default, and a negative value as no
// time. An operator who writes 0 means no time.
func (e *environment) duration(name string, d *time.Duration, low, high time.Duration) {
	text, ok := e.get(name)
	if !ok || *d != 0 {
		return
	}
	v, err := time.ParseDuration(text)
	switch {
	case err != nil:
		e.fail(name, "%.40q is not a duration such as 15s", text)
	case v < low || v > high:
		e.fail(name, "%v is not between %v and %v", v, low, high)
	case v == 0:
		*d = -1
	default:
		*d = v
	}
}
