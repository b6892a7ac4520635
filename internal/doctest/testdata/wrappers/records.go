package snippet

// Run has the fragment delete the records of two services.
func Run(ctx context.Context) error {
	old, next := new(memory.Store), new(memory.Store)
	for _, service := range []string{"*", "greeter"} {
		if _, err := migrate.WriteRecord(ctx, old, next, service, migrate.State{Phase: migrate.Done}); err != nil {
			return err
		}
	}
	if err := snippet(ctx, old, next); err != nil {
		return err
	}
	records := migrate.ReadRecords(ctx, old, next)
	if len(records.States()) > 0 || records.Err() != nil {
		return fmt.Errorf("the records are %v, %v", records.States(), records.Err())
	}
	return nil
}

func snippet(ctx context.Context, old, next naming.Store) error {
	//snippet
	return nil
}
