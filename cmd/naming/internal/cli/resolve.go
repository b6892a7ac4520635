package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/show"
	"github.com/naming-go/naming/resolver"
)

// resolved is what a gRPC client would get.
type resolved struct {
	Target        string          `json:"target"`
	Service       string          `json:"service"`
	ServiceConfig string          `json:"serviceConfig"`
	Addresses     []show.Endpoint `json:"addresses"`
	LeftOut       []leftOut       `json:"leftOut"`
}

// leftOut is an endpoint that a gRPC client does not get.
type leftOut struct {
	show.Endpoint
	Why string `json:"why"`
}

func (a *app) resolveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "resolve TARGET", Short: "Show what a gRPC client would be given", Args: cobra.ExactArgs(1),
		Long: "Show the addresses that package resolver gives a gRPC client, with weights and zones, and which\n" +
			"endpoints are left out, and why. TARGET is the name of a service, or naming:///NAME.\n" +
			"The exit status is 1 if the client would get no address.",
		RunE:              run(func(ctx context.Context, args []string) error { return a.resolve(ctx, args[0]) }),
		ValidArgsFunction: a.completeServices,
	}
}

func (a *app) resolve(ctx context.Context, arg string) error {
	c, done, err := a.once(ctx)
	if err != nil {
		return err
	}
	defer done()
	b := resolver.NewBuilder(c, &resolver.Options{FirstAnswerTimeout: a.timeout})
	target := arg
	if !strings.HasPrefix(arg, resolver.DefaultScheme+":") {
		target = b.Target(arg)
	}
	u, err := url.Parse(target)
	if err != nil {
		return usage("%q is not a target", arg)
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	state, service, asked := ask(ctx, b, grpcresolver.Target{URL: *u})
	if errors.Is(asked, naming.ErrInvalid) || errors.Is(asked, context.DeadlineExceeded) {
		return a.resolveError(asked)
	}
	v, err := c.List(ctx, service)
	switch {
	case err != nil:
		return registryError(a.storeName(), err)
	case asked != nil && len(v.Endpoints) > 0:
		return a.resolveError(asked)
	case len(v.Endpoints)+len(v.Withheld)+len(v.Held) == 0:
		return a.unknownService(ctx, c, service)
	}
	// An error of the resolver without usable endpoints is what the client would get.
	doc := explain(target, service, state, v)
	if err := a.print(doc, func() string { return doc.text() }); err != nil {
		return err
	}
	if len(doc.Addresses) == 0 {
		return &statusError{status: statusNo}
	}
	return nil
}

// resolveError returns the error of a resolver: one of the registry, unless the target is
// wrong.
func (a *app) resolveError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v", a.timeout)
	}
	return registryError(a.storeName(), err)
}

// ask builds a resolver as a ClientConn does, and returns the first answer.
func ask(ctx context.Context, b *resolver.Builder, target grpcresolver.Target) (grpcresolver.State, string, error) {
	conn := &conn{answers: make(chan answer, 1)}
	r, err := b.Build(target, conn, grpcresolver.BuildOptions{})
	if err != nil {
		return grpcresolver.State{}, "", err
	}
	defer r.Close()
	select {
	case got := <-conn.answers:
		return got.state, target.Endpoint(), got.err
	case <-ctx.Done():
		return grpcresolver.State{}, "", ctx.Err()
	}
}

// conn is a ClientConn that keeps the first answer.
type conn struct {
	grpcresolver.ClientConn // panics if gRPC calls what is not here
	answers                 chan answer
}

type answer struct {
	state grpcresolver.State
	err   error
}

func (c *conn) put(a answer) {
	select {
	case c.answers <- a:
	default: // only the first counts
	}
}

func (c *conn) UpdateState(s grpcresolver.State) error { c.put(answer{state: s}); return nil }

func (c *conn) ReportError(err error) { c.put(answer{err: err}) }

func (c *conn) ParseServiceConfig(string) *serviceconfig.ParseResult {
	return &serviceconfig.ParseResult{}
}

// explain returns what a client gets of the endpoints of v, and why it does not get the rest.
func explain(target, service string, state grpcresolver.State, v naming.View) resolved {
	doc := resolved{Target: target, Service: service, ServiceConfig: resolver.DefaultServiceConfig, Addresses: []show.Endpoint{}, LeftOut: []leftOut{}}
	given, addrs := make(map[string]bool), make(map[string]bool)
	for _, re := range state.Endpoints {
		if e, ok := resolver.EndpointOf(re); ok {
			s := show.EndpointOf(e)
			if reason, withheld := resolver.ReasonOf(re); withheld {
				s.State, s.Reason = show.Withheld, reason.String()
			}
			doc.Addresses = append(doc.Addresses, s)
			given[e.ID], addrs[e.Addr] = true, true
		}
	}
	for _, e := range show.ServiceOf(v).Endpoints {
		if !given[e.ID] {
			doc.LeftOut = append(doc.LeftOut, leftOut{e, whyLeftOut(e, addrs)})
		}
	}
	return doc
}

func whyLeftOut(e show.Endpoint, given map[string]bool) string {
	switch {
	case e.Addr == "":
		return "the entry has no address"
	case e.State == show.Withheld:
		return e.Why()
	case given[e.Addr]:
		return "another entry has the same address"
	case e.State == show.Draining:
		return "draining, and others are not"
	}
	return "registered a moment ago"
}

func (r *resolved) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", show.Text(r.Target))
	if len(r.Addresses) == 0 {
		b.WriteString("\nA client gets no address.\n")
	} else {
		b.WriteString("\n" + endpointTable(r.Addresses, false))
	}
	if len(r.LeftOut) > 0 {
		rows := make([][]string, len(r.LeftOut))
		for i, e := range r.LeftOut {
			rows[i] = []string{show.Text(e.Addr), show.Text(e.ID), e.LeftOutText()}
		}
		b.WriteString("\n" + columns([]string{"LEFT OUT", "ID", "WHY"}, rows))
	}
	return b.String()
}

// LeftOutText returns why an endpoint is left out, and is safe to print.
func (l leftOut) LeftOutText() string { return naming.SafeText(l.Why) }
