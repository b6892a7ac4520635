package etcd_test

import (
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
)

// The tests inside package etcd cannot import package etcdcodec: etcdcodec imports etcd.
func init() {
	etcd.AddCodecs(map[string]*etcd.Codec{
		"kratos": etcdcodec.Kratos(), "kitex": etcdcodec.Kitex(), "gomicro": etcdcodec.GoMicro(),
		"gozero": etcdcodec.GoZero(), "gokit": etcdcodec.GoKit(),
	})
}
