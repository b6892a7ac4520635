package consul_test

import (
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/consulcodec"
	"github.com/naming-go/naming/conformance"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/mutant"
)

// TestConformance checks the contract of a Store. At full length it also runs on an agent
// without the streaming backend, and with each codec.
func TestConformance(t *testing.T) {
	conform(t, nil, nil)
	if !mutant.Full() {
		return
	}
	t.Run("without streaming", func(t *testing.T) {
		conform(t, map[string]any{"use_streaming_backend": false, "rpc": map[string]any{"enable_streaming": false}}, nil)
	})
	t.Run("kratos", func(t *testing.T) { conform(t, nil, consulcodec.Kratos()) })
	t.Run("grpcspring", func(t *testing.T) { conform(t, nil, consulcodec.GRPCSpring()) })
	t.Run("gomicro", func(t *testing.T) { conform(t, nil, consulcodec.GoMicro()) })
}

func conform(t *testing.T, config map[string]any, codec *consul.Codec) {
	agent := consultest.Start(t, &consultest.Options{ACL: true, Config: config})
	token := agent.CreateToken(t, all)
	many := 200
	if mutant.Full() {
		many = 1000
	}
	conformance.Run(t, conformance.Harness{
		New: func(t *testing.T) naming.Store {
			return newRig(t, agent, func(c *api.Config, o *consul.Options) { c.Token, o.Codec = token.Secret, codec })
		},
		Interrupt: func(t *testing.T, s naming.Store) { s.(*rig).interrupt(t) },
		Silence: func(t *testing.T, s naming.Store) func() {
			s.(*rig).proxy.BlackHole()
			return s.(*rig).proxy.Heal
		},
		SilenceBound: consul.New(nil, &consul.Options{Wait: 6 * time.Second}).SilenceBound(),
		Down: func(t *testing.T, s naming.Store) func() {
			s.(*rig).proxy.Cut()
			return s.(*rig).proxy.Heal
		},
		Deny: func(t *testing.T, s naming.Store) func() {
			agent.RevokeToken(t, token)
			return func() { agent.RestoreToken(t, token) }
		},
		Cause: consulError,
		// An idle watch makes one request in each wait, which is longer than Quiet.
		Calls:     func(s naming.Store) int { return int(s.(*rig).calls.Load()) },
		Malformed: func(t *testing.T, s naming.Store, service, id string) string { return s.(*rig).spoil(t, service, id) },
		Beyond:    func(t *testing.T, s naming.Store, service, id string) string { return s.(*rig).exceed(t, service, id) },
		Withhold: func(t *testing.T, s naming.Store, service, id string, reason naming.Reason) func() {
			return s.(*rig).withhold(t, service, id, reason)
		},
		Lose: func(t *testing.T, s naming.Store, l naming.Lease) { s.(*rig).lose(t, l) },
		Reported: func(s naming.Store) []naming.MalformedError {
			r := s.(*rig)
			r.mu.Lock()
			defer r.mu.Unlock()
			return append([]naming.MalformedError(nil), r.reported...)
		},
		NotAtomic: "The changes are made in their order, one request each or more, and are seen one by one.",
		TTL:       time.Second,
		Many:      many,
	})
}
