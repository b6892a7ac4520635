package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/live"
	"github.com/naming-go/naming/cmd/naming/internal/show"
)

const (
	readers = 16 // services that are read at once
	dialers = 64 // endpoints that are dialled at once
	named   = 5  // examples that a finding names
)

// entries reads all services and reports what needs an operator.
func (x *examination) entries(ctx context.Context) {
	names, err := x.services(ctx)
	if err != nil {
		return // rights has reported it
	}
	views, err := x.views(ctx, names)
	if err != nil {
		if ctx.Err() == nil {
			x.problem("entries", "repeat the examination", "the services could not be read: %v", naming.SafeError(err))
		}
		return
	}
	count := 0
	for _, v := range views {
		count += len(v.Endpoints)
	}
	x.ok("entries", "%s with %s", show.Count(len(names), "service"), show.Count(count, "endpoint"))
	x.malformed()
	x.withheld(views)
	x.draining(views)
	x.sameAddress(views)
	if x.opts.Dial {
		x.dial(ctx, views)
	}
}

// services returns the names of the services. A registry may list the service of rights for a
// moment after its removal.
func (x *examination) services(ctx context.Context) ([]string, error) {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	names, err := live.Services(ctx, x.Client)
	return slices.DeleteFunc(names, func(name string) bool { return name == x.probed }), err
}

// views reads services.
func (x *examination) views(ctx context.Context, names []string) ([]naming.View, error) {
	views := make([]naming.View, len(names))
	var done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for i, name := range names {
		g.Go(func() (err error) {
			ctx, cancel := x.bounded(ctx)
			defer cancel()
			if views[i], err = x.Client.List(ctx, name); err != nil {
				return fmt.Errorf("%q: %w", name, err)
			}
			if x.opts.Progress != nil {
				x.opts.Progress(int(done.Add(1)), len(names))
			}
			return nil
		})
	}
	return views, g.Wait()
}

func (x *examination) malformed() {
	list := x.Malformed()
	if len(list) == 0 {
		x.ok("malformed", "every entry can be read")
		return
	}
	examples := make([]string, len(list))
	for i, m := range list {
		examples[i] = fmt.Sprintf("%s (%v)", naming.SafeText(m.Key), naming.SafeError(m.Err))
	}
	x.problem("malformed", "find the program that writes them, or use the codec of its framework (codec= in the URL)",
		"%s cannot be read and %s left out: %s", show.Count(len(list), "entry"), isAre(len(list)), some(examples))
}

func (x *examination) withheld(views []naming.View) {
	reasons := make(map[naming.Reason][]string)
	for _, v := range views {
		for _, w := range v.Withheld {
			reasons[w.Reason] = append(reasons[w.Reason], name(v.Service, w.Endpoint))
		}
	}
	for _, reason := range []naming.Reason{naming.Maintenance, naming.FailedCheck} {
		list := reasons[reason]
		switch {
		case len(list) == 0:
		case reason == naming.Maintenance:
			x.note("withheld", "end the maintenance when the work is done", "%s in maintenance: %s", show.Count(len(list), "endpoint"), some(list))
		default:
			x.problem("withheld", "look at the program and at its check ('naming get SERVICE' shows the check's output)",
				"%s failed a check: %s", show.Count(len(list), "endpoint"), some(list))
		}
	}
}

func (x *examination) draining(views []naming.View) {
	var list []string
	for _, v := range views {
		for _, e := range v.Endpoints {
			if e.Draining {
				list = append(list, name(v.Service, e))
			}
		}
	}
	if len(list) > 0 {
		x.note("draining", "resume an endpoint that should get calls again", "%s draining: %s", show.Count(len(list), "endpoint"), some(list))
	}
}

// sameAddress reports addresses that occur more than once in a service: an entry of a program
// that was started again under another ID, and whose former entry stayed.
func (x *examination) sameAddress(views []naming.View) {
	var list []string
	for _, v := range views {
		seen := make(map[string]bool, len(v.Endpoints))
		for _, e := range v.Endpoints {
			if e.Addr != "" && seen[e.Addr] {
				list = append(list, name(v.Service, e))
			}
			seen[e.Addr] = true
		}
	}
	if len(list) > 0 {
		x.note("ghosts", "remove the entry that no program keeps: 'naming deregister SERVICE ID'",
			"%s with the address of another endpoint of the service: %s", show.Count(len(list), "endpoint"), some(list))
	}
}

// dial reports the endpoints at which nobody listens, as seen from here.
func (x *examination) dial(ctx context.Context, views []naming.View) {
	var silent nameList
	tried := 0
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(dialers)
	for _, v := range views {
		for _, e := range v.Endpoints {
			host, _, err := net.SplitHostPort(e.Addr)
			if err != nil || strings.Contains(host, ":/") {
				continue // a socket of another machine, or no address
			}
			tried++
			g.Go(func() error {
				if !listens(ctx, e.Addr) {
					silent.add(name(v.Service, e))
				}
				return ctx.Err()
			})
		}
	}
	if g.Wait() != nil {
		return
	}
	list := silent.sorted()
	if len(list) == 0 {
		x.ok("ghosts", "%s can be connected to from here", show.Count(tried, "endpoint"))
		return
	}
	x.problem("ghosts", "look whether the program runs and whether the network lets this machine reach it; remove an entry that no program keeps with 'naming deregister'",
		"%s of %d cannot be connected to from here: %s", show.Count(len(list), "endpoint"), tried, some(list))
}

// dialTimeout bounds a connection: a host that is gone does not answer at all.
const dialTimeout = 3 * time.Second

func listens(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return errors.Is(err, context.Canceled) // interrupted: nothing is known
	}
	_ = conn.Close()
	return true
}

// nameList is a list that several goroutines add to.
type nameList struct {
	mu   sync.Mutex
	list []string // guarded by mu
}

func (l *nameList) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, s)
}

func (l *nameList) sorted() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(slices.Values(l.list))
}

// name names an endpoint of a service in a finding.
func name(service string, e naming.Endpoint) string {
	id := e.ID
	if id == "" {
		id = e.Addr
	}
	return naming.SafeText(service) + " " + naming.SafeText(id)
}

// some names the first of a list.
func some(list []string) string {
	if len(list) <= named {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:named], ", "), len(list)-named)
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
