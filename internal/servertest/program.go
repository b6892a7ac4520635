package servertest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
)

// Program is a testing.TB for a program that starts servers. Its methods must not be called
// concurrently.
type Program struct {
	testing.TB // nil: methods that Program does not have must not be called

	name     string
	out      io.Writer
	cleanups []func()
	failed   bool
}

// NewProgram returns a Program that logs to out.
func NewProgram(name string, out io.Writer) *Program { return &Program{name: name, out: out} }

var errFailed = errors.New("failed")

// Run calls f, and then the functions that f registered with Cleanup. It reports false if f
// returned false, called Error, or was ended by Fatal.
func (p *Program) Run(f func() bool) (ok bool) {
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

func (p *Program) Helper()          {}
func (p *Program) Name() string     { return p.name }
func (p *Program) Failed() bool     { return p.failed }
func (p *Program) Cleanup(f func()) { p.cleanups = append(p.cleanups, f) }

func (p *Program) TempDir() string {
	dir, err := os.MkdirTemp("", p.name)
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (p *Program) Log(args ...any)                 { fmt.Fprintln(p.out, args...) }
func (p *Program) Logf(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }

func (p *Program) Error(args ...any) {
	p.failed = true
	p.Log(args...)
}

func (p *Program) Errorf(format string, args ...any) { p.Error(fmt.Sprintf(format, args...)) }

func (p *Program) FailNow() {
	p.failed = true
	panic(errFailed)
}

func (p *Program) Fatal(args ...any) {
	p.Log(args...)
	p.FailNow()
}

func (p *Program) Fatalf(format string, args ...any) { p.Fatal(fmt.Sprintf(format, args...)) }

func (p *Program) Skip(args ...any) { p.Fatal(args...) } // a program cannot be skipped
