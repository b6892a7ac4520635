package migrate

import (
	"context"
	"errors"

	"github.com/naming-go/naming"
)

// composite is the [naming.Composite] of a Joined. It is a type of its own so that its
// methods are not methods of Joined.
type composite struct{ *Joined }

var _ naming.Composite = composite{}

func (c composite) Announce(service string, e naming.Endpoint, opts naming.RegisterOptions) (naming.Announcement, error) {
	return c.announce(service, e, opts)
}

func (c composite) Follow(service string, wake func()) (naming.Feed, error) {
	return nil, errors.New("not written yet")
}

func (c composite) List(ctx context.Context, service string) (naming.View, error) {
	return naming.View{}, errors.New("not written yet")
}

func (c composite) Apply(ctx context.Context, service string, changes []naming.Change) error {
	return errors.New("not written yet")
}

// Close closes the Clients of both registries.
func (c composite) Close() {
	for i := range c.sides {
		c.sides[i].client.Close()
	}
}
