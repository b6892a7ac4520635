package live

import (
	"context"
	"fmt"

	"github.com/naming-go/naming"
)

// Services returns the sorted names of the services. It is not nil. A registry that cannot be
// asked is an error at once, unless the Client is on two registries: then the other one may
// answer until ctx is done.
func Services(ctx context.Context, c *naming.Client) ([]string, error) {
	wake := make(chan struct{}, 1)
	f, err := c.FollowServices(func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for {
		v, _, _ := f.Current()
		switch {
		case v.Synced:
			return names(v), nil
		case v.Err != nil && len(v.Sides) == 0:
			return nil, v.Err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			if v.Err != nil {
				return nil, v.Err
			}
			return nil, fmt.Errorf("no answer from the registry: %w", ctx.Err())
		}
	}
}

func names(v naming.View) []string {
	list := make([]string, len(v.Endpoints))
	for i, e := range v.Endpoints {
		list[i] = e.ID
	}
	return list
}
