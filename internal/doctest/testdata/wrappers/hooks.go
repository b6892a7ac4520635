package snippet

// Run has the fragment count the loss of an endpoint.
func Run(ctx context.Context) error {
	return snippet(new(memory.Store), new(atomic.Int64), new(atomic.Int64))
}

func snippet(store naming.Store, lost, held *atomic.Int64) error {
	//snippet
	return nil
}
