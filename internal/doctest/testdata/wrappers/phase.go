package snippet

// Run has the fragment write a record, and reads it.
func Run(ctx context.Context) error {
	old, next := new(memory.Store), new(memory.Store)
	if err := snippet(ctx, old, next); err != nil {
		return err
	}
	records := migrate.ReadRecords(ctx, old, next)
	for _, r := range []migrate.RegistryRecords{records.Old, records.New} {
		if s := r.States["greeter"]; s.Phase != migrate.PreferNew || s.Share != 0.1 {
			return fmt.Errorf("a registry has %v", s)
		}
	}
	return nil
}

func snippet(ctx context.Context, old, next naming.Store) error {
	//snippet
	if state.Seq != 1 {
		return fmt.Errorf("the state is %v", state)
	}
	return nil
}
