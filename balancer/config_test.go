package balancer

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/naming-go/naming"
)

func number(i int) *int { return &i }

func TestParseConfig(t *testing.T) {
	for text, want := range map[string]Config{
		`{}`:                                 {},
		` { "pick" : "weighted" } `:          {Pick: Weighted},
		`{"pick":"least_loaded","zone":"a"}`: {Pick: LeastLoaded, Zone: "a"},
		`{"zone":"a","zoneFactor":1}`:        {Zone: "a", ZoneFactor: 1},
		`{"subset":20}`:                      {Subset: 20},
		`{"subset":20,"client":"host"}`:      {Subset: 20, Client: "host"},
		`{"subset":20,"clientNumber":0}`:     {Subset: 20, ClientNumber: number(0)},
		`{"zone":"` + long(MaxName) + `"}`:   {Zone: long(MaxName)},
		`{"zone":"a","zoneFactor":1.5e1}`:    {Zone: "a", ZoneFactor: 15},
		`{"pick":"","zone":"","subset":0}`:   {},
		`{"pick":null,"clientNumber":null}`:  {},
	} {
		got, err := builder{}.ParseConfig([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if c := got.(*lbConfig).Config; !reflect.DeepEqual(c, want) {
			t.Errorf("%s: %+v, want %+v", text, c, want)
		}
	}
}

func long(n int) string { return strings.Repeat("z", n) }

func TestParseConfigErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                                   "EOF",
		`null`:                               "not an object",
		`[]`:                                 "not an object",
		`{"pick":1}`:                         "pick",
		`{"pick":"Weighted"}`:                `"Weighted" is neither "weighted" nor "least_loaded"`,
		`{"pick":"round_robin"}`:             "round_robin",
		`{"zones":"a"}`:                      `unknown member "zones": the members are pick, zone, zoneFactor, subset, client, clientNumber`,
		`{"Zone":"a"}`:                       `"Zone"`,
		`{"zone":"a","zone":"b"}`:            `member "zone" twice`,
		`{"zone":"` + long(MaxName+1) + `"}`: "zone has 257 bytes, more than 256",
		`{"subset":1,"client":"` + long(300) + `"}`:  "client has 300 bytes",
		`{"zone":"a","zoneFactor":-1}`:               "zoneFactor -1 ",
		`{"zone":"a","zoneFactor":0.5}`:              "zoneFactor 0.5 is less than 1",
		`{"zone":"a","zoneFactor":"NaN"}`:            "zoneFactor",
		`{"zone":"a","zoneFactor":1e999}`:            "zoneFactor",
		`{"zoneFactor":2}`:                           "without zone",
		`{"subset":-1}`:                              "subset -1",
		`{"subset":1.5}`:                             "subset",
		`{"subset":99999999999}`:                     "subset",
		`{"client":"a"}`:                             "without subset",
		`{"clientNumber":1}`:                         "without subset",
		`{"subset":1,"clientNumber":-1}`:             "clientNumber -1",
		`{"subset":1,"clientNumber":1,"client":"a"}`: "exclude",
		`{} {}`: "after",
		`{}]`:   "after",
	} {
		_, err := builder{}.ParseConfig([]byte(text))
		switch {
		case err == nil:
			t.Errorf("%s: no error", text)
		case !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), want):
			t.Errorf("%s: the error does not have %q: %v", text, want, err)
		}
	}
}

func TestServiceConfig(t *testing.T) {
	dial := func(c Config) error {
		conn, err := grpc.NewClient("dns:///localhost:1", grpc.WithDefaultServiceConfig(c.ServiceConfig()),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	if got, want := (Config{}).ServiceConfig(), `{"loadBalancingConfig":[{"naming":{}}]}`; got != want {
		t.Errorf("ServiceConfig() = %s, want %s", got, want)
	}
	for _, c := range []Config{{}, {Pick: LeastLoaded, Zone: "ä\"\n", ZoneFactor: 1.1, Subset: 3, ClientNumber: number(0)}} {
		if err := dial(c); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, c := range []Config{
		{Pick: "x"}, {Zone: "a", ZoneFactor: math.NaN()}, {Zone: "a", ZoneFactor: math.Inf(1)}, {Subset: -1}, {Zone: long(300)},
	} {
		if err := dial(c); err == nil {
			t.Errorf("%+v: gRPC returns no error", c)
		}
		if err := c.Check(); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("%+v: Check() = %v", c, err)
		}
	}
	if err := (Config{Zone: "\xff"}).Check(); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("a zone that is not UTF-8: %v", err)
	}
}

// FuzzParseConfig checks that what the parser accepts is valid, and survives ServiceConfig.
func FuzzParseConfig(f *testing.F) {
	f.Add(`{"pick":"least_loaded","zone":"a","zoneFactor":1.4,"subset":3,"clientNumber":4}`)
	f.Add(`{"client":"x","subset":1}`)
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := builder{}.ParseConfig(json.RawMessage(text))
		if err != nil {
			return
		}
		c := parsed.(*lbConfig).Config
		if err := c.Check(); err != nil {
			t.Fatalf("%q: accepted, although %v", text, err)
		}
		var s struct {
			LoadBalancingConfig []map[string]json.RawMessage
		}
		if err := json.Unmarshal([]byte(c.ServiceConfig()), &s); err != nil {
			t.Fatal(err)
		}
		again, err := builder{}.ParseConfig(s.LoadBalancingConfig[0][Name])
		if err != nil || !reflect.DeepEqual(again.(*lbConfig).Config, c) {
			t.Fatalf("%q: %+v, and after ServiceConfig %+v, %v", text, c, again, err)
		}
	})
}
