package snippet

// Run has a server announce itself with the fragment, and checks that the endpoint is
// listed until ctx ends, and gone afterwards.
func Run(ctx context.Context) error {
	store := new(memory.Store)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c := naming.New(store, nil)
	defer c.Close()
	server := grpc.NewServer()
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		defer stop()
		ended <- snippet(running, c, store, server, listener)
	}()

	reader := naming.New(store, nil)
	defer reader.Close()
	listed := false
	for view, err := range reader.Watch(running, "greeter") {
		if err != nil {
			break // the fragment has ended, or was too slow
		}
		if len(view.Endpoints) == 1 {
			if got := view.Endpoints[0].Addr; got != listener.Addr().String() {
				return fmt.Errorf("the endpoint is %q", got)
			}
			listed = true
			break
		}
	}
	stop()
	if err := <-ended; err != nil {
		return err
	}
	if !listed {
		return errors.New("the endpoint was not listed")
	}
	view, err := reader.List(ctx, "greeter")
	if err == nil && len(view.Endpoints) > 0 {
		err = fmt.Errorf("left behind: %v", view.Endpoints)
	}
	return err
}

func snippet(ctx context.Context, c *naming.Client, store naming.Store, server *grpc.Server, listener net.Listener) error {
	addr, lis := listener.Addr().String(), listener
	_, _ = addr, lis
	{
		//snippet
	}
	return nil
}
