package snippet

// Run has the fragment compare two registries that differ.
func Run(ctx context.Context) error {
	old, next := new(memory.Store), new(memory.Store)
	change := naming.Change{Op: naming.Add, Endpoint: naming.Endpoint{Addr: "127.0.0.1:9000"}}
	if err := old.Apply(ctx, "greeter", change); err != nil {
		return err
	}
	return snippet(ctx, old, next)
}

func snippet(ctx context.Context, old, next naming.Store) error {
	//snippet
	if len(reports) != 1 || len(reports[0].Missing) != 1 {
		return fmt.Errorf("the reports are %v", reports)
	}
	return nil
}
