package snippet

// Run has the fragment register an endpoint and withdraw it.
func Run(ctx context.Context) error {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	if err := snippet(ctx, c, "127.0.0.1:9000"); err != nil {
		return err
	}
	view, err := c.List(ctx, "greeter")
	if err == nil && len(view.Endpoints) > 0 {
		err = fmt.Errorf("left behind: %v", view.Endpoints)
	}
	return err
}

func snippet(ctx context.Context, c *naming.Client, addr string) error {
	{
		//snippet
	}
	return nil
}
