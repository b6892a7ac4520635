package snippet

// Run has the fragment join two registries, and registers an endpoint with the result.
func Run(ctx context.Context) error {
	return snippet(ctx, new(memory.Store), new(memory.Store))
}

func snippet(ctx context.Context, old, next naming.Store) error {
	//snippet
	opts := &naming.RegisterOptions{Wait: true, DrainDelay: -1}
	reg, err := c.Register(ctx, "greeter", naming.Endpoint{Addr: "127.0.0.1:9000"}, opts)
	if err != nil {
		return err
	}
	view, err := c.List(ctx, "greeter")
	if err == nil && len(view.Endpoints) != 1 {
		err = fmt.Errorf("the registries have %v", view.Endpoints)
	}
	return errors.Join(err, reg.Close())
}
