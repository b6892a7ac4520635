package etcd_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// history returns a channel of the changes of all keys below a prefix: a value, or
// "deleted".
func history(t *testing.T, client *clientv3.Client, prefix string) <-chan string {
	t.Helper()
	c := make(chan string, 100)
	responses := client.Watch(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-responses
	go func() {
		for resp := range responses {
			for _, ev := range resp.Events {
				if ev.Type == clientv3.EventTypeDelete {
					c <- "deleted"
				} else {
					c <- string(ev.Kv.Value)
				}
			}
		}
	}()
	return c
}

// until returns the values of a history up to the deletion.
func until(t *testing.T, c <-chan string) (values []string) {
	t.Helper()
	for {
		select {
		case v := <-c:
			if values = append(values, v); v == "deleted" {
				return values
			}
		case <-time.After(servertest.Patience):
			t.Fatalf("the entry is not deleted: %q", values)
		}
	}
}

// TestFieldI1OrderlyStop checks the values that a server writes when it stops in order, in
// each format. A reader of the format must see the same endpoint in all of them.
func TestFieldI1OrderlyStop(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	const (
		null     = `{"Op":0,"Addr":"127.0.0.1:1","Metadata":null}`
		marked   = `{"Op":0,"Addr":"127.0.0.1:1","Metadata":null,"Draining":true}`
		text     = `{"Op":0,"Addr":"127.0.0.1:1","Metadata":"v1"}`
		kratos   = `{"id":"127.0.0.1:1","name":"svc","version":"","metadata":null,"endpoints":["grpc://127.0.0.1:1"]%s}`
		kitex    = `{"network":"tcp","address":"127.0.0.1:1","weight":0,"tags":null%s}`
		gomicro  = `{"name":"svc","version":"","metadata":null,"endpoints":[],"nodes":[{"metadata":null,"id":"127.0.0.1:1","address":"127.0.0.1:1"}]%s}`
		serving  = `,"draining":false`
		draining = `,"draining":true`
	)
	for name, tt := range map[string]struct {
		options    etcd.Options
		metadata   string
		drainDelay time.Duration
		want       []string
	}{
		"default":            {want: []string{null, marked}},
		"default, text":      {metadata: `"v1"`, want: []string{text, strings.TrimSuffix(text, "}") + `,"Draining":true}`}},
		"nobody waited for":  {drainDelay: -1, want: []string{null}},
		"no marks":           {options: etcd.Options{NoDrainingMark: true}, want: []string{null}},
		"kratos":             {options: etcd.Options{Codec: etcdcodec.Kratos()}, want: []string{fmt.Sprintf(kratos, serving), fmt.Sprintf(kratos, draining)}},
		"kratos, no marks":   {options: etcd.Options{Codec: etcdcodec.Kratos(), NoDrainingMark: true}, want: []string{fmt.Sprintf(kratos, "")}},
		"kitex":              {options: etcd.Options{Codec: etcdcodec.Kitex()}, want: []string{fmt.Sprintf(kitex, serving), fmt.Sprintf(kitex, draining)}},
		"go-micro":           {options: etcd.Options{Codec: etcdcodec.GoMicro()}, want: []string{fmt.Sprintf(gomicro, serving), fmt.Sprintf(gomicro, draining)}},
		"go-zero":            {options: etcd.Options{Codec: etcdcodec.GoZero()}, want: []string{"127.0.0.1:1"}},
		"go-kit":             {options: etcd.Options{Codec: etcdcodec.GoKit()}, want: []string{"127.0.0.1:1"}},
		"go-kit, with a URL": {options: etcd.Options{Codec: etcdcodec.GoKit()}, metadata: `{"url":"http://127.0.0.1:1/x"}`, want: []string{"http://127.0.0.1:1/x"}},
	} {
		t.Run(name, func(t *testing.T) {
			client := cluster.Client(t)
			tt.options.Prefix = "/" + strings.ReplaceAll(name, ", ", "-")
			c := history(t, client, tt.options.Prefix+"/")
			var warnings strings.Builder
			r := naming.New(etcd.New(client, &tt.options), &naming.Options{Logger: slog.New(slog.NewTextHandler(&warnings, nil))})
			defer r.Close()
			if tt.drainDelay == 0 {
				tt.drainDelay = 50 * time.Millisecond
			}
			g, err := r.Register(t.Context(), "svc", naming.Endpoint{Addr: "127.0.0.1:1", Metadata: []byte(tt.metadata)},
				&naming.RegisterOptions{Wait: true, DrainDelay: tt.drainDelay})
			must(t, err)
			must(t, g.Close())
			if got := until(t, c); !slices.Equal(got, append(slices.Clone(tt.want), "deleted")) {
				t.Errorf("the entry was\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			if len(tt.want) == 2 {
				same(t, "the endpoint that a reader of the format sees", view(t, tt.want[0]), view(t, tt.want[1]))
			}
			r.Close()                                    // From here on nothing is logged.
			if warnings.Len() > 0 && tt.drainDelay > 0 { // Without a delay the endpoint leaves without a mark.
				t.Errorf("an orderly stop logs\n%s", &warnings)
			}
		})
	}
}

// view returns the endpoint that the framework's own type decodes from a value.
func view(t *testing.T, value string) string {
	t.Helper()
	var entry struct {
		Op, Addr, Metadata, Network, Weight, Tags, ID, Name, Version, Endpoints, Nodes any
	}
	must(t, json.Unmarshal([]byte(value), &entry))
	return fmt.Sprintf("%+v", entry)
}

// TestFieldI4FormatIsFinal checks that an endpoint for which the format has no place is
// refused at once, without a request and without a retry.
func TestFieldI4FormatIsFinal(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	for name, codec := range map[string]*etcd.Codec{"go-zero": etcdcodec.GoZero(), "go-kit": etcdcodec.GoKit()} {
		t.Run(name, func(t *testing.T) {
			rig := newRig(t, cluster, nil)
			c := naming.New(rig.store(codec), &naming.Options{Logger: slog.New(slog.DiscardHandler)})
			defer c.Close()
			e := naming.Endpoint{Addr: "127.0.0.1:1", Metadata: []byte(`{"weight":3}`)}
			if _, err := c.Register(t.Context(), "svc", e, &naming.RegisterOptions{Wait: true}); !errors.Is(err, naming.ErrInvalid) {
				t.Errorf("Register of metadata: err %v, want ErrInvalid", err)
			}
			e.Metadata = nil
			g, err := c.Register(t.Context(), "svc", e, &naming.RegisterOptions{Wait: true, DrainDelay: time.Millisecond})
			must(t, err)
			before := g.Status()
			ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
			defer cancel()
			if err := g.Drain(ctx); !errors.Is(err, naming.ErrInvalid) || ctx.Err() != nil {
				t.Errorf("Drain: err %v, want ErrInvalid", err)
			}
			if after := g.Status(); !reflect.DeepEqual(after, before) {
				t.Errorf("the status was %+v and is %+v", before, after)
			}
			if err := g.Update(ctx, []byte(`{"a":1}`)); !errors.Is(err, naming.ErrInvalid) || ctx.Err() != nil {
				t.Errorf("Update with metadata: err %v, want ErrInvalid", err)
			}
			if !g.Status().Registered {
				t.Errorf("the status is %+v", g.Status())
			}
			must(t, g.Close())
		})
	}
}

// TestFieldI2ForeignStop checks that kratos's own servers leave at once, without a log
// line, when all of them deregister. If all servers of this package in kratos's format
// vanish without a mark, they are held.
func TestFieldI2ForeignStop(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	for name, tt := range map[string]struct {
		more string // further members of an entry
		held bool
	}{
		"theirs":     {"", false},
		"ours":       {`,"draining":false`, true},
		"ours, left": {`,"draining":true`, false},
	} {
		t.Run(name, func(t *testing.T) {
			rig := newRig(t, cluster, nil)
			logged := make(chan string, 10)
			c := naming.New(rig.store(etcdcodec.Kratos()), &naming.Options{Logger: slog.New(slog.NewTextHandler(lineWriter(logged), nil))})
			defer c.Close()
			var deletes []clientv3.Op
			for i := range 4 {
				key := fmt.Sprintf("/microservices/svc/%d", i)
				rig.put(t, key, fmt.Sprintf(`{"id":"%d","name":"svc","version":"","metadata":null,"endpoints":["grpc://127.0.0.1:%d"]%s}`, i, i+1, tt.more))
				deletes = append(deletes, clientv3.OpDelete(rig.prefix+key))
			}
			ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
			defer cancel()
			views := make(chan naming.View, 10)
			go func() {
				defer close(views)
				for v, err := range c.Watch(ctx, "svc") {
					if err != nil {
						return
					}
					views <- v
				}
			}()
			if v := <-views; len(v.Endpoints) != 4 {
				t.Fatalf("the first view has %+v", v.Endpoints)
			}
			_, err := rig.admin.Txn(ctx).Then(deletes...).Commit()
			must(t, err)
			if tt.held {
				select {
				case line := <-logged:
					if !strings.Contains(line, "held") {
						t.Errorf("unexpected log line %s", line)
					}
				case <-ctx.Done():
					t.Error("no endpoint is held")
				}
				return
			}
			if v, ok := <-views; !ok || len(v.Endpoints) != 0 {
				t.Errorf("after the servers left, the view has %+v", v.Endpoints)
			}
			select {
			case line := <-logged:
				t.Errorf("an orderly stop logs %s", line)
			default:
			}
		})
	}
}

type lineWriter chan<- string

func (w lineWriter) Write(b []byte) (int, error) {
	select {
	case w <- string(b):
	default:
	}
	return len(b), nil
}
