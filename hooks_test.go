package naming_test

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming"
)

// recording returns hooks that append their arguments to log, under a name. It sets
// every nth hook, from the first on.
func recording(name string, log *[]string, first, nth int) *naming.Hooks {
	h := new(naming.Hooks)
	v := reflect.ValueOf(h).Elem()
	for i := first; i < v.NumField(); i += nth {
		f := v.Field(i)
		hook := v.Type().Field(i).Name
		f.Set(reflect.MakeFunc(f.Type(), func(args []reflect.Value) []reflect.Value {
			*log = append(*log, fmt.Sprint(name, " ", hook, " ", args))
			return nil
		}))
	}
	return h
}

// argument returns an argument for a hook: a struct in which no field has its zero value.
func argument(of reflect.Type) reflect.Value {
	v := reflect.New(of).Elem()
	if of.Kind() == reflect.Struct && strings.HasSuffix(of.Name(), "Info") {
		for i := range v.NumField() {
			v.Field(i).Set(argument(of.Field(i).Type))
		}
		return v
	}
	switch p := v.Addr().Interface().(type) {
	case *string:
		*p = "s"
	case *bool:
		*p = true
	case *int:
		*p = 7
	case *error:
		*p = io.EOF
	case *time.Time:
		*p = time.Unix(1, 0)
	case *naming.Endpoint:
		p.ID = "a"
	case *[]naming.Endpoint:
		*p = []naming.Endpoint{{ID: "a"}, {ID: "b"}}
	case *[]naming.Withheld:
		*p = []naming.Withheld{{Endpoint: naming.Endpoint{ID: "a"}, Reason: naming.Maintenance}}
	default:
		panic("a hook's struct has a field of type " + of.String())
	}
	return v
}

// TestJoinHooks asserts that JoinHooks joins every hook: each function is called once,
// with the arguments, in order.
func TestJoinHooks(t *testing.T) {
	type hooks = naming.Hooks
	for _, c := range []struct {
		name string
		join func(log *[]string) *hooks
		want func(field int) []string
	}{
		{"none", func(*[]string) *hooks { return naming.JoinHooks() },
			func(int) []string { return nil }},
		{"nil and empty", func(*[]string) *hooks { return naming.JoinHooks(nil, new(hooks), nil) },
			func(int) []string { return nil }},
		{"one", func(log *[]string) *hooks { return naming.JoinHooks(recording("a", log, 0, 1)) },
			func(int) []string { return []string{"a"} }},
		{"three and nil", func(log *[]string) *hooks {
			return naming.JoinHooks(recording("a", log, 0, 1), nil, recording("b", log, 0, 1), recording("c", log, 0, 1))
		}, func(int) []string { return []string{"a", "b", "c"} }},
		{"halves", func(log *[]string) *hooks {
			return naming.JoinHooks(recording("a", log, 0, 2), recording("b", log, 1, 2), recording("c", log, 0, 2))
		}, func(field int) []string {
			if field%2 == 0 {
				return []string{"a", "c"}
			}
			return []string{"b"}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log []string
			v := reflect.ValueOf(*c.join(&log))
			for i := range v.NumField() {
				field, f := v.Type().Field(i).Name, v.Field(i)
				var want []string
				if !f.IsNil() {
					var args []reflect.Value
					for j := range f.Type().NumIn() {
						args = append(args, argument(f.Type().In(j)))
					}
					log = nil
					f.Call(args)
					for _, name := range c.want(i) {
						want = append(want, fmt.Sprint(name, " ", field, " ", args))
					}
				}
				if f.IsNil() != (len(c.want(i)) == 0) || !slices.Equal(log, want) {
					t.Errorf("%s: called %q, want %q", field, log, want)
				}
			}
		})
	}
}
