package etcd

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
)

// offline returns a Store whose client reaches no server. A call that returns at once
// made no request.
func offline(t *testing.T, o *Options) *Store {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"192.0.2.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return New(client, o)
}

// TestFieldI1MarkIsBesideMetadata checks that the draining mark is appended to an
// otherwise unchanged value, that Metadata stays the caller's, and that the old
// package's reader decodes the same update.
func TestFieldI1MarkIsBesideMetadata(t *testing.T) {
	l := &layout{codec: Default()}
	for _, tt := range []struct{ metadata, want string }{
		{``, `{"Op":0,"Addr":"10.0.0.7:9000","Metadata":null,"Draining":true}`},
		{`"v1"`, `{"Op":0,"Addr":"10.0.0.7:9000","Metadata":"v1","Draining":true}`},
		{`[1, 2]`, `{"Op":0,"Addr":"10.0.0.7:9000","Metadata":[1,2],"Draining":true}`},
		{`{"zone":"a"}`, `{"Op":0,"Addr":"10.0.0.7:9000","Metadata":{"zone":"a"},"Draining":true}`},
		{`{"@entry":{"Zone":"z"},"@metadata":7}`, `{"Op":0,"Addr":"10.0.0.7:9000","Metadata":7,"Draining":true,"Zone":"z"}`},
	} {
		e := naming.Endpoint{ID: "10.0.0.7:9000", Addr: "10.0.0.7:9000", Metadata: []byte(tt.metadata)}
		if tt.metadata == "" {
			e.Metadata = nil
		}
		serving, err := l.encode(service, e)
		if err != nil || strings.Contains(string(serving), "raining") {
			t.Errorf("serving: %s, err %v", serving, err)
		}
		e.Draining = true
		draining, err := l.encode(service, e)
		if err != nil || string(draining) != tt.want {
			t.Errorf("draining: %s, err %v, want\n%s", draining, err, tt.want)
		}
		var was, is naming.Update
		if err := errors.Join(json.Unmarshal(serving, &was), json.Unmarshal(draining, &is)); err != nil || !reflect.DeepEqual(was, is) {
			t.Errorf("the old package reads %+v without the mark and %+v with it, err %v", was, is, err)
		}
		got, err := decode(Default(), string(draining))
		if want := e; err != nil || got.Draining != want.Draining || !got.Info().Draining || got.NoDrainingMark || !sameValue(string(got.Metadata), string(want.Metadata)) {
			t.Errorf("%s decodes to %s, NoDrainingMark %v, err %v", draining, show(got), got.NoDrainingMark, err)
		}
	}
}

// TestFieldI1BothForms checks that a mark in Metadata counts. Earlier versions write it
// there.
func TestFieldI1BothForms(t *testing.T) {
	for _, value := range []string{
		`{"Op":0,"Addr":"a:1","Metadata":null,"Draining":true}`,
		`{"Op":0,"Addr":"a:1","Metadata":{"draining":true}}`,
		`{"Op":0,"Addr":"a:1","Metadata":{"draining":true},"Draining":false}`,
		`{"draining":true,"addr":"a:1"}`,
		`{"Draining":false,"Addr":"a:1","DRAINING":true}`,
	} {
		for name, l := range map[string]*layout{
			"default": {codec: Default()}, "no marks": {codec: Default(), noMarks: true},
			"GRPCResolver": {codec: &Codec{Encode: encodeUpdate, Decode: decodePlain}, plain: true},
		} {
			if e, _, _, err := l.entry(service, "a:1", []byte(value)); err != nil || !e.Info().Draining || e.NoDrainingMark {
				t.Errorf("%s: %s decodes to %s, NoDrainingMark %v, err %v", name, value, show(e), e.NoDrainingMark, err)
			}
		}
	}
}

