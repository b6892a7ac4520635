package doctest

import (
	"maps"
	"strings"
)

const module = "github.com/naming-go/naming"

// names is what a fragment may use without saying where it is from.
type names struct {
	imports   map[string]string // path by the name that fragments use
	variables map[string]string // type by name
}

// variable returns the type of a variable that a fragment does not declare. The name
// client stands for the client of the registry that the fragment names.
func (n names) variable(name, fragment string) string {
	if name == "client" && n.variables[name] == "" {
		if strings.Contains(fragment, "consul") {
			return "*api.Client"
		}
		return "*clientv3.Client"
	}
	return n.variables[name]
}

// ours are the names of fragments in the root module.
var ours = names{
	imports: map[string]string{
		"balancer":         module + "/balancer",
		"httptransport":    module + "/httptransport",
		"naming":           module,
		"conformance":      module + "/conformance",
		"consul":           module + "/backend/consul",
		"consulcodec":      module + "/backend/consul/consulcodec",
		"etcd":             module + "/backend/etcd",
		"etcdcodec":        module + "/backend/etcd/etcdcodec",
		"etcdnaming":       module + "/backend/etcd",
		"consulnaming":     module + "/backend/consul",
		"fault":            module + "/conformance/fault",
		"bridge":           module + "/migrate/bridge",
		"memory":           module + "/backend/memory",
		"migrate":          module + "/migrate",
		"open":             module + "/backend/open",
		"otelnaming":       module + "/observe/otel",
		"prometheusnaming": module + "/observe/prometheus",
		"resolver":         module + "/resolver",
		"serve":            module + "/serve",

		"api":          "github.com/hashicorp/consul/api",
		"clientv3":     "go.etcd.io/etcd/client/v3",
		"codes":        "google.golang.org/grpc/codes",
		"credentials":  "google.golang.org/grpc/credentials",
		"grpc":         "google.golang.org/grpc",
		"grpcresolver": "google.golang.org/grpc/resolver",
		"health":       "google.golang.org/grpc/health",
		"healthpb":     "google.golang.org/grpc/health/grpc_health_v1",
		"insecure":     "google.golang.org/grpc/credentials/insecure",
		"prometheus":   "github.com/prometheus/client_golang/prometheus",
		"promhttp":     "github.com/prometheus/client_golang/prometheus/promhttp",
		"status":       "google.golang.org/grpc/status",

		"atomic":   "sync/atomic",
		"context":  "context",
		"errors":   "errors",
		"fmt":      "fmt",
		"http":     "net/http",
		"json":     "encoding/json",
		"log":      "log",
		"net":      "net",
		"os":       "os",
		"signal":   "os/signal",
		"slog":     "log/slog",
		"strings":  "strings",
		"sync":     "sync",
		"syscall":  "syscall",
		"testing":  "testing",
		"synctest": "testing/synctest",
		"time":     "time",
		"tls":      "crypto/tls",
	},
	variables: map[string]string{
		"addr":         "string",
		"c":            "*naming.Client",
		"conn":         "*grpc.ClientConn",
		"consulClient": "*api.Client",
		"ctx":          "context.Context",
		"etcdClient":   "*clientv3.Client",
		"h":            "*health.Server",
		"handler":      "any",
		"lis":          "net.Listener",
		"listener":     "net.Listener",
		"mux":          "*http.ServeMux",
		"next":         "naming.Store",
		"old":          "naming.Store",
		"phases":       "migrate.Source",
		"reg":          "*naming.Registration",
		"s":            "*grpc.Server",
		"server":       "*grpc.Server",
		"store":        "naming.Store",
		"t":            "*testing.T",
		"url":          "string",
		"use":          "func([]naming.Endpoint)",
		"view":         "naming.View",
	},
}

// theirs are the names of fragments of other libraries.
var theirs = names{
	imports: map[string]string{
		"api":          "github.com/hashicorp/consul/api",
		"clientv3":     "go.etcd.io/etcd/client/v3",
		"discov":       "github.com/zeromicro/go-zero/core/discov",
		"endpoints":    "go.etcd.io/etcd/client/v3/naming/endpoints",
		"etcdresolver": "go.etcd.io/etcd/client/v3/naming/resolver",
		"etcdv3":       "github.com/go-kit/kit/sd/etcdv3",
		"grpc":         "google.golang.org/grpc",
		"insecure":     "google.golang.org/grpc/credentials/insecure",
		"kgrpc":        "github.com/go-kratos/kratos/v2/transport/grpc",
		"kitexetcd":    "github.com/kitex-contrib/registry-etcd",
		"kratosconsul": "github.com/go-kratos/kratos/contrib/registry/consul/v2",
		"kratosetcd":   "github.com/go-kratos/kratos/contrib/registry/etcd/v2",
		"registry":     "github.com/cloudwego/kitex/pkg/registry",
		"sd":           "github.com/go-kit/kit/sd",
		"zrpc":         "github.com/zeromicro/go-zero/zrpc",

		"context": "context",
		"fmt":     "fmt",
		"log":     "log",
		"net":     "net",
		"time":    "time",
	},
	variables: map[string]string{
		"addr":      "string",
		"cli":       "*clientv3.Client",
		"consul":    "*api.Client",
		"ctx":       "context.Context",
		"host":      "string",
		"kitLogger": "interface{ Log(...any) error }",
		"port":      "int",
		"use":       "func([]string)",
	},
}

// theirsOld replaces the paths of etcd's former packages, for DIR interop/old.
var theirsOld = map[string]string{
	"clientv3":   "go.etcd.io/etcd/clientv3",
	"etcdnaming": "go.etcd.io/etcd/clientv3/naming",
	"naming":     "google.golang.org/grpc/naming",
}

// withContrib returns the names of fragments that use a framework on this library, in the
// module of the directory.
func withContrib(dir string) names {
	n := names{imports: maps.Clone(ours.imports), variables: maps.Clone(ours.variables)}
	maps.Copy(n.imports, theirs.imports)
	maps.Copy(n.imports, contrib[dir].imports)
	maps.Copy(n.variables, contrib[dir].variables)
	return n
}

// contrib are the names of fragments in the modules below contrib.
var contrib = map[string]names{
	"contrib/gokit": {
		imports:   map[string]string{"gokitnaming": module + "/contrib/gokit"},
		variables: map[string]string{"factory": "sd.Factory", "kitLogger": "log.Logger"},
	},
	"contrib/gomicro": {
		imports: map[string]string{"gomicro": module + "/contrib/gomicro", "micro": "go-micro.dev/v4"},
	},
	"contrib/gozero": {
		imports:   map[string]string{"gozero": module + "/contrib/gozero"},
		variables: map[string]string{"conf": "zrpc.RpcServerConf", "register": "func(*grpc.Server)"},
	},
	"contrib/kitex": {
		imports: map[string]string{"kitexnaming": module + "/contrib/kitex", "client": "github.com/cloudwego/kitex/client", "server": "github.com/cloudwego/kitex/server"},
	},
	"contrib/kratos": {
		imports: map[string]string{"kratosnaming": module + "/contrib/kratos", "kratos": "github.com/go-kratos/kratos/v2"},
	},
}
