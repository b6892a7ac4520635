package consul_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/consulcodec"
)

// memoryAgent is a transport that keeps the last registration. It does no I/O.
type memoryAgent struct {
	tb      testing.TB
	service *api.AgentServiceRegistration
}

func (a *memoryAgent) RoundTrip(req *http.Request) (*http.Response, error) {
	var answer []byte
	switch {
	case req.Method == http.MethodPut && req.URL.Path == "/v1/agent/service/register":
		a.service = new(api.AgentServiceRegistration)
		if err := json.NewDecoder(req.Body).Decode(a.service); err != nil {
			a.tb.Error(err)
		}
	case req.Method == http.MethodGet && strings.HasPrefix(req.URL.Path, "/v1/health/service/"):
		s := a.service
		entry := map[string]any{
			"Node":    map[string]string{"Node": "n", "Address": "10.0.0.1"},
			"Service": map[string]any{"ID": s.ID, "Service": s.Name, "Address": s.Address, "Port": s.Port, "Meta": s.Meta, "Tags": s.Tags},
		}
		var err error
		if answer, err = json.Marshal([]any{entry}); err != nil {
			a.tb.Error(err)
		}
	default:
		a.tb.Errorf("unexpected request %s %s", req.Method, req.URL)
	}
	header := make(http.Header)
	header.Set("X-Consul-Index", "1")
	header.Set("X-Consul-Knownleader", "true")
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(bytes.NewReader(answer)), Request: req}, nil
}

// BenchmarkApply puts an endpoint with metadata of some members, without the time of an
// agent.
func BenchmarkApply(b *testing.B) {
	var members []string
	for i := range 20 {
		members = append(members, fmt.Sprintf("%q:%q", fmt.Sprint("key", i), strings.Repeat("value", i)))
	}
	metadata := "{" + strings.Join(members, ",") + "}"
	for name, codec := range map[string]*consul.Codec{"default": nil, "gomicro": consulcodec.GoMicro()} {
		b.Run(name, func(b *testing.B) {
			client, err := api.NewClient(&api.Config{Address: "agent:8500", HttpClient: &http.Client{Transport: &memoryAgent{tb: b}}})
			if err != nil {
				b.Fatal(err)
			}
			s := consul.New(client, &consul.Options{Codec: codec})
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Apply(b.Context(), "svc", add(nil, ep("a", "10.0.0.1:80", metadata))...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
