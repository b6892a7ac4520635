package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
)

// program is what the packages that start servers want of a test, for a
// program.
type program struct {
	testing.TB // nil: what is missing here is not called
	cleanups   []func()
	failed     bool
}

var errFailed = errors.New("failed")

// run runs f, and then what f registered with Cleanup. It reports false if f
// was ended by Fatal.
func (p *program) run(f func() bool) (ok bool) {
	defer func() {
		for _, c := range slices.Backward(p.cleanups) {
			c()
		}
	}()
	defer func() {
		if r := recover(); r == errFailed {
			ok = false
		} else if r != nil {
			panic(r)
		}
	}()
	return f() && !p.failed
}

func (p *program) Helper()          {}
func (p *program) Name() string     { return "zerodrop" }
func (p *program) Failed() bool     { return p.failed }
func (p *program) Cleanup(f func()) { p.cleanups = append(p.cleanups, f) }

func (p *program) TempDir() string {
	dir, err := os.MkdirTemp("", "zerodrop")
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (p *program) Log(args ...any)                 { fmt.Println(args...) }
func (p *program) Logf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func (p *program) Error(args ...any) {
	p.failed = true
	p.Log(args...)
}

func (p *program) Errorf(format string, args ...any) { p.Error(fmt.Sprintf(format, args...)) }

func (p *program) FailNow() {
	p.failed = true
	panic(errFailed)
}

func (p *program) Fatal(args ...any) {
	p.Log(args...)
	p.FailNow()
}

func (p *program) Fatalf(format string, args ...any) { p.Fatal(fmt.Sprintf(format, args...)) }

func (p *program) Skip(args ...any) { p.Fatal(args...) } // there is nothing else to do
