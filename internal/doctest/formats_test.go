package doctest

import (
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/consulcodec"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	"github.com/naming-go/naming/migrate"
)

// TestFormats: the table of formats in docs/migrating.md says what the formats keep, and
// which hold records.
func TestFormats(t *testing.T) {
	e, err := clientv3.New(clientv3.Config{Endpoints: []string{"127.0.0.1:1"}}) // is never connected
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	c, err := consul.NewClient(api.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	onEtcd := func(codec *etcd.Codec) naming.Store { return etcd.New(e, &etcd.Options{Codec: codec}) }
	onConsul := func(codec *consul.Codec) naming.Store { return consul.New(c, &consul.Options{Codec: codec}) }
	guide := readDoc(t, "docs/migrating.md")
	for _, row := range []struct {
		text   string
		stores []naming.Store
	}{
		{"etcd and Consul, the default formats | everything | yes", []naming.Store{onEtcd(nil), onConsul(nil)}},
		{"kratos, go-micro and grpc-spring in Consul | everything | yes",
			[]naming.Store{onConsul(consulcodec.Kratos()), onConsul(consulcodec.GoMicro()), onConsul(consulcodec.GRPCSpring())}},
		{"kratos, kitex and go-micro in etcd | everything | no",
			[]naming.Store{onEtcd(etcdcodec.Kratos()), onEtcd(etcdcodec.Kitex()), onEtcd(etcdcodec.GoMicro())}},
		{"go-zero, go-kit | neither metadata nor the draining mark | no",
			[]naming.Store{onEtcd(etcdcodec.GoZero()), onEtcd(etcdcodec.GoKit())}},
	} {
		if !strings.Contains(guide, "\n| "+row.text+" |\n") {
			t.Errorf("docs/migrating.md does not have the row %q", row.text)
		}
		for i, s := range row.stores {
			checkFormat(t, s, strings.Contains(row.text, "| everything |"), strings.HasSuffix(row.text, "| yes"))
			if t.Failed() {
				t.Fatalf("store %d of the row %q", i, row.text)
			}
		}
	}
}

// checkFormat checks whether the format of a store keeps everything, and holds records.
func checkFormat(t *testing.T, s naming.Store, everything, records bool) {
	t.Helper()
	rich := naming.Endpoint{ID: "a", Addr: "10.0.0.7:9000", Metadata: []byte(`{"weight":3,"zone":"a","tags":["x"],"owner":{"team":"x"}}`)}
	losses, err := migrate.Losses(s, service, []naming.Endpoint{rich})
	if err != nil || everything != (len(losses) == 0) {
		t.Errorf("everything is kept: %v; losses %v, %v", everything, losses, err)
	}
	plain, err := migrate.Losses(s, service, []naming.Endpoint{{Addr: "10.0.0.7:9000"}})
	if err != nil || everything != (len(plain) == 0) || len(plain) > 0 && !plain[0].Accepted(migrate.Accept{"draining-mark"}) {
		t.Errorf("the draining mark is kept: %v; losses %v, %v", everything, plain, err)
	}
	_, err = s.(naming.Mapper).Map(migrate.RecordService, naming.Endpoint{ID: "*", Metadata: []byte(`{"phase":3}`)})
	if records != (err == nil) {
		t.Errorf("records are kept: %v; %v", records, err)
	}
}
