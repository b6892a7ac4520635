package balancer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	grpcbalancer "google.golang.org/grpc/balancer"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/internal/pick"
)

// Name is the name of the policy in a service config.
const Name = "naming"

// DefaultZoneFactor is the default of Config.ZoneFactor. The number is Envoy's:
// https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/overprovisioning
const DefaultZoneFactor = pick.DefaultZoneFactor

// The values of Config.Pick.
const (
	// Weighted spreads the calls over the endpoints by weight. It is the default.
	Weighted = "weighted"
	// LeastLoaded chooses two endpoints by weight, and takes the one that has less to
	// do.
	LeastLoaded = "least_loaded"
)

// MaxName is the maximum length of Config.Zone and Config.Client, in bytes.
const MaxName = 256

// Config is the configuration of the policy, and its JSON form in a service config. The
// zero value spreads the calls by weight.
//
// gRPC ignores members of a service config that it does not know. The parser of this
// policy returns an error for such a member of its configuration, because a misspelt
// "zone" would otherwise have no effect, silently. A program that parses a configuration
// for newer versions of this package must therefore not be older.
type Config struct {
	// Pick says how the endpoint of a call is chosen: [Weighted] or [LeastLoaded].
	// Empty means Weighted.
	Pick string `json:"pick,omitempty"`

	// Zone is the zone of this program. Calls go to endpoints with the same zone in
	// their metadata as far as these can take them. Empty means that zones have no
	// effect.
	Zone string `json:"zone,omitempty"`

	// ZoneFactor is how many times the load of an even spread the endpoints of the own
	// zone may get:
	//
	//	share of the own zone = min(1, ZoneFactor * zones * own / all)
	//
	// where own is the total weight of the connected endpoints in the own zone, all
	// the total weight of all connected endpoints, and zones the number of zones that
	// they are in. The rest of the calls goes to the endpoints of all other zones, by
	// weight.
	//
	// The formula assumes that the callers are spread evenly over the zones. A higher
	// factor keeps more calls in a zone that has lost endpoints. A lower factor
	// protects the endpoints that are left. 1 makes all endpoints of all zones equally
	// loaded. 0 means [DefaultZoneFactor].
	ZoneFactor float64 `json:"zoneFactor,omitempty"`

	// Subset is the number of endpoints that a ClientConn connects to, of a service
	// that has more. An endpoint that cannot be reached is replaced by another, and is
	// tried again as gRPC does. The connections of the whole fleet are
	//
	//	ClientConns * min(Subset, endpoints)
	//
	// A larger subset spreads the calls of a ClientConn, and the loss of an endpoint,
	// more evenly. A smaller subset saves connections. 0 means no limit.
	//
	// A subset is chosen without regard to zones and weights. Both apply to the calls
	// within the subset. With a Zone, choose a Subset of at least ten times the number
	// of zones. If weights differ much, the calls of all clients together follow the
	// weights only roughly.
	Subset int `json:"subset,omitempty"`

	// Client is a name of this program for the choice of the subset, such as the name
	// of its host. Programs with different names have different subsets. A program
	// that keeps its name keeps its subset over a restart. An endpoint that comes or
	// goes changes at most one endpoint of each subset (rendezvous hashing). The
	// number of clients of each endpoint varies as in a random choice. Empty means a
	// random name for each ClientConn.
	Client string `json:"client,omitempty"`

	// ClientNumber is the number of this program among the clients of the service,
	// counted from 0, such as the ordinal of a StatefulSet's pod. It replaces Client,
	// and makes the numbers of clients of all endpoints nearly equal. An endpoint that
	// comes or goes changes at most two endpoints of each subset.
	ClientNumber *int `json:"clientNumber,omitempty"`
}

// Check returns an error if the configuration is not valid. The error is
// [naming.ErrInvalid], and names the member.
func (c Config) Check() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: load balancing policy %q: "+format, append([]any{naming.ErrInvalid, Name}, args...)...)
	}
	name := func(member, value string) error {
		switch {
		case len(value) > MaxName:
			return fail("%s has %d bytes, more than %d", member, len(value), MaxName)
		case !utf8.ValidString(value):
			return fail("%s %q is not UTF-8", member, value)
		}
		return nil
	}
	if c.Pick != "" && c.Pick != Weighted && c.Pick != LeastLoaded {
		return fail("pick %q is neither %q nor %q", naming.SafeText(c.Pick), Weighted, LeastLoaded)
	}
	if err := name("zone", c.Zone); err != nil {
		return err
	}
	if err := name("client", c.Client); err != nil {
		return err
	}
	switch {
	case !(c.ZoneFactor >= 0) || math.IsInf(c.ZoneFactor, 0):
		return fail("zoneFactor %v is not a positive number", c.ZoneFactor)
	case c.ZoneFactor > 0 && c.ZoneFactor < 1:
		return fail("zoneFactor %v is less than 1, which would avoid the own zone", c.ZoneFactor)
	case c.ZoneFactor > 0 && c.Zone == "":
		return fail("zoneFactor has no effect without zone")
	case c.Subset < 0 || c.Subset > math.MaxInt32:
		return fail("subset %d is negative or too large", c.Subset)
	case c.Client != "" && c.ClientNumber != nil:
		return fail("client and clientNumber exclude each other")
	case c.ClientNumber != nil && *c.ClientNumber < 0:
		return fail("clientNumber %d is negative", *c.ClientNumber)
	case c.Subset == 0 && (c.Client != "" || c.ClientNumber != nil):
		return fail("client and clientNumber have no effect without subset")
	}
	return nil
}

// ServiceConfig returns a service config with this policy, for ServiceConfig in the Options
// of package resolver or for grpc.WithDefaultServiceConfig. gRPC returns the error of
// [Config.Check] for the service config of a Config that is not valid.
func (c Config) ServiceConfig() string {
	if math.IsNaN(c.ZoneFactor) || math.IsInf(c.ZoneFactor, 0) {
		c.ZoneFactor = -1 // JSON has neither
	}
	text, err := json.Marshal(map[string]any{"loadBalancingConfig": []any{map[string]Config{Name: c}}})
	if err != nil {
		panic(err) // not possible: strings and numbers
	}
	return string(text)
}

// lbConfig is a Config as gRPC carries it.
type lbConfig struct {
	serviceconfig.LoadBalancingConfig
	Config
}

// ParseConfig implements gRPC's ConfigParser. The error is [naming.ErrInvalid].
func (builder) ParseConfig(text json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	c := new(lbConfig)
	err := checkMembers(text)
	if err == nil {
		err = json.Unmarshal(text, &c.Config)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: load balancing policy %q: %w", naming.ErrInvalid, Name, err)
	}
	if err := c.Check(); err != nil {
		return nil, err
	}
	return c, nil
}

// checkMembers returns an error if text is not one object with members of a Config, each at
// most once. Package json would ignore case, and the first of two members.
func checkMembers(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	switch t, err := d.Token(); {
	case err != nil:
		return err
	case t != json.Delim('{'):
		return errors.New("the configuration is not an object")
	}
	seen := make(map[string]bool, len(members))
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name := t.(string) // as Token promises
		switch {
		case !slices.Contains(members, name):
			return fmt.Errorf("unknown member %q: the members are %s", naming.SafeText(name), strings.Join(members, ", "))
		case seen[name]:
			return fmt.Errorf("member %q twice", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
	}
	return nil // text after the object is for json.Unmarshal to find
}

// members are the names of a Config's members in JSON.
var members = func() (names []string) {
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}()

var _ grpcbalancer.ConfigParser = builder{}
