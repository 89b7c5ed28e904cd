//go:build linux

package main

import (
	"mapfs/cmd/mapfs/cli"
	"strings"

	"github.com/spf13/cobra"
)

const completionExample = `  source <(mapfs completion bash)
  mapfs completion bash > /etc/bash_completion.d/mapfs
  mapfs completion zsh > "${fpath[1]}/_mapfs"
  mapfs completion fish > ~/.config/fish/completions/mapfs.fish`

func newCompletionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "Print a script that completes mapfs in a shell",
		Example:   completionExample,
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("name one shell: %s", strings.Join(shells, ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			const withDescriptions = true
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, withDescriptions)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, withDescriptions)
			}
			return cli.Usagef("no completion for %q; choose %s", args[0], strings.Join(shells, ", "))
		},
	}
}

// completeDirectories leaves BACKING and MOUNTPOINT to the shell.
func completeDirectories(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) >= 2 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// completeMountpoints offers what is mounted.
func completeMountpoints(sys system) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		paths, err := sys.mountpoints()
		if err != nil || len(paths) == 0 {
			return nil, cobra.ShellCompDirectiveFilterDirs
		}
		return paths, cobra.ShellCompDirectiveNoFileComp
	}
}

// registerMountCompletions is for the values of the mount flags.
func registerMountCompletions(cmd *cobra.Command) {
	registerOptionCompletion(cmd)
	for flag, complete := range map[string]cobra.CompletionFunc{
		"metrics-addr": cobra.FixedCompletions([]cobra.Completion{"127.0.0.1:"}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace),
		"log-level":    cobra.FixedCompletions([]cobra.Completion{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp),
	} {
		if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
			panic(err) // only for a flag that is not there, or has one already
		}
	}
}

// registerOptionCompletion lets -o complete.
func registerOptionCompletion(cmd *cobra.Command) {
	if err := cmd.RegisterFlagCompletionFunc("options", completeOptions); err != nil {
		panic(err) // only for a flag that is not there, or has one already
	}
}

// completeOptions completes the last word of a comma list. The options that do
// nothing here are known but not offered.
func completeOptions(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	before := typed[:strings.LastIndexByte(typed, ',')+1]
	var words []cobra.Completion
	for _, option := range mountOptions {
		if option.set == nil {
			continue
		}
		word := before + option.name
		if option.value == needsValue {
			word += "="
		}
		if strings.HasPrefix(word, typed) {
			words = append(words, word)
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
