package cli

import "github.com/spf13/cobra"

// completeFlags has a shell complete the values of the flags that have few. Flags of
// directories complete directories, and all other flags complete nothing.
func completeFlags(root *cobra.Command) {
	values := map[string][]string{
		"output": {"table", "json", "yaml"},
		"health": {"grpc", "tcp", "http", "none"},
	}
	for _, cmd := range append(root.Commands(), root) {
		for name, list := range values {
			if cmd.Flag(name) != nil && (cmd == root || cmd.InheritedFlags().Lookup(name) == nil) {
				_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp))
			}
		}
		if cmd.Flags().Lookup("data-dir") != nil {
			_ = cmd.MarkFlagDirname("data-dir")
		}
	}
}
