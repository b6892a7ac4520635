package etcd

import (
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxTxnSize is about how many bytes of keys and values a transaction has at most. etcd's
// own default limit (--max-request-bytes) is 1.5 MiB for the whole request. More bytes
// would risk a refusal, and fewer would split an Apply, which is then not atomic.
const maxTxnSize = 1<<20 + 448<<10

// cost is how much of a transaction's limits changes use. etcd counts the operations of a
// transaction together with those of a transaction inside it. So the outer transaction
// may have as many operations as the limit less the depth of the inner transactions.
type cost struct{ ops, depth, size int }

func (c cost) within(most cost) bool { return c.ops+c.depth <= most.ops && c.size <= most.size }

// cost returns the cost of a plan at most.
func (p *idPlan) cost() cost {
	value := 0
	for _, e := range p.edits {
		value = max(value, len(e.value))
	}
	c := cost{ops: 1, size: len(p.key) + value + 64}
	if n := len(p.conditions()); n > 0 && !p.readFirst {
		c.depth = n + 1
		c.size = (n + 2) * (2*len(p.key) + value + 64)
	}
	if p.rawKey != "" {
		c.ops++
		c.size += 2*len(p.rawKey) + 64
	}
	return c
}

// fit returns how many of the plans are within most, at least one, and their cost. It
// makes a plan readFirst that would not fit otherwise.
func fit(plans []*idPlan, most cost) (n int, sum cost) {
	for n < len(plans) {
		p := plans[n]
		c := p.cost()
		if c.depth > 0 && !c.within(most) {
			p.readFirst = true
			c = p.cost()
		}
		c = cost{ops: sum.ops + c.ops, depth: max(sum.depth, c.depth), size: sum.size + c.size}
		if n > 0 && !c.within(most) {
			break
		}
		sum = c
		n++
	}
	return n, sum
}

// shrink lowers most, or makes a plan readFirst, after a server has refused the plans as
// too much: a server may have lower limits. It reports false if that was not the reason,
// or if the plans cannot shrink.
func shrink(err error, plans []*idPlan, sum cost, most *cost) bool {
	switch {
	case errors.Is(typed(err), rpctypes.ErrTooManyOps):
		most.ops = max((sum.ops+sum.depth)/2, 1)
	case requestTooLarge(err):
		most.size = sum.size / 2
	default:
		return false
	}
	if len(plans) > 1 {
		return true
	}
	if p := plans[0]; !p.readFirst && len(p.conditions()) > 0 {
		p.readFirst = true
		return true
	}
	return false
}

// requestTooLarge reports whether etcd, the server's gRPC or the client's gRPC refused a
// request for its size.
func requestTooLarge(err error) bool {
	if errors.Is(typed(err), rpctypes.ErrRequestTooLarge) {
		return true
	}
	var s interface{ GRPCStatus() *status.Status }
	text := err.Error()
	exhausted := errors.As(err, &s) && s.GRPCStatus().Code() == codes.ResourceExhausted
	return (exhausted || etcdCode(err) == codes.ResourceExhausted) && (strings.Contains(text, "trying to send message larger") || strings.Contains(text, "received message larger"))
}

// etcdCode returns the code of an error that the client has converted.
func etcdCode(err error) codes.Code {
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e.Code()
	}
	return codes.OK
}

// lacking adds to an error the right that the plans need.
func lacking(err error, plans []*idPlan) error {
	right, keys := "write", fmt.Sprintf("the key %q", plans[0].key)
	if n := len(plans); n > 1 {
		keys = fmt.Sprintf("%d keys, the first of which is %q", n, plans[0].key)
	}
	for _, p := range plans {
		if p.readFirst || p.rawKey != "" || len(p.conditions()) > 0 {
			right = "read and write"
		}
	}
	return needs(err, right, "%s", keys)
}
