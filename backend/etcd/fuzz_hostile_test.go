package etcd_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// message decodes the protobuf message b. If b is malformed, it returns an empty message.
func message[T any](b []byte) *T {
	m := new(T)
	if err := encoding.GetCodecV2("proto").Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, m); err != nil {
		return new(T)
	}
	return m
}

// bytesOf encodes a protobuf message.
func bytesOf(f *testing.F, m any) []byte {
	f.Helper()
	b, err := encoding.GetCodecV2("proto").Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	return b.Materialize()
}

// FuzzHostileAnswers has a server send answers of the fuzzer for a minute: to reads,
// watches, renewals and grants, and as errors. On watches and renewals the fuzzer's
// answer follows the true answer. The program must not crash, hang or send a storm of
// requests. It must recover when the server answers the truth again.
func FuzzHostileAnswers(f *testing.F) {
	type sample struct {
		read, watch, alive, grant []byte
		text                      string
	}
	var samples []sample
	for _, row := range hostile {
		s := sample{text: junk}
		if row.read != nil {
			q := &pb.RangeRequest{Key: []byte("svc/"), RangeEnd: []byte("svc0"), Limit: 10}
			r, err := row.read(q, &pb.RangeResponse{Header: &pb.ResponseHeader{ClusterId: 7, Revision: 10}})
			if err == nil && len(r.Kvs) <= 10 {
				s.read = bytesOf(f, r)
			}
		}
		if row.watch != nil && row.minutes == 0 {
			rs, err := row.watch(&pb.WatchCreateRequest{Key: []byte("svc/")}, &pb.WatchResponse{Header: &pb.ResponseHeader{ClusterId: 7, Revision: 10}, Created: true})
			if err == nil && len(rs) > 0 && len(rs[len(rs)-1].CancelReason) < 1000 {
				s.watch = bytesOf(f, rs[len(rs)-1])
			}
		}
		if row.grant != nil {
			if r, err := row.grant(&pb.LeaseGrantResponse{ID: 1, TTL: 15}); err == nil && len(r.Error) < 1000 {
				s.grant = bytesOf(f, r)
			}
		}
		samples = append(samples, s)
	}
	for i, s := range samples {
		f.Add(s.read, s.watch, s.alive, s.grant, uint8(i%17), s.text)
	}
	f.Fuzz(func(t *testing.T, read, watch, alive, grant []byte, code uint8, text string) {
		if len(read)+len(watch)+len(alive)+len(grant)+len(text) > 1<<16 {
			return
		}
		var failure error
		if c := codes.Code(code % 32); c != codes.OK {
			failure = status.Error(c, text)
		}
		// An empty part means the true answer. Of five reads, the first returns failure.
		var reads atomic.Int64
		a := answers{}
		if len(read) > 0 {
			a.read = func(*pb.RangeRequest, *pb.RangeResponse) (*pb.RangeResponse, error) {
				if reads.Add(1)%5 == 1 && failure != nil {
					return nil, failure
				}
				return message[pb.RangeResponse](read), nil
			}
		}
		if len(watch) > 0 {
			a.watch = func(_ *pb.WatchCreateRequest, r *pb.WatchResponse) ([]*pb.WatchResponse, error) {
				as, is := message[pb.WatchResponse](watch), message[pb.WatchResponse](watch)
				is.WatchId = r.WatchId // With another ID the answer would belong to no watch.
				return []*pb.WatchResponse{r, is, as}, failure
			}
		}
		if len(alive) > 0 {
			a.alive = func(r *pb.LeaseKeepAliveResponse) ([]*pb.LeaseKeepAliveResponse, error) {
				as, is := message[pb.LeaseKeepAliveResponse](alive), message[pb.LeaseKeepAliveResponse](alive)
				is.ID = r.ID
				return []*pb.LeaseKeepAliveResponse{as, is}, failure
			}
		}
		if len(grant) > 0 {
			a.alive = dead
			a.grant = func(*pb.LeaseGrantResponse) (*pb.LeaseGrantResponse, error) {
				return message[pb.LeaseGrantResponse](grant), nil
			}
		}
		synctest.Test(t, func(t *testing.T) {
			v := newVictim(t, "")
			v.fuzzed = true
			v.suffer(t, 1, 1000, a)
		})
	})
}
