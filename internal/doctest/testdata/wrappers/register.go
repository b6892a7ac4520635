package snippet

// Run registers an endpoint with the fragment.
func Run(ctx context.Context) error {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	running, stop := context.WithCancel(ctx)
	stop() // the fragment withdraws the endpoint at once
	return snippet(running, c, "127.0.0.1:9000")
}

func snippet(ctx context.Context, c *naming.Client, addr string) error {
	{
		//snippet
	}
	return nil
}
