package cli

import (
	"context"
	"iter"
	"log/slog"
	"strings"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/cmd/naming/internal/live"
)

// isMigrate reports whether a URL names two registries.
func isMigrate(rawURL string) bool {
	scheme, _, _ := strings.Cut(rawURL, ":")
	return strings.EqualFold(scheme, "migrate")
}

// readStore returns a store to read from. A migrate URL is what a program that joins the
// migration reads.
func (a *app) readStore(ctx context.Context, rawURL string) (naming.Store, func(), error) {
	if !isMigrate(rawURL) {
		return a.registryStore(ctx, rawURL)
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	opts := &open.ClientOptions{Store: open.Options{Logger: a.logger()}}
	opts.Client.Logger = slog.New(slog.DiscardHandler)
	c, done, err := open.Client(ctx, rawURL, opts)
	if err != nil {
		return nil, nil, registryError(shortURL(rawURL), err)
	}
	return joinedStore{c}, func() { _ = done() }, nil
}

// writeStore returns a store to write to.
func (a *app) writeStore(ctx context.Context, rawURL string) (naming.Store, func(), error) {
	if isMigrate(rawURL) {
		return nil, nil, usage("a migrate URL names two registries: name the one to write to")
	}
	return a.registryStore(ctx, rawURL)
}

// joinedStore reads a Client as a store is read once. It cannot be written.
type joinedStore struct{ c *naming.Client }

func (j joinedStore) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		v, err := j.c.List(ctx, service)
		if err != nil {
			yield(naming.Batch{}, err)
			return
		}
		if yield(naming.Batch{Snapshot: true, Put: v.Endpoints, Withheld: v.Withheld}, nil) {
			<-ctx.Done()
			yield(naming.Batch{}, ctx.Err())
		}
	}
}

func (j joinedStore) Services(ctx context.Context) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		names, err := live.Services(ctx, j.c)
		if err != nil {
			yield(nil, err)
			return
		}
		if yield(names, nil) {
			<-ctx.Done()
			yield(nil, ctx.Err())
		}
	}
}

func (joinedStore) Apply(context.Context, string, ...naming.Change) error { return errReadOnly }

func (joinedStore) Grant(context.Context, time.Duration) (naming.Lease, error) {
	return nil, errReadOnly
}

var errReadOnly = usage("a migrate URL names two registries, and cannot be written")
