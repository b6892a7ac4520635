package cli

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
	"github.com/naming-go/naming/migrate"
)

// pairFlags are the flags that name the two registries of a migration.
type pairFlags struct {
	oldURL, newURL   string
	oldName, newName string
}

func (f *pairFlags) add(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.oldURL, "old", "", "the old registry, as a `URL` (default from of a migrate URL in --store)")
	flags.StringVar(&f.newURL, "new", "", "the new registry, as a `URL` (default to of a migrate URL in --store)")
	flags.StringVar(&f.oldName, "old-name", "", "the `NAME` of the old registry in the IDs of copies (default old)")
	flags.StringVar(&f.newName, "new-name", "", "the `NAME` of the new registry in the IDs of copies (default new)")
}

// pair are the two registries of a migration, opened.
type pair struct {
	pairFlags
	steer.Registries
	// elects are the registries that can elect a bridge.
	oldElects, newElects bool
	opened               []func()
}

func (p *pair) close() {
	for _, done := range p.opened {
		done()
	}
}

// completeService has a shell complete the flag --service by the services of registries. urls
// returns their URLs. A registry that does not answer soon adds nothing.
func (a *app) completeService(cmd *cobra.Command, urls func(args []string) []string) {
	_ = cmd.RegisterFlagCompletionFunc("service", func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		a.timeout = min(a.timeout, completionTimeout)
		a.Err = io.Discard // a shell shows the log in the middle of a line
		ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
		defer cancel()
		list := urls(args)
		found := make([][]string, len(list))
		var reading sync.WaitGroup
		for i, rawURL := range list {
			reading.Go(func() { found[i] = a.services(ctx, rawURL) })
		}
		reading.Wait()
		names := slices.Concat(found...)
		slices.Sort(names)
		before := typed[:strings.LastIndex(typed, ",")+1] // the flag has a list
		for i, name := range names {
			names[i] = before + naming.SafeText(name)
		}
		return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
	})
}

// services returns the services of a registry, and nil if the registry cannot be read.
func (a *app) services(ctx context.Context, rawURL string) []string {
	store, done, err := a.readStore(ctx, rawURL)
	if err != nil {
		return nil
	}
	defer done()
	names, err := steer.Services(ctx, store)
	if err != nil {
		return nil
	}
	return names
}

// reached returns an error if a registry could not be opened. A command that runs for long
// would never see such a registry again.
func (p *pair) reached() error {
	w := new(steer.World)
	for _, side := range []struct {
		store naming.Store
		err   *error
	}{{p.Old, &w.OldErr}, {p.New, &w.NewErr}} {
		if f, ok := side.store.(*failing); ok {
			*side.err = f.err
		}
	}
	return worldError(p, w)
}

// resolvePair completes the flags by the migrate URL of --store. readOnly is "from", "to" or
// empty: the registry that cannot be written.
func (a *app) resolvePair(f pairFlags) (_ pairFlags, readOnly string, err error) {
	if _, query, _ := strings.Cut(a.store, "?"); isMigrate(a.store) {
		params, err := url.ParseQuery(query)
		if err != nil {
			return f, "", usage("the migrate URL has parameters that are not percent-encoded")
		}
		if phases := params.Get("phases"); f.oldURL == "" && phases != "records" {
			return f, "", usage("the phases of the migrate URL are not records: change them where they are, or name the registries with --old and --new")
		}
		readOnly = params.Get("read-only")
		if readOnly == "from" && f.oldURL != "" || readOnly == "to" && f.newURL != "" {
			readOnly = "" // the flag names another registry
		}
		if readOnly != "" && readOnly != "from" && readOnly != "to" {
			return f, "", usage("the parameter read-only of the migrate URL is neither from nor to")
		}
		f.oldURL, f.newURL = cmp.Or(f.oldURL, params.Get("from")), cmp.Or(f.newURL, params.Get("to"))
		f.oldName, f.newName = cmp.Or(f.oldName, params.Get("old-name")), cmp.Or(f.newName, params.Get("new-name"))
	}
	f.oldName, f.newName = cmp.Or(f.oldName, "old"), cmp.Or(f.newName, "new")
	switch {
	case f.oldURL == "" || f.newURL == "":
		return f, "", usage("two registries are needed: use --old URL and --new URL, or a migrate URL in --store or NAMING_STORE")
	case isMigrate(f.oldURL) || isMigrate(f.newURL):
		return f, "", usage("--old and --new name one registry each: a migrate URL has its place in --store")
	case f.oldURL == f.newURL:
		return f, "", usage("--old and --new are the same registry")
	case migrate.CheckName(f.oldName) != nil || migrate.CheckName(f.newName) != nil:
		return f, "", usage("--old-name and --new-name have 1 to 64 letters, digits, '-', '_' and '.'")
	case f.oldName == f.newName:
		return f, "", usage("--old-name and --new-name are equal")
	}
	return f, readOnly, nil
}

