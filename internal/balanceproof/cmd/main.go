// Command cmd measures how package balancer spreads calls, and prints the tables. With
// -page and -picture it also puts the tables into a page, and draws the picture of them.
// The exit status is 1 if a call failed or a part could not be run, and nothing is written
// then.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/naming-go/naming/internal/balanceproof"
)

func main() {
	page := flag.String("page", "", "the Markdown `file` whose tables are replaced; empty means none")
	picture := flag.String("picture", "", "the `file` of the picture; empty means none")
	short := flag.Bool("short", false, "run the short form, as the tests do")
	flag.Parse()
	if err := run(*page, *picture, !*short); err != nil {
		fmt.Fprintln(os.Stderr, "balance:", err)
		os.Exit(1)
	}
}

func run(page, picture string, full bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r, err := balanceproof.Run(ctx, balanceproof.Options{Full: full, Logf: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}})
	if err != nil {
		return err
	}
	fmt.Print(r.Tables())
	if failed, _ := r.Rolling.Failed(); failed > 0 {
		return errors.New("calls failed in the rolling restarts")
	}
	if page != "" {
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		if text, err = r.ReplaceTables(text); err != nil {
			return fmt.Errorf("%s: %w", page, err)
		}
		if err := os.WriteFile(page, text, 0o666); err != nil {
			return err
		}
	}
	if picture == "" {
		return nil
	}
	return os.WriteFile(picture, r.Picture(), 0o666)
}
