package doctor

import (
	"context"
	"errors"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// probeAddr is an address on which nobody listens: port 9 is that of the discard service
// (RFC 863), on the loopback interface.
const probeAddr = "127.0.0.1:9"

// rights tries what each feature needs. The error of a store names the right that is missing.
func (x *examination) rights(ctx context.Context) {
	x.try(ctx, "list services", "ls, top, the bridge and comparisons of all services need this right", x.tryServices)
	x.try(ctx, "read a service", "clients, watch and resolve need this right", func(ctx context.Context) error { return x.read(ctx, probeService()) })
	for _, r := range []struct{ service, who string }{
		{migrate.RecordService, "programs that take part in a migration, and naming migrate, need this right"},
		{migrate.BridgeService, "bridges and naming migrate need this right"},
	} {
		x.try(ctx, "read "+r.service, r.who, func(ctx context.Context) error { return x.read(ctx, r.service) })
	}
	if x.opts.ReadOnly {
		x.note("rights", "", "not tried: to register, which writes (the examination is read only)")
		return
	}
	x.tryRegister(ctx)
}

// try reports whether f succeeds.
func (x *examination) try(ctx context.Context, what, need string, f func(context.Context) error) bool {
	err := f(ctx)
	switch {
	case err == nil:
		x.ok("rights", "allowed: to %s", what)
		return true
	case ctx.Err() != nil:
	case errors.Is(err, naming.ErrPermission):
		x.problem("rights", "grant it if this program needs it: "+need, "refused: to %s: %v", what, naming.SafeError(err))
	default:
		x.problem("rights", "look at the log of the registry", "failed: to %s: %v", what, naming.SafeError(err))
	}
	return false
}

func (x *examination) tryServices(ctx context.Context) error {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	for _, err := range x.Store.Services(ctx) {
		return err
	}
	return ctx.Err()
}

// tryRegister registers an endpoint as a server does, renews its lease and removes it.
func (x *examination) tryRegister(ctx context.Context) {
	const need = "servers need this right to register"
	service, e := probeService(), naming.Endpoint{ID: "probe", Addr: probeAddr}
	x.probed = service
	var lease naming.Lease
	step := func(what string, f func(context.Context) error) bool {
		return x.try(ctx, what, need, func(ctx context.Context) error {
			ctx, cancel := x.bounded(ctx)
			defer cancel()
			return f(ctx)
		})
	}
	granted := step("grant a lease", func(ctx context.Context) (err error) {
		lease, err = x.Store.Grant(ctx, time.Minute)
		return err
	})
	if !granted {
		return
	}
	defer x.revoke(ctx, lease)
	put := step("register an endpoint", func(ctx context.Context) error {
		return x.Store.Apply(ctx, service, naming.Change{Endpoint: e, Lease: lease})
	})
	if !put {
		return
	}
	step("renew a lease", lease.Renew)
	step("register again after the loss of a lease", func(ctx context.Context) error {
		return x.Store.Apply(ctx, service, naming.Change{Endpoint: e, Lease: lease, IfFree: true})
	})
	step("remove an endpoint", func(ctx context.Context) error {
		return x.Store.Apply(ctx, service, naming.Change{Op: naming.Delete, Endpoint: e})
	})
	x.floor(ctx)
}

// revoke ends the lease of the examination, also if ctx is done.
func (x *examination) revoke(ctx context.Context, lease naming.Lease) {
	ctx, cancel := x.bounded(context.WithoutCancel(ctx))
	defer cancel()
	if err := lease.Revoke(ctx); err != nil {
		x.note("rights", "nothing: the registry ends the lease within a minute", "the lease of the examination could not be revoked: %v", naming.SafeError(err))
	}
}

// floor reports the shortest time to live that the registry grants.
func (x *examination) floor(ctx context.Context) {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	lease, err := x.Store.Grant(ctx, time.Millisecond)
	if err != nil {
		if ctx.Err() == nil {
			x.problem("limits", "", "the shortest time to live is not known: %v", naming.SafeError(err))
		}
		return
	}
	defer x.revoke(ctx, lease)
	if ttl := lease.TTL(); ttl >= time.Second {
		x.ok("limits", "the shortest time to live is %v: a server that dies is listed that long at least", ttl)
		return
	}
	x.ok("limits", "the registry grants a time to live of less than a second")
}
