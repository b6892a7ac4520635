package resolver

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/experimental/balancer/weight"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
)

// member is an endpoint that all ClientConns share. It is made once and never modified.
// It is the value of an attribute of its resolver.Endpoint.
type member struct {
	endpoint   *naming.Endpoint
	addresses  [1]grpcresolver.Address
	attributes attributes.Attributes
}

// attributeKey is the key of a member among the attributes of its endpoint.
type attributeKey struct{}

// String returns the text that gRPC logs.
func (attributeKey) String() string { return "naming.Endpoint" }

// maker makes members with few allocations: one for all members, and one for the weight
// of endpoints in a row with the same metadata.
type maker struct {
	unused   []member
	metadata []byte
	parent   *attributes.Attributes // the attributes that follow from metadata
}

// newMaker returns a maker of n members.
func newMaker(n int) *maker { return &maker{unused: make([]member, n)} }

// newMember returns a member of e, which must not be modified afterwards.
func (k *maker) newMember(e *naming.Endpoint) *member {
	if !bytes.Equal(e.Metadata, k.metadata) {
		k.metadata, k.parent = e.Metadata, nil
		if mayHave(e.Metadata, "weight") {
			if w := e.Info().Weight; w > 0 {
				k.parent = weight.Set(grpcresolver.Endpoint{}, weight.EndpointInfo{Weight: grpcWeight(w)}).Attributes
			}
		}
	}
	m := &k.unused[0]
	k.unused = k.unused[1:]
	m.endpoint = e
	// Nothing but the address: gRPC makes a new connection when anything in the
	// Address changes, its attributes included.
	m.addresses[0].Addr = e.Addr
	m.attributes = *k.parent.WithValue(attributeKey{}, m)
	return m
}

// grpc returns the resolver.Endpoint of m.
func (m *member) grpc() grpcresolver.Endpoint {
	return grpcresolver.Endpoint{Addresses: m.addresses[:], Attributes: &m.attributes}
}

// draining reports whether m is draining. The answer is not kept: few members are ever
// asked, and a field would take some bytes of each.
func (m *member) draining() bool {
	return m.endpoint.Draining || mayHave(m.endpoint.Metadata, "draining") && m.endpoint.Info().Draining
}

// mayHave reports whether metadata may have a member of this name. Decoding all
// metadata would be most of the cost of a large service.
func mayHave(metadata []byte, name string) bool {
	return bytes.Contains(metadata, []byte(name)) || bytes.IndexByte(metadata, '\\') >= 0 // or it is escaped
}

// grpcWeight returns a positive weight in the form of gRPC's policies. The policies add
// up the weights of all endpoints in 32 bits, and use 1 for an endpoint without a weight.
func grpcWeight(w float64) uint32 {
	return uint32(min(max(math.Round(w), 1), math.MaxUint16))
}

// Equal compares two values of the attribute. gRPC calls it.
func (m *member) Equal(o any) bool {
	n, ok := o.(*member)
	return ok && (m == n || m.endpoint.Equal(*n.endpoint))
}

// String returns the text that gRPC logs.
func (m *member) String() string {
	return strconv.Quote(naming.SafeText(m.endpoint.ID)) + " " + naming.SafeText(string(m.endpoint.Metadata))
}

// failedKey is the key of an attribute of endpoints with a failed check.
type failedKey struct{}

// String returns the text that gRPC logs.
func (failedKey) String() string { return "naming.Reason" }

// failed returns the resolver.Endpoint of m, marked as one whose check failed.
func (m *member) failed() grpcresolver.Endpoint {
	e := m.grpc()
	e.Attributes = e.Attributes.WithValue(failedKey{}, naming.FailedCheck)
	return e
}

// ReasonOf returns why the registry withholds an endpoint, for load balancing policies.
// It reports false for an endpoint that may be used. Of the withheld endpoints gRPC gets
// only those with a [naming.FailedCheck], and only because of PanicThreshold in the
// [Options].
func ReasonOf(e grpcresolver.Endpoint) (naming.Reason, bool) {
	r, ok := e.Attributes.Value(failedKey{}).(naming.Reason)
	return r, ok
}

// memberOf returns the member in a resolver.Endpoint of this package, or nil.
func memberOf(e grpcresolver.Endpoint) *member {
	m, _ := e.Attributes.Value(attributeKey{}).(*member)
	return m
}

// EndpointOf returns the naming.Endpoint of a resolver.Endpoint, for load balancing
// policies. The endpoint's Info method decodes the metadata. EndpointOf reports false
// for a resolver.Endpoint that another package made, or that has lost its attributes.
func EndpointOf(e grpcresolver.Endpoint) (naming.Endpoint, bool) {
	if m := memberOf(e); m != nil {
		return *m.endpoint, true
	}
	return naming.Endpoint{}, false
}

// equalEndpoints reports whether two lists of members are equal.
func equalEndpoints(a, b []grpcresolver.Endpoint) bool {
	if len(a) != len(b) {
		return false
	}
	if len(a) == 0 || &a[0] == &b[0] {
		return true
	}
	for i := range a {
		if a[i].Attributes == b[i].Attributes {
			continue
		}
		ra, _ := ReasonOf(a[i])
		rb, _ := ReasonOf(b[i])
		if ra != rb || !memberOf(a[i]).Equal(memberOf(b[i])) {
			return false
		}
	}
	return true
}

func (m *member) addr() string { return m.endpoint.Addr }

func compareByID(a, b *member) int { return strings.Compare(a.endpoint.ID, b.endpoint.ID) }

func compareByAddr(a, b *member) int {
	if c := strings.Compare(a.addr(), b.addr()); c != 0 {
		return c
	}
	return compareByID(a, b)
}
