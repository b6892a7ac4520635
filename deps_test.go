package naming_test

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/naming-go/naming"

// TestDependencies asserts that packages import, directly or not, only what the rules
// allow. The rules are decisions (DESIGN.md): do not change them to mend a failure.
func TestDependencies(t *testing.T) {
	const (
		grpc   = "google.golang.org/grpc"
		etcd   = "go.etcd.io/"
		consul = "github.com/hashicorp/"
		xsync  = "golang.org/x/sync"
	)
	for _, rule := range []struct {
		pkg string
		// only are the packages outside of the standard library below which the
		// package may import. Nil means any.
		only []string
		// never are the packages below which the package must not import.
		never []string
	}{
		{pkg: ".", only: []string{module, xsync}},
		{pkg: "./conformance", only: []string{module, xsync}},
		{pkg: "./conformance/fault", only: []string{module, xsync}},
		{pkg: "./backend/memory", only: []string{module, xsync}},
		{pkg: "./resolver", never: []string{etcd, consul, module + "/backend/"}},
		{pkg: "./internal/pick", only: []string{module}},
		{pkg: "./balancer", never: []string{etcd, consul, module + "/backend/"}},
		{pkg: "./httptransport", never: []string{etcd, consul, module + "/backend/"}},
		{pkg: "./serve", never: []string{etcd, consul, module + "/backend/"}},
		{pkg: "./migrate", only: []string{module, xsync}, never: []string{module + "/backend/"}},
		{pkg: "./migrate/bridge", only: []string{module, xsync}, never: []string{module + "/backend/"}},
		{pkg: "./backend/etcd", never: []string{consul, module + "/backend/memory", module + "/backend/consul"}},
		{pkg: "./backend/consul", never: []string{etcd, grpc, module + "/backend/memory", module + "/backend/etcd"}},
		// A newcomer's first build compiles no registry's client.
		{pkg: "./examples/quickstart", never: []string{etcd, consul, module + "/backend/etcd", module + "/backend/consul", module + "/backend/open"}},
		{pkg: "./examples/migration", never: []string{etcd, consul, module + "/backend/etcd", module + "/backend/consul", module + "/backend/open"}},
		{pkg: "./examples/hello", never: []string{etcd, consul, module + "/backend/etcd", module + "/backend/consul", module + "/backend/open"}},
	} {
		out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", rule.pkg).CombinedOutput()
		if err != nil {
			t.Fatalf("go list %s: %v\n%s", rule.pkg, err, out)
		}
		for _, dep := range strings.Fields(string(out)) {
			if rule.only != nil && !below(dep, rule.only) {
				t.Errorf("%s depends on %s, but may depend on %v only", rule.pkg, dep, rule.only)
			}
			if self := module + strings.TrimPrefix(rule.pkg, "."); dep != self && below(dep, rule.never) {
				t.Errorf("%s depends on %s, which it must not", rule.pkg, dep)
			}
		}
	}
}

func below(pkg string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(pkg, p) {
			return true
		}
	}
	return false
}
