// Command naming looks at registries, registers programs in them, and moves services from
// one registry to another.
//
//	naming dev                                     # a registry for development
//	export NAMING_STORE='etcd://127.0.0.1:2379?prefix=/naming/'
//	naming run greeter --addr 127.0.0.1:8080 -- ./server
//	naming ls
//	naming watch greeter
//
// A registry is a URL of package backend/open. Run naming help for all commands.
//
// The exit status is 0 if what was asked holds, 1 if it does not, 2 for arguments that can
// never work, and 3 if a registry cannot be reached or refuses. The status of naming run is
// that of the program that it runs.
package main

import (
	"context"
	"os"

	"github.com/naming-go/naming/cmd/naming/internal/cli"
)

func main() { os.Exit(cli.Main(context.Background(), cli.OS(), os.Args[1:]...)) }
