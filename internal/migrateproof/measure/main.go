// Command measure prints what a joined Client costs beside a plain one, and how fast a
// bridge fills a registry.
//
//	measure fresh    the time until a reader has the changes after an outage
//	measure reader   the memory and the processor time of readers
//	measure scale    a cold start of a bridge into etcd, and a smaller one into Consul
//
// The figures belong to the machine. Compare the ratios of one run.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/naming-go/naming/internal/migrateproof"
	"github.com/naming-go/naming/internal/servertest"
)

func main() {
	services := flag.Int("services", 10_000, "scale: how many services with five endpoints each are copied into etcd")
	consul := flag.Int("consul-services", 300, "scale: the same for Consul")
	flag.Parse()
	p := servertest.NewProgram("measure", os.Stdout)
	if !p.Run(func() bool { return run(p, flag.Arg(0), *services, *consul) }) {
		os.Exit(1)
	}
}

func run(tb testing.TB, what string, services, consulServices int) bool {
	ctx := context.Background()
	switch what {
	case "fresh":
		fmt.Print(measureFresh())
	case "reader":
		for _, conns := range []bool{false, true} {
			fmt.Print(measureReaders(conns))
		}
	case "scale":
		for _, f := range []func() (migrateproof.Scale, error){
			func() (migrateproof.Scale, error) { return migrateproof.ScaleEtcd(ctx, tb, services) },
			func() (migrateproof.Scale, error) { return migrateproof.ScaleConsul(ctx, tb, consulServices) },
		} {
			s, err := f()
			if err != nil {
				fmt.Println(err)
				return false
			}
			fmt.Println(s)
		}
	default:
		flag.Usage()
		return false
	}
	return true
}
