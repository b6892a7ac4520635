package snippet

// Run has the fragment watch a service until use was given its endpoint.
func Run(ctx context.Context) error {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	reg, err := c.Register(ctx, "greeter", naming.Endpoint{Addr: "127.0.0.1:1"},
		&naming.RegisterOptions{DrainDelay: -1})
	if err != nil {
		return err
	}
	defer reg.Close()
	running, stop := context.WithCancel(ctx)
	defer stop()
	err = snippet(running, c, func(list []naming.Endpoint) {
		if len(list) == 1 {
			stop()
		}
	})
	if running.Err() == nil {
		return fmt.Errorf("the endpoint did not come: %w", err)
	}
	return ctx.Err()
}

func snippet(ctx context.Context, c *naming.Client, use func([]naming.Endpoint)) error {
	{
		//snippet
	}
	return nil
}
