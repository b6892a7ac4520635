package snippet

// Run has the fragment look for losses where nothing is lost.
func Run(ctx context.Context) error {
	store := new(memory.Store)
	endpoint := naming.Endpoint{Addr: "127.0.0.1:9000", Metadata: []byte(`{"weight":2}`)}
	if err := store.Apply(ctx, "greeter", naming.Change{Op: naming.Add, Endpoint: endpoint}); err != nil {
		return err
	}
	c := naming.New(store, nil)
	defer c.Close()
	return snippet(ctx, c, new(memory.Store))
}

func snippet(ctx context.Context, c *naming.Client, next naming.Store) error {
	//snippet
	if len(losses) > 0 {
		return fmt.Errorf("losses: %v", losses)
	}
	return nil
}
