package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming/cmd/naming/internal/manual"
)

// manCommand writes the man pages. It is for the packages of distributions, so it is hidden.
func (a *app) manCommand() *cobra.Command {
	var cmd *cobra.Command
	cmd = &cobra.Command{
		Use: "man DIRECTORY", Short: "Write the man pages", Args: cobra.ExactArgs(1), Hidden: true,
		Long: "Write a man page of each command into a directory.",
		RunE: run(func(_ context.Context, args []string) error {
			if err := manual.Write(cmd.Root(), args[0]); err != nil {
				return no("%w", err)
			}
			return nil
		}),
	}
	return cmd
}
