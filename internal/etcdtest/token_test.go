package etcdtest

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// useToken reads a key with a token. etcd's client cannot be used: it replaces an
// expired token.
func useToken(ctx context.Context, c *Cluster, token string) error {
	conn, err := grpc.NewClient(c.Members[0].Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
	_, err = pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("a/1")})
	return rpctypes.Error(err)
}
