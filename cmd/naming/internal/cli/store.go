package cli

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
)

// errNoRegistry is the error of a command that needs a registry and got none.
var errNoRegistry = usage("no registry: use --store URL or set NAMING_STORE, or run 'naming dev' for a registry on this machine")

// oneRegistry returns an error for a URL that does not name one registry.
func oneRegistry(url string) error {
	switch {
	case url == "":
		return errNoRegistry
	case schemeOf(url) == "migrate":
		return usage("a migrate URL names two registries: give the URL of one of them")
	}
	return nil
}

// client returns a Client on the registry that the flags name.
func (a *app) client(ctx context.Context, opts open.ClientOptions) (*naming.Client, func(), error) {
	if a.store == "" {
		return nil, nil, errNoRegistry
	}
	if opts.Store.Logger == nil {
		opts.Store.Logger = a.logger()
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	c, done, err := open.Client(ctx, a.store, &opts)
	if err != nil {
		return nil, nil, a.openError(a.store, err)
	}
	return c, func() { _ = done() }, nil
}

// openError returns the error of a URL that could not be opened. The error of a URL that can
// never work says where the URL was given, and does not repeat the URL.
func (a *app) openError(rawURL string, err error) error {
	if !errors.Is(err, naming.ErrInvalid) {
		return registryError(shortURL(rawURL), err)
	}
	text := message(err)
	if _, what, ok := strings.Cut(text, "URL of a store: "); ok {
		text = what
	}
	return usage("%s: %s", a.origin(rawURL), text)
}

// origin returns where a URL was given.
func (a *app) origin(rawURL string) string {
	u, err := url.Parse(rawURL)
	switch {
	case rawURL == a.store && a.flags.Changed("store"):
		return "--store"
	case rawURL == a.store:
		return "NAMING_STORE"
	case err != nil || u.User != nil || u.Host == "":
		return "the URL"
	}
	return naming.SafeText(u.Scheme + "://" + u.Host)
}

// storeName returns the registry's name for messages: its URL without parameters. Package
// open refuses URLs with a password, but an error is printed before that is known.
func (a *app) storeName() string { return shortURL(a.store) }

func shortURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.User != nil {
		return "the registry"
	}
	if u.Scheme == "migrate" {
		q := u.Query()
		return "migrate: " + shortURL(q.Get("from")) + " to " + shortURL(q.Get("to"))
	}
	u.RawQuery, u.Fragment = "", ""
	return naming.SafeText(u.String())
}

// schemeOf returns the scheme of a URL, and "" for a text that is not a URL.
func schemeOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Scheme
}

// once returns a Client for a command that asks once and prints the answer or the error. The
// Client logs what it does only with --verbose. Entries that cannot be understood are logged.
func (a *app) once(ctx context.Context) (*naming.Client, func(), error) {
	var opts open.ClientOptions
	if a.verbose == 0 {
		opts.Client.Logger = slog.New(slog.DiscardHandler)
	}
	return a.client(ctx, opts)
}

// announcing returns a Client for a command that registers and makes no calls. Such a Client has
// no use for a hold: a service whose only endpoint leaves would be a warning.
func (a *app) announcing(ctx context.Context) (*naming.Client, func(), error) {
	return a.client(ctx, open.ClientOptions{Client: naming.Options{Hold: naming.Hold{Disabled: true}}})
}

// registryStore returns the store of a command that works on one registry, entry by entry.
func (a *app) registryStore(ctx context.Context, url string) (naming.Store, func(), error) {
	if err := oneRegistry(url); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	s, done, err := open.Store(ctx, url, &open.Options{Logger: a.logger()})
	if err != nil {
		return nil, nil, a.openError(url, err)
	}
	return s, func() { _ = done() }, nil
}
