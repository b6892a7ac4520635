package snippet

// Run makes a call on the connection that the fragment makes.
func Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	go server.Serve(listener)
	defer server.Stop()
	store := new(memory.Store)
	c := naming.New(store, nil)
	defer c.Close()
	reg, err := c.Register(ctx, "greeter", naming.Endpoint{Addr: listener.Addr().String()},
		&naming.RegisterOptions{DrainDelay: -1})
	if err != nil {
		return err
	}
	defer reg.Close()
	return snippet(ctx, c, store)
}

func snippet(ctx context.Context, c *naming.Client, store naming.Store) error {
	//snippet
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	return err
}
