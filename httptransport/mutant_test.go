package httptransport_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

func TestMutants(t *testing.T) { mutant.Run(t, ".", 1, mutants) }

var mutants = []mutant.Mutant{
	{
		Name: "retries a POST request whose connection broke",
		File: "transport.go",
		Old:  "return isReplayable(req) && isBroken(err)",
		New:  "return isBroken(err)",
		Test: "^TestRetryOfBrokenConnections$",
	},
	{
		Name: "retries a request whose body was read",
		File: "body.go",
		Old:  "\tif b.read {\n\t\treturn false\n\t}\n",
		New:  "",
		Test: "^Test(BodyOfAttempts|RetryOfBrokenConnections)$",
	},
	{
		Name: "retries a body that cannot be read again",
		File: "transport.go",
		Old:  "\tif req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {\n\t\treturn false\n\t}\n",
		New:  "",
		Test: "^TestRetryOfBrokenConnections$|^TestReplayable$",
	},
	{
		Name: "retries after a timeout",
		File: "errors.go",
		Old:  "if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {\n\t\treturn false",
		New:  "if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {\n\t\treturn true",
		Test: "^TestNoRetryAfterTimeout$",
	},
	{
		Name: "retries a response that says that the server cannot serve",
		File: "endpoint.go",
		Old:  "\tc.respond(resp)\n",
		New:  "\tif resp.StatusCode == 503 {\n\t\treturn nil, &dialError{io.EOF}\n\t}\n\tc.respond(resp)\n",
		Test: "^TestNoRetryAfterResponse$",
	},
	{
		Name: "retries after the end of the context",
		File: "transport.go",
		Old:  "if req.Context().Err() != nil {\n\t\t\treturn nil, err\n\t\t}",
		New:  "",
		Test: "^TestNoRetryAfterCancelWhileDialing$",
	},
	{
		Name: "retries on the same endpoint",
		File: "transport.go",
		Old:  "tried = append(tried, e)",
		New:  "tried = append(tried, nil)",
		Test: "^TestMaxAttempts$",
	},
	{
		Name: "uses endpoints that the resolver has left out",
		File: "service.go",
		Old:  "\tfor _, e := range old {\n\t\tgone = append(gone, e)",
		New:  "\tfor _, e := range old {\n\t\tm.list = append(m.list, e)\n\t\tgone = append(gone, e)",
		Test: "^TestDraining$",
	},
	{
		Name: "leaves the body open when no endpoint is left",
		File: "body.go",
		Old:  "b.current, b.begun = nil, false\n",
		New:  "b.current = nil\n",
		Test: "^TestFailuresCloseTheBody$",
	},
	{
		Name: "leaves the body open when the service has no endpoints",
		File: "transport.go",
		Old:  "resp, err := s.send(req, body)\n\tbody.settle()\n",
		New:  "resp, err := s.send(req, body)\n\tif err == nil {\n\t\tbody.settle()\n\t}\n",
		Test: "^TestNoEndpoints$",
	},
	{
		Name: "closes the body before the next attempt",
		File: "body.go",
		Old:  "if first && b.settled && b.source != nil {",
		New:  "if first && b.source != nil {",
		Test: "^TestRetryOfDials$",
	},
	{
		Name: "checks the certificate for the address in the registry",
		File: "endpoint.go",
		Old:  "t.TLSClientConfig.ServerName = e.service.name\n",
		New:  "t.TLSClientConfig.ServerName = \"\"\n",
		Test: "^TestCertificate$",
	},
	{
		Name: "sends the address as the host",
		File: "endpoint.go",
		Old:  "\tc.url.Host = e.host\n",
		New:  "\tc.url.Host, c.req.Host = e.host, e.host\n",
		Test: "^TestHost$",
	},
	{
		Name: "uses a proxy",
		File: "options.go",
		Old:  "\tbase.Proxy = nil\n",
		New:  "",
		Test: "^TestNoProxy$",
	},
	{
		Name: "keeps the connections of endpoints that left",
		File: "service.go",
		Old:  "\tfor _, e := range gone {\n\t\te.leave()\n\t}\n",
		New:  "\t_ = gone\n",
		Test: "^TestDepartedConnections$",
	},
	{
		Name: "keeps connections that become idle after their endpoint left",
		File: "endpoint.go",
		Old:  "\tc.end()\n\tif c.endpoint.gone.Load() {\n",
		New:  "\tc.end()\n\tif false {\n",
		Test: "^TestDepartedConnections$",
	},
	{
		Name: "makes new connections when metadata change",
		File: "service.go",
		Old:  "e := old[found.Addr]\n",
		New:  "var e *endpoint\n",
		Test: "^TestReuse$",
	},
	{
		Name: "does not avoid endpoints that cannot be dialed",
		File: "service.go",
		Old:  "\t\tif e.dials.failures > 0 {\n\t\t\tc.avoid(e)",
		New:  "\t\tif false {\n\t\t\tc.avoid(e)",
		Test: "^TestAvoid$",
	},
	{
		Name: "avoids an endpoint for ever",
		File: "service.go",
		Old:  "!c.probe.IsZero() && len(tried) == 0",
		New:  "false",
		Test: "^TestAvoid$",
	},
	{
		Name: "counts a request as ended with the response headers",
		File: "endpoint.go",
		Old:  "\tdefault:\n\t\tresp.Body = c\n",
		New:  "\tdefault:\n\t\tresp.Body = c\n\t\tc.end()\n",
		Test: "^Test(LeastLoaded|IdleService)$",
	},
	{
		Name: "releases a service in use",
		File: "services.go",
		Old:  "if s.users.Load() == 0 && s.used",
		New:  "if s.used",
		Test: "^TestIdleService$",
	},
	{
		Name: "follows any number of services",
		File: "services.go",
		Old:  "len(r.byName) >= limit",
		New:  "false",
		Test: "^TestMaxServices$",
	},
	{
		Name: "releases the service that is used for one that nobody registered",
		File: "services.go",
		Old:  "empty := s.isEmpty()\n",
		New:  "empty := !s.isEmpty()\n",
		Test: "^TestMaxServices$",
	},
}
