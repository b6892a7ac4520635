package snippet

// Run has the fragment open a Client on two registries in memory.
func Run(ctx context.Context) error {
	return snippet(ctx, "migrate:?from=memory:&to=memory:&phase=union")
}

func snippet(ctx context.Context, url string) error {
	//snippet
	_, err = c.Register(ctx, "greeter", naming.Endpoint{Addr: "127.0.0.1:9000"}, &naming.RegisterOptions{Wait: true, DrainDelay: -1})
	return err
}
