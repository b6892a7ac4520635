// Package gozero lets go-zero's zrpc servers and clients use a [naming.Client] in place of
// go-zero's own registry.
//
// A server announces itself with [Publish]:
//
//	register, err := gozero.Publish(c, "greeter", conf, func(s *grpc.Server) {
//		pb.RegisterGreeterServer(s, greeter)
//	}, nil)
//	...
//	server := zrpc.MustNewServer(conf, register) // conf has no section Etcd
//	server.Start()
//
// A client finds servers with [WithRegistry]:
//
//	client := zrpc.MustNewClient(zrpc.RpcClientConf{Target: "naming:///greeter"}, gozero.WithRegistry(c, nil))
//
// Nothing else changes: the interceptors, the breaker and the balancer are those of
// go-zero.
//
// # Addresses
//
// A server that listens on all interfaces, such as ":8080", does not know the address at
// which clients reach it. go-zero takes the environment variable POD_IP, and otherwise
// guesses: it takes the first IPv4 address of an interface that is up, which may be that of
// a bridge. Publish takes serve.Options.Addr first, then the host of ListenOn, then POD_IP.
// It does not guess: without all three it returns [naming.ErrInvalid]. A program that wants
// go-zero's guess asks for it by name:
//
//	&serve.Options{Addr: net.JoinHostPort(netx.InternalIp(), "8080")}
//
// # The stop
//
// On SIGTERM and SIGINT go-zero's package proc does this, with the times of the section
// Shutdown of the configuration:
//
//	the signal               the wrap-up listeners are called
//	+ WrapUpTime (1 s)       the shutdown listeners are called: zrpc stops the server gracefully
//	+ WaitTime (5.5 s)       the process is killed, counted from the signal as well
//
// Neither of the two times waits for a listener to return. Publish withdraws the endpoint
// as a wrap-up listener: the endpoint is marked as draining, clients turn to others, and the
// endpoint is removed after the drain delay. So the whole drain delay has to fit into
// WrapUpTime, and the calls in progress have WaitTime - WrapUpTime to end. Publish returns
// [naming.ErrInvalid] if the drain delay is longer than WrapUpTime, and says which setting
// is missing. The defaults fit each other: the drain delay and WrapUpTime are one second. A
// drain delay of 5 s needs
//
//	Shutdown:
//	  WrapUpTime: 5s
//	  WaitTime: 10s
//
// A registry that is slow to store the mark or to remove the entry does not delay the stop
// of the server: choose a WrapUpTime with room for that. The process does not end before the
// endpoint is removed, or WaitTime is nearly over: the entry then stays until its lease
// ends.
//
// Publish reads the configuration, and does not see a time that the program sets with
// proc.Setup or proc.SetTimeToForceQuit. On Windows package proc calls no listeners. There,
// as everywhere, naming.Client.Close withdraws what is registered.
//
// # Beside go-zero's own entries
//
// With the codec of etcdcodec.GoZero a Store of backend/etcd reads and writes the keys of
// go-zero's publisher: servers and clients can be moved in any order. The service is the Key
// of the section Etcd. The format is a bare address: it has no metadata, and no draining
// mark ([naming.Endpoint.NoDrainingMark]). The stop then removes the entry first, and serves
// on for the drain delay. [naming.Hold] does not apply to such entries, because an orderly
// stop looks like a loss, unless Hold.IncludeNoDrainingMark is set. See
// docs/coming-from/go-zero.md for the traps.
package gozero
