package open

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// ClientOptions are the options of [Client]. The zero value and a nil pointer mean the
// defaults.
type ClientOptions struct {
	// Store are the options of the stores.
	Store Options

	// Client are the options of the Client. If its Logger is nil, it is the Logger of
	// Store.
	Client naming.Options

	// Migrate are the options of a migrate URL, such as Hooks. The parameters of the
	// URL have precedence. Its Client is ignored: the field Client has the options.
	Migrate migrate.Options

	// OnJoin, if not nil, is called with the result of [migrate.Join] before Client
	// returns, for a program that reports the status of its migration. The caller of
	// Client must not close it.
	OnJoin func(*migrate.Joined)
}

// withDefaults returns the options with their loggers.
func (o *ClientOptions) withDefaults() ClientOptions {
	var own ClientOptions
	if o != nil {
		own = *o
	}
	if own.Store.Logger == nil {
		own.Store.Logger = slog.Default()
	}
	if own.Client.Logger == nil {
		own.Client.Logger = own.Store.Logger
	}
	return own
}

// Client returns a Client on the registry that a URL names, or on both registries of a
// migrate URL. The function that it returns closes the Client first, then all that was
// opened for it, and may be called more than once. ctx bounds Client and has no effect
// afterwards.
//
// The error is [naming.ErrInvalid] if the URL can never work. No error contains a secret.
func Client(ctx context.Context, rawURL string, opts *ClientOptions) (*naming.Client, func() error, error) {
	o := opts.withDefaults()
	schemes := openers()
	schemes[migrateScheme] = opener{params: migrateParams}
	t, err := parse(rawURL, schemes)
	if err != nil {
		return nil, nil, err
	}
	var opened closers
	var c *naming.Client
	if t.url.Scheme == migrateScheme {
		c, err = openMigration(ctx, t, &o, &opened)
	} else {
		c, err = openPlain(ctx, t, &o, &opened)
	}
	if err != nil {
		_ = opened.close() // err is why nothing could be used
		return nil, nil, err
	}
	return c, sync.OnceValue(opened.close), nil
}

// closers are functions that close what was opened, in the order in which it was opened.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c *closers) addClient(client *naming.Client) {
	c.add(func() error {
		client.Close()
		return nil
	})
}

