package migrate

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strconv"

	"github.com/naming-go/naming"
)

// Joined is a Client on two registries. [Join] makes it.
type Joined struct {
	// Client is used as any other Client. Its Close closes the Joined.
	*naming.Client

	opts   Options
	phases Source
	sides  [2]side
	log    *slog.Logger
	owners owners
	feeds  feeds
	seen   seenStates
}

// sideIndex is the index of a registry in Joined.sides.
type sideIndex int

const (
	oldSide sideIndex = iota
	newSide
)

func (i sideIndex) other() sideIndex { return 1 - i }

// side is one of the two registries.
type side struct {
	name     string
	store    naming.Store
	client   *naming.Client
	readOnly bool
}

// Join returns a Client on two registries, which the caller closes. It calls no method of
// the stores. The Joined owns neither the stores nor the Source: the caller closes them
// after the Joined.
//
// The error is [naming.ErrInvalid] for a store or a Source that is nil, for two equal
// stores, and for two equal names.
func Join(old, next naming.Store, phases Source, opts *Options) (*Joined, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	o = o.withDefaults()
	switch {
	case old == nil || next == nil || phases == nil:
		return nil, fmt.Errorf("migrate: join: %w: a nil store or source", naming.ErrInvalid)
	case sameStore(old, next):
		return nil, fmt.Errorf("migrate: join: %w: both registries are the same store", naming.ErrInvalid)
	}
	if err := errors.Join(checkName(o.OldName), checkName(o.NewName)); err != nil {
		return nil, fmt.Errorf("migrate: join: %w", err)
	}
	if o.OldReadOnly && o.NewReadOnly {
		return nil, fmt.Errorf("migrate: join: %w: both registries are read-only", naming.ErrInvalid)
	}
	if o.OldName == o.NewName {
		return nil, fmt.Errorf("migrate: join: %w: both registries have the name %q", naming.ErrInvalid, o.OldName)
	}
	if o.Client.Logger == nil {
		o.Client.Logger = slog.Default()
	}
	if o.ClientID == "" {
		o.ClientID = strconv.FormatUint(rand.Uint64(), 36)
	}
	j := &Joined{opts: o, phases: phases, log: o.Client.Logger}
	j.sides[oldSide] = o.newSide(o.OldName, old, o.OldHooks, o.OldReadOnly)
	j.sides[newSide] = o.newSide(o.NewName, next, o.NewHooks, o.NewReadOnly)
	j.Client = naming.NewComposite(composite{j}, &o.Client)
	return j, nil
}

// newSide returns the side of a store. The hold is off, because the joined Client holds.
// The watch of a side ends with the joined watch, which has the grace.
func (o *Options) newSide(name string, store naming.Store, hooks *naming.Hooks, readOnly bool) side {
	return side{name: name, store: store, readOnly: readOnly, client: naming.New(store, &naming.Options{
		Logger:      o.Client.Logger.With(slog.String("registry", name)),
		IdleGrace:   -1,
		Hooks:       hooks,
		Hold:        naming.Hold{Disabled: true},
		ResyncEvery: o.Client.ResyncEvery,
	})}
}

// sameStore reports whether two stores are one. Stores that cannot be compared are not.
func sameStore(a, b naming.Store) bool {
	t := reflect.TypeOf(a)
	return t == reflect.TypeOf(b) && t.Comparable() && a == b
}

// checkName returns an error if a registry's name has no place in the ID of a copy.
func checkName(name string) error {
	if name == "" || len(name) > 64 {
		return fmt.Errorf("%w: a registry's name of %d bytes; 1 to 64 are allowed", naming.ErrInvalid, len(name))
	}
	for _, r := range name {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.') {
			return fmt.Errorf("%w: the character %q in the registry's name %q; letters, digits, '-', '_' and '.' are allowed", naming.ErrInvalid, r, name)
		}
	}
	return nil
}
