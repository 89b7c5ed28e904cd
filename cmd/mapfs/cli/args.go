package cli

import "github.com/spf13/cobra"

// NotEmpty refuses an argument that is there and empty.
func NotEmpty(what string, args []string) error {
	if len(args) > 0 && args[0] == "" {
		return Usagef("%s must not be empty", what)
	}
	return nil
}

// CompletePath leaves the one PATH or FILE to the shell.
func CompletePath(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}
