package snippet

func snippet(store naming.Store) error {
	//snippet
	return nil
}