// pair opens the two registries. A registry that cannot be reached becomes a store that
// fails, because the other one may suffice. The caller closes the pair.
func (a *app) pair(ctx context.Context, f pairFlags) (*pair, error) {
	f, readOnly, err := a.resolvePair(f)
	if err != nil {
		return nil, err
	}
	return a.openPair(ctx, f, readOnly)
}

// openPair opens the registries of complete flags.
func (a *app) openPair(ctx context.Context, f pairFlags, readOnly string) (*pair, error) {
	p := &pair{pairFlags: f}
	for _, side := range []struct {
		url, flag, param string
		store, records   *naming.Store
		elects           *bool
	}{
		{f.oldURL, "--old", "from", &p.Old, &p.OldRecords, &p.oldElects},
		{f.newURL, "--new", "to", &p.New, &p.NewRecords, &p.newElects},
	} {
		store, err := a.openSide(ctx, p, side.url, side.flag)
		if err != nil {
			p.close()
			return nil, err
		}
		*side.store, *side.records = store, store
		x, ok := store.(interface{ ExclusiveAdds() bool })
		*side.elects = !ok || x.ExclusiveAdds()
		if records := recordsURL(side.url); records != side.url {
			if *side.records, err = a.openSide(ctx, p, records, side.flag); err != nil {
				p.close()
				return nil, err
			}
		}
		if readOnly == side.param {
			*side.records = nil
		}
	}
	return p, nil
}

func (a *app) openSide(ctx context.Context, p *pair, rawURL, flag string) (naming.Store, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout/2)
	defer cancel()
	store, done, err := open.Store(ctx, rawURL, &open.Options{Logger: a.logger()})
	switch {
	case errors.Is(err, naming.ErrInvalid):
		return nil, usage("%s: %s", flag, message(err))
	case err != nil:
		return &failing{naming.SafeError(err)}, nil
	}
	p.opened = append(p.opened, func() { _ = done() })
	return store, nil
}

// recordsURL returns the URL of the store that keeps records: in the registry's default
// format, as package open does for a migrate URL. A text that is not a URL stays.
func recordsURL(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL
	}
	params := u.Query()
	n := len(params)
	for _, name := range []string{"codec", "deep", "node-meta", "tag"} {
		params.Del(name)
	}
	if len(params) == n {
		return rawURL
	}
	u.RawQuery = params.Encode()
	return u.String()
}

// failing is the store of a registry that could not be opened.
type failing struct{ err error }

func (f *failing) Apply(context.Context, string, ...naming.Change) error { return f.err }

func (f *failing) Watch(context.Context, string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) { yield(naming.Batch{}, f.err) }
}

func (f *failing) Services(context.Context) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) { yield(nil, f.err) }
}

func (f *failing) Grant(context.Context, time.Duration) (naming.Lease, error) { return nil, f.err }
