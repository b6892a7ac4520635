package consul

import (
	"context"
	"time"

	"github.com/naming-go/naming"
)

// The defaults of Options.
const (
	DefaultWait            = 30 * time.Second
	DefaultDeregisterAfter = 10 * time.Minute
)

// Options are the options of a [Store]. The zero value, and a nil pointer, mean the
// defaults.
type Options struct {
	// Prefix is put before the name of every service: a namespace for users of one
	// Consul that has no namespaces of its own. Services without the prefix do not
	// exist for the Store.
	Prefix string

	// Datacenter is the datacenter to read. The default is the agent's own, which is
	// the only datacenter that a Store can write to: with a Datacenter, Apply returns
	// naming.ErrInvalid.
	Datacenter string

	// Partition and Namespace are those of Consul Enterprise. Consul without
	// Enterprise refuses every request that names one, which is naming.ErrInvalid.
	Partition, Namespace string

	// NodeMeta and Tag narrow what the sequences yield: to services on nodes that
	// have all of this metadata, and to services that have this tag in Consul. Tags
	// of the endpoint and tags that a Codec adds both count. If an endpoint has
	// several registrations, the tags of the registration that counts decide. NodeMeta and
	// Tag have no effect on Apply.
	NodeMeta map[string]string
	Tag      string

	// Token, if not nil, returns the token to use. It is called for every request, so
	// it may return another token each time. It must return soon and be safe to call
	// concurrently. When it returns another token than an endpoint was put with, the
	// next renewal of the lease registers the endpoint with the new token, because
	// the agent keeps the token and needs it later.
	Token func(ctx context.Context) (string, error)

	// AllowStale lets any server answer for the sequences, not only the leader. The
	// leader has less work, and reads work without a leader. In return a sequence may
	// go back to an older state: Consul does not say in advance how far a server is
	// behind.
	AllowStale bool

	// IncludeWarning makes endpoints usable whose worst check is warning. By default
	// an endpoint is usable only if all checks pass, and is withheld otherwise. An
	// entry of another writer with a warning then has Consul's weight for warnings.
	IncludeWarning bool

	// Codec is another framework's format, to share services with the programs that
	// use that framework. Package consulcodec has the codecs. Nil means none.
	Codec *Codec

	// NoDrainingMark makes Apply refuse to mark an endpoint as draining, with
	// naming.ErrInvalid and before any request. The mark is a key of the service's
	// Meta. Endpoints without the mark are then read as NoDrainingMark.
	NoDrainingMark bool

	// PortName is the name of the port to use, such as "grpc", of an entry of another
	// writer with several named ports. If none has the name, or PortName is empty, it
	// is the entry's default port.
	PortName string

	// IncludeProxies makes the sidecar proxies and gateways of Consul's service mesh
	// services and endpoints like any other. By default they are left out.
	IncludeProxies bool

	// OnMalformed, if not nil, is called for every entry that a watch leaves out
	// because the entry cannot be understood. The key is "node/service ID". It is
	// called from the loops that range over watches, concurrently if there are
	// several, and must not block.
	OnMalformed func(*naming.MalformedError)

	// DeregisterAfter is how long Consul keeps an endpoint whose lease ended without
	// a Revoke. Meanwhile the endpoint is not listed. Consul rounds DeregisterAfter
	// up to a minute, and looks twice a minute. Longer keeps what an operator said of
	// the endpoint (see [Store] on maintenance) until a server returns from a longer
	// outage. Shorter leaves fewer dead entries in the catalogue, each of which costs
	// every read of the service. 0 means [DefaultDeregisterAfter].
	DeregisterAfter time.Duration

	// Wait is how long a blocking query waits for a change before it is asked again,
	// less a random eighth. Longer means fewer requests of idle watches: one for each
	// watch in Wait. Shorter means that a silent agent is noticed sooner, after about
	// 1.2 times Wait, and at least Wait and a second (see [Store.SilenceBound]), and that Consul frees the connection
	// of an abandoned query sooner. Wait is at least a second, and at most Consul's
	// own limit of ten minutes. 0 means [DefaultWait].
	Wait time.Duration
}

// withDefaults returns the options with all defaults set.
func (o *Options) withDefaults() Options {
	var d Options
	if o != nil {
		d = *o
	}
	if d.OnMalformed == nil {
		d.OnMalformed = func(*naming.MalformedError) {}
	}
	if d.Wait <= 0 {
		d.Wait = DefaultWait
	}
	d.Wait = min(max(d.Wait, time.Second), 10*time.Minute)
	if d.DeregisterAfter <= 0 {
		d.DeregisterAfter = DefaultDeregisterAfter
	}
	return d
}