// TestFieldI1NoDrainingMark checks that a Store with Options.NoDrainingMark writes no
// mark in any format, and refuses a draining endpoint at once.
func TestFieldI1NoDrainingMark(t *testing.T) {
	for name, c := range codecs {
		s := offline(t, &Options{Codec: c, NoDrainingMark: true})
		err := s.Apply(t.Context(), service, naming.Change{Endpoint: naming.Endpoint{Addr: "a:1", Draining: true}})
		if !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("%s: err %v, want ErrInvalid", name, err)
		}
		value, err := s.layout.encode(service, naming.Endpoint{ID: "a:1", Addr: "a:1"})
		if err != nil || strings.Contains(strings.ToLower(string(value)), "draining") {
			t.Errorf("%s: %s, err %v", name, value, err)
		}
		if e, _, _, err := s.layout.entry(service, "a:1", value); err != nil || !e.NoDrainingMark {
			t.Errorf("%s: %s decodes with NoDrainingMark %v, err %v", name, value, e.NoDrainingMark, err)
		}
	}
}

// TestFieldI2NoDrain checks that an entry whose writer cannot mark it has NoDrainingMark, and
// that a Store's entry in the same format does not.
func TestFieldI2NoDrain(t *testing.T) {
	for name, theirs := range map[string]string{
		"kratos":  `{"id":"1","name":"greeter","version":"","metadata":null,"endpoints":["grpc://a:1"]}`,
		"kitex":   `{"network":"tcp","address":"a:1","weight":10,"tags":null}`,
		"gomicro": `{"name":"greeter","version":"","metadata":null,"endpoints":[],"nodes":[{"metadata":null,"id":"1","address":"a:1"}]}`,
		"gozero":  `a:1`,
		"gokit":   `http://a:1`,
	} {
		l := &layout{codec: codecs[name]}
		if e, _, _, err := l.entry(service, id, []byte(theirs)); err != nil || !e.NoDrainingMark || e.Draining {
			t.Errorf("%s: %s decodes to %s, NoDrainingMark %v, err %v", name, theirs, show(e), e.NoDrainingMark, err)
		}
		ours, err := l.encode(service, naming.Endpoint{ID: id, Addr: "a:1"})
		if err != nil {
			t.Fatal(err)
		}
		e, _, _, err := l.entry(service, id, ours)
		if err != nil || e.NoDrainingMark != l.codec.NoDrainingMark {
			t.Errorf("%s: the Store's own %s decodes to %s, NoDrainingMark %v, err %v", name, ours, show(e), e.NoDrainingMark, err)
		}
	}
	// The default format does not show which writer an entry has. So the option
	// decides whether entries of etcd's own packages have NoDrainingMark.
	for _, marks := range []bool{true, false} {
		l := &layout{codec: Default(), noMarks: !marks}
		if e, _, _, err := l.entry(service, id, []byte(`{"Op":0,"Addr":"a:1","Metadata":null}`)); err != nil || e.NoDrainingMark == marks {
			t.Errorf("NoDrainingMark %v: NoDrainingMark %v, err %v", !marks, e.NoDrainingMark, err)
		}
	}
	l := &layout{codec: &Codec{Encode: encodeUpdate, Decode: decodePlain}, plain: true}
	if e, _, _, err := l.entry(service, "a:1", []byte(`{"Op":0,"Addr":"a:1","Metadata":null}`)); err != nil || !e.NoDrainingMark {
		t.Errorf("GRPCResolver: NoDrainingMark %v, err %v", e.NoDrainingMark, err)
	}
}

// TestFieldI4RefusedAtOnce checks that a Store refuses an endpoint for which the format
// has no place without any request, even if the call has other changes.
func TestFieldI4RefusedAtOnce(t *testing.T) {
	plain := naming.Endpoint{Addr: "a:1"}
	for name, c := range codecs {
		s := offline(t, &Options{Codec: c})
		bare := slices.Contains([]string{"gozero", "gokit"}, name)
		if bare != c.NoDrainingMark {
			t.Errorf("%s: NoDrainingMark %v", name, c.NoDrainingMark)
		}
		if !bare {
			continue
		}
		for what, e := range map[string]naming.Endpoint{
			"metadata": {Addr: "b:1", Metadata: []byte(`{"weight":3}`)},
			"a mark":   {Addr: "b:1", Draining: true},
			"both":     {Addr: "b:1", Draining: true, Metadata: []byte(`{"url":"http://b:1"}`)},
		} {
			err := s.Apply(t.Context(), service, naming.Change{Endpoint: plain}, naming.Change{Endpoint: e})
			if !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), "b:1") {
				t.Errorf("%s: an endpoint with %s: err %v, want ErrInvalid with the endpoint's ID", name, what, err)
			}
		}
	}
}
