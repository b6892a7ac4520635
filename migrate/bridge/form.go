package bridge

import (
	"fmt"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// form is how much of an endpoint a copy has. Formats lack room for different things.
type form struct{ noMark, noDraining, noMetadata bool }

// forms are all forms, the most faithful first.
var forms = [...]form{
	{},
	{noMark: true},
	{noDraining: true},
	{noMark: true, noDraining: true},
	{noMark: true, noDraining: true, noMetadata: true},
}

// copier makes copies for one target.
type copier struct {
	origin, bridge string
	target         naming.Mapper // nil if the target is not a Mapper
}

// shape returns the copy of a native endpoint in a form. It returns false if the form is
// the same as an earlier one.
func (c copier) shape(native naming.Endpoint, epoch uint64, f form) (e naming.Endpoint, ok bool) {
	e = native
	e.ID = migrate.CopyID(c.origin, native.ID)
	if f.noDraining {
		ok = e.Draining || f.noMetadata
		e.Draining = false
	}
	if f.noMetadata {
		ok = len(e.Metadata) > 0
		e.Metadata = nil
	}
	if !f.noMark {
		marked, room := migrate.AddMark(e.Metadata, migrate.Mark{Origin: c.origin, Bridge: c.bridge, Epoch: epoch})
		if !room {
			return e, false
		}
		e.Metadata = marked
		return e, ok || !f.noDraining
	}
	return e, ok || !f.noDraining
}

// copy returns the copy of a native endpoint: in the first form, from form first on, that
// the target can hold. It returns the form. An error means that no form is left.
func (c copier) copy(service string, native naming.Endpoint, epoch uint64, first int) (e naming.Endpoint, at int, err error) {
	err = fmt.Errorf("%w: the target refused every form of the copy", naming.ErrInvalid)
	for at = first; at < len(forms); at++ {
		e, ok := c.shape(native, epoch, forms[at])
		if !ok {
			continue
		}
		if c.target == nil {
			return e, at, nil
		}
		shown, mapErr := c.target.Map(service, e)
		switch {
		case mapErr != nil:
			err = mapErr
		case shown.ID != e.ID || shown.Addr != e.Addr:
			err = fmt.Errorf("%w: the target's format makes ID %.200q at %.200q of a copy with ID %.200q at %.200q", naming.ErrInvalid, shown.ID, shown.Addr, e.ID, e.Addr)
		default:
			return e, at, nil
		}
	}
	return naming.Endpoint{}, len(forms), err
}

// shows reports whether an endpoint of the target is the copy of a native endpoint in a
// form.
func (c copier) shows(service string, native naming.Endpoint, at int, shown naming.Endpoint) bool {
	want, _ := c.shape(native, 0, forms[at])
	return c.same(service, want, shown)
}

// same reports whether an endpoint of the target is what the target makes of a copy, except
// for the mark. Without a Mapper only the addresses are compared.
func (c copier) same(service string, e, shown naming.Endpoint) bool {
	if c.target == nil || shown.Addr != e.Addr {
		return shown.Addr == e.Addr
	}
	want, err := c.target.Map(service, e)
	if err != nil {
		return true
	}
	want, _ = migrate.Native(want)
	got, _ := migrate.Native(shown)
	return got.Equal(want)
}

// loss returns what a copy lacks of its native endpoint, and false if it lacks nothing.
func (c copier) loss(service string, native, e naming.Endpoint) (l migrate.Loss, lacks bool) {
	if c.target != nil {
		shown, err := c.target.Map(service, e)
		if err != nil {
			return l, false
		}
		e = shown
	}
	back, _ := migrate.Native(e)
	if back.Equal(native) {
		return l, false
	}
	l = migrate.Loss{Service: service, Endpoint: native, Got: back, Fields: []string{"metadata"}}
	view := func(e naming.Endpoint) naming.View {
		return naming.View{Service: service, Endpoints: []naming.Endpoint{e}, Status: naming.Status{Synced: true}}
	}
	r := migrate.Compare(service, view(native), view(back))
	if len(r.Mismatch) > 0 {
		l.Fields = r.Mismatch[0].Fields
	}
	return l, true
}

// owns reports whether an endpoint of the target is a copy that this migration made. A
// format without room for the mark shows only that it is a copy of this origin.
func (c copier) owns(e naming.Endpoint) (mark migrate.Mark, ok bool) {
	origin, _, ok := migrate.ParseCopyID(e.ID)
	if !ok || origin != c.origin {
		return mark, false
	}
	mark, marked := migrate.ReadMark(e.Metadata)
	if !marked {
		return migrate.Mark{}, true
	}
	return mark, mark.Bridge == c.bridge && mark.Origin == c.origin
}

// check returns an error if the target's format cannot hold the ID of any copy.
func (c copier) check() error {
	probe := naming.Endpoint{ID: "127.0.0.1:1", Addr: "127.0.0.1:1"}
	if _, _, err := c.copy("probe", probe, 0, 0); err != nil {
		return fmt.Errorf("the target cannot hold copies: %w", err)
	}
	return nil
}
