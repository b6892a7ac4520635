package snippet

func snippet(old, next naming.Store, phases migrate.Source) error {
	//snippet
	return nil
}