// close calls the functions in reverse order, as what was opened later uses what was
// opened before.
func (c *closers) close() error {
	var errs []error
	for _, f := range slices.Backward(*c) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// openPlain opens the Client on one registry.
func openPlain(ctx context.Context, t *target, o *ClientOptions, opened *closers) (*naming.Client, error) {
	store, done, err := t.openStore(ctx, &o.Store)
	if err != nil {
		return nil, err
	}
	opened.add(done)
	c := naming.New(store, &o.Client)
	opened.addClient(c)
	return c, nil
}

const migrateScheme = "migrate"

var migrateParams = []string{"client-id", "from", "leave-delay", "new-name", "old-name", "phase", "phases", "read-only", "share", "to"}

// recordsWord is the value of the parameter phases that is not the path of a file.
const recordsWord = "records"

// openMigration opens the Client on two registries.
func openMigration(ctx context.Context, t *target, o *ClientOptions, opened *closers) (*naming.Client, error) {
	m, err := parseMigration(t)
	if err != nil {
		return nil, err
	}
	opts := o.Migrate
	opts.Client = o.Client
	m.applyTo(&opts)
	var stores [2]naming.Store
	for i, side := range m.sides {
		if stores[i], err = side.open(ctx, side.target, &o.Store, opened); err != nil {
			return nil, err
		}
	}
	phases, err := m.openPhases(ctx, stores, o, opened)
	if err != nil {
		return nil, err
	}
	opened.add(func() error {
		phases.Close()
		return nil
	})
	j, err := migrate.Join(stores[0], stores[1], phases, &opts)
	if err != nil {
		return nil, err
	}
	opened.addClient(j.Client)
	if o.OnJoin != nil {
		o.OnJoin(j)
	}
	return j.Client, nil
}

// migration is a migrate URL that was checked.
type migration struct {
	sides      [2]migrationSide // the old and the new registry
	phases     string           // recordsWord, or the path of a file; empty: all services have the state fixed
	fixed      migrate.State
	clientID   string        // empty: not set
	leaveDelay time.Duration // 0: not set
}

// migrationSide is one of the two registries.
type migrationSide struct {
	param    string // "from" or "to"
	target   *target
	name     string // empty: not set
	readOnly bool
}

// parseMigration checks the parameters of a migrate URL. It reads no files and makes no
// requests.
func parseMigration(t *target) (*migration, error) {
	if t.url.Host != "" || t.url.Path != "" || t.url.Opaque != "" {
		return nil, invalid("unexpected text after %q: write %q", "migrate:", "migrate:?from=URL&to=URL&phases=records")
	}
	m := &migration{clientID: t.params.Get("client-id"), phases: t.params.Get("phases")}
	for i, param := range []string{"from", "to"} {
		side, err := parseSide(t.params, param, []string{"old-name", "new-name"}[i])
		if err != nil {
			return nil, err
		}
		m.sides[i] = side
	}
	if from, to := t.params.Get("from"), t.params.Get("to"); from == to && m.sides[0].target.url.Scheme != "memory" {
		return nil, invalid("parameters %q and %q are the same registry", "from", "to")
	}
	if s := t.params.Get("read-only"); s != "" && !m.sides[0].readOnly && !m.sides[1].readOnly {
		return nil, invalid("parameter %q is neither from nor to", "read-only")
	}
	if err := m.parsePhase(t.params); err != nil {
		return nil, err
	}
	return m, m.parseLeaveDelay(t.params.Get("leave-delay"))
}

// registryName is what [migrate.Join] accepts as the name of a registry.
var registryName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// parseSide returns the registry of the parameter from or to. nameParam is the parameter
// with its name.
func parseSide(params url.Values, param, nameParam string) (migrationSide, error) {
	side := migrationSide{param: param, name: params.Get(nameParam), readOnly: params.Get("read-only") == param}
	rawURL := params.Get(param)
	if rawURL == "" {
		return side, invalid("it has no parameter %q, the URL of a registry", param)
	}
	if scheme, _, _ := strings.Cut(rawURL, ":"); strings.EqualFold(scheme, migrateScheme) {
		return side, invalid("parameter %q is a migrate URL, which cannot be in another migrate URL", param)
	}
	if side.name != "" && !registryName.MatchString(side.name) {
		return side, invalid("parameter %q is not a name of 1 to 64 letters, digits, '-', '_' and '.'", nameParam)
	}
	var err error
	if side.target, err = parse(rawURL, openers()); err != nil {
		return side, inParameter(param, err)
	}
	return side, nil
}

// parsePhase reads where the phases are, or the phase of all services.
func (m *migration) parsePhase(params url.Values) error {
	phase, share := params.Get("phase"), params.Get("share")
	switch {
	case (phase == "") == (m.phases == ""):
		return invalid("it needs one of the parameters %q and %q", "phases", "phase")
	case phase == "" && share != "":
		return invalid("it has the parameter %q without %q", "share", "phase")
	case phase == "":
		return nil
	}
	var err error
	if m.fixed.Phase, err = migrate.ParsePhase(phase); err != nil {
		return invalid("parameter %q is neither a number from 0 to 7 nor the name of a phase, such as %v", "phase", migrate.Union)
	}
	if share == "" && m.fixed.Phase == migrate.PreferNew {
		return invalid("the phase %v needs the parameter %q", migrate.PreferNew, "share")
	}
	if share != "" {
		if m.fixed.Share, err = strconv.ParseFloat(share, 64); err != nil || m.fixed.Valid() != nil {
			return invalid("parameter %q is not a number from 0 to 1", "share")
		}
	}
	return nil
}

const maxLeaveDelay = time.Hour

// parseLeaveDelay reads how long a server stays in a registry that it leaves.
func (m *migration) parseLeaveDelay(s string) error {
	if s == "" {
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxLeaveDelay {
		return invalid("parameter %q is not a time from 0s to 1h, such as 30s", "leave-delay")
	}
	if m.leaveDelay = d; d == 0 {
		m.leaveDelay = -1 // the option 0 means the default
	}
	return nil
}

// applyTo sets the options that the URL sets, and completes the sides by the options that
// the URL does not set.
func (m *migration) applyTo(o *migrate.Options) {
	old, next := m.sides[0], m.sides[1]
	o.OldName, o.NewName = cmp.Or(old.name, o.OldName, "old"), cmp.Or(next.name, o.NewName, "new")
	o.OldReadOnly, o.NewReadOnly = o.OldReadOnly || old.readOnly, o.NewReadOnly || next.readOnly
	o.ClientID = cmp.Or(m.clientID, o.ClientID)
	o.LeaveDelay = cmp.Or(m.leaveDelay, o.LeaveDelay)
	m.sides[0].name, m.sides[1].name = o.OldName, o.NewName
	m.sides[0].readOnly, m.sides[1].readOnly = o.OldReadOnly, o.NewReadOnly
}

// open opens a store of the registry.
func (s *migrationSide) open(ctx context.Context, t *target, o *Options, opened *closers) (naming.Store, error) {
	own := *o
	own.Logger = o.Logger.With(slog.String("registry", s.name))
	store, done, err := t.openStore(ctx, &own)
	if err != nil {
		return nil, inParameter(s.param, err)
	}
	opened.add(done)
	return store, nil
}

// openPhases returns the source of the phases.
func (m *migration) openPhases(ctx context.Context, stores [2]naming.Store, o *ClientOptions, opened *closers) (migrate.Source, error) {
	switch m.phases {
	case "":
		return migrate.Fixed(m.fixed), nil
	case recordsWord:
		for i, side := range m.sides {
			t := side.target.forRecords()
			switch {
			case side.readOnly:
				stores[i] = nil // records cannot be written there
			case t != nil:
				var err error
				if stores[i], err = side.open(ctx, t, &o.Store, opened); err != nil {
					return nil, err
				}
			}
		}
		return migrate.Records(stores[0], stores[1], &migrate.RecordsOptions{
			Logger: o.Client.Logger, OldName: m.sides[0].name, NewName: m.sides[1].name,
		})
	}
	return migrate.File(m.phases, &migrate.FileOptions{Logger: o.Client.Logger}), nil
}

// forRecords returns the target of a store that keeps records, or nil if the store of t
// does. A codec may have no place for a record, and a store that is narrowed by tags or
// nodes does not show records.
func (t *target) forRecords() *target {
	params := maps.Clone(t.params)
	for _, name := range []string{"codec", "deep", "node-meta", "tag"} {
		params.Del(name)
	}
	if len(params) == len(t.params) {
		return nil
	}
	return &target{t.url, t.opener, params}
}
