package serve_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/serve"
)

// setenv sets the variables of a test, "A=b C=d", and removes all others of the prefix.
func setenv(t *testing.T, vars ...string) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, serve.EnvPrefix) {
			t.Setenv(name, "")
		}
	}
	for _, v := range vars {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
}

func TestFillFromEnv(t *testing.T) {
	setenv(t, "NAMING_ADDR=10.0.0.7:9000", "NAMING_ID=seven", `NAMING_METADATA={"note":1}`, "NAMING_WEIGHT=2.5",
		"NAMING_ZONE=b", "NAMING_VERSION=v2", "NAMING_TAGS=blue, fast", "NAMING_TTL=30s", "NAMING_DRAIN_DELAY=0s",
		"NAMING_CLOSE_TIMEOUT=20s", "NAMING_STOP_TIMEOUT=0s", "NAMING_READY_EVERY=5s", "NAMING_STORE=memory:", "NAMING_NONSENSE=1")
	var o serve.Options
	if err := o.FillFromEnv(""); err != nil {
		t.Fatal(err)
	}
	info := naming.Endpoint{Metadata: o.Metadata}.Info()
	if info.Weight != 2.5 || info.Zone != "b" || info.Version != "v2" || strings.Join(info.Tags, "|") != "blue|fast" || !strings.Contains(string(o.Metadata), `"note":1`) {
		t.Errorf("the metadata is %s", o.Metadata)
	}
	if r := o.Register; r.TTL != 30*time.Second || r.DrainDelay != -1 || r.CloseTimeout != 20*time.Second {
		t.Errorf("%+v", r)
	}
	if o.Addr != "10.0.0.7:9000" || o.ID != "seven" || o.StopTimeout >= 0 || o.ReadyEvery != 5*time.Second || o.Host != nil {
		t.Errorf("%+v", o)
	}
}

// TestFillFromEnvProgramWins: an option that the program has set keeps its value.
func TestFillFromEnvProgramWins(t *testing.T) {
	setenv(t, "NAMING_HOST_INTERFACE=eth0", "NAMING_ID=env", `NAMING_METADATA={"env":1}`, "NAMING_ZONE=env",
		"NAMING_VERSION=env", "NAMING_TTL=30s", "NAMING_DRAIN_DELAY=7s", "NAMING_STOP_TIMEOUT=7s", "NAMING_READY_EVERY=7s")
	reg := naming.RegisterOptions{TTL: time.Minute}
	o := serve.Options{Addr: "10.0.0.9:1", ID: "own", Metadata: []byte(`{"zone":"own"}`), Register: &reg, StopTimeout: -1, ReadyEvery: time.Minute}
	if err := o.FillFromEnv(serve.EnvPrefix); err != nil {
		t.Fatal(err)
	}
	if o.Addr != "10.0.0.9:1" || o.Host != nil || o.ID != "own" || o.StopTimeout != -1 || o.ReadyEvery != time.Minute {
		t.Errorf("%+v", o)
	}
	var members map[string]string
	if json.Unmarshal(o.Metadata, &members) != nil || len(members) != 2 || members["zone"] != "own" || members["version"] != "env" {
		t.Errorf("the metadata is %s", o.Metadata)
	}
	if o.Register.TTL != time.Minute || o.Register.DrainDelay != 7*time.Second {
		t.Errorf("%+v", o.Register)
	}
	if reg.DrainDelay != 0 {
		t.Error("the caller's options were changed")
	}
	own := func(context.Context, net.Listener) (string, error) { return "own", nil }
	o = serve.Options{Host: own}
	t.Setenv("NAMING_ADDR", "10.0.0.7:9000")
	t.Setenv("NAMING_HOST_INTERFACE", "")
	if err := o.FillFromEnv(""); err != nil || o.Addr != "" {
		t.Errorf("%q, %v", o.Addr, err)
	}
}

func TestFillFromEnvHost(t *testing.T) {
	setenv(t, "NAMING_HTTP_HOST_ENV=TEST_POD_IP", "TEST_POD_IP=10.0.0.7", "NAMING_HOST_ENV=OTHER", "NAMING_ID=other")
	var o serve.Options
	if err := o.FillFromEnv("NAMING_HTTP_"); err != nil || o.Host == nil || o.ID != "" {
		t.Fatalf("%v, %+v", err, o)
	}
	if host, err := o.Host(t.Context(), nil); host != "10.0.0.7" || err != nil {
		t.Errorf("%q, %v", host, err)
	}
	for _, name := range []string{"HOST_INTERFACE", "HOST_ROUTE"} {
		setenv(t, "NAMING_"+name+"=no such thing")
		var o serve.Options
		if err := o.FillFromEnv(""); err != nil || o.Host == nil {
			t.Fatal(err)
		}
		if _, err := o.Host(t.Context(), nil); !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), "no such thing") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFillFromEnvMalformed: the error names the variable, and nothing is changed.
func TestFillFromEnvMalformed(t *testing.T) {
	for _, vars := range []string{
		"NAMING_ADDR=0.0.0.0:80", "NAMING_ADDR=nonsense", "NAMING_METADATA={", "NAMING_WEIGHT=heavy", "NAMING_WEIGHT=0",
		"NAMING_WEIGHT=-1", "NAMING_WEIGHT=NaN", "NAMING_WEIGHT=Inf", "NAMING_WEIGHT=1e999", "NAMING_TAGS=a,,b", "NAMING_TTL=15", "NAMING_TTL=1ms",
		"NAMING_TTL=25h", "NAMING_TTL=0s", "NAMING_DRAIN_DELAY=-1s", "NAMING_DRAIN_DELAY=2h", "NAMING_CLOSE_TIMEOUT=0s",
		"NAMING_STOP_TIMEOUT=-1s", "NAMING_READY_EVERY=1ns", "NAMING_READY_EVERY=2h",
		"NAMING_HOST_ENV=A;NAMING_ADDR=10.0.0.7:9000", "NAMING_HOST_INTERFACE=a;NAMING_HOST_ENV=b", "NAMING_HOST_ROUTE=a:1;NAMING_HOST_ENV=b",
		"NAMING_ZONE=a;NAMING_METADATA=[1]", `NAMING_ZONE=a;NAMING_METADATA={"zone":"a"}`, `NAMING_WEIGHT=1;NAMING_METADATA="text"`,
	} {
		t.Run(vars, func(t *testing.T) {
			setenv(t, append(strings.Split(vars, ";"), "NAMING_ID=seven")...)
			var o serve.Options
			err := o.FillFromEnv("")
			name, _, _ := strings.Cut(vars, "=")
			if !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), name) {
				t.Errorf("FillFromEnv returned %v", err)
			}
			if o.ID != "" || o.Addr != "" || o.Host != nil || o.Metadata != nil || o.Register != nil {
				t.Errorf("the options were changed: %+v", o)
			}
		})
	}
}
