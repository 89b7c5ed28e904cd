//go:build linux

package main

import (
	"github.com/spf13/cobra"

	"mapfs/cmd/mapfs/cli"
	"mapfs/fs/crash/explore"
)

func newCrashMergeCommand() *cobra.Command {
	var json, junit string
	cmd := &cobra.Command{
		Use:   "merge [flags] DIR...",
		Short: "Put the reports of shards together",
		Long: `Put together the reports of one recording that was explored in parts, by --shard, and
tell of them as if one search had found it all. The exit code is 3 if a state was found
that is not good, and 1 if a part is missing.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Usagef("name the directories of the reports")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var reports []*explore.Report
			for _, dir := range args {
				r, err := readReport(dir)
				if err != nil {
					return err
				}
				reports = append(reports, r)
			}
			merged, err := explore.Merge(reports)
			if err != nil {
				return err
			}
			s := crashSearch{merged: true, flags: &crashFlags{json: json, junit: junit}, stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr()}
			if err := s.write("", merged); err != nil {
				return err
			}
			if merged.Failures > 0 {
				return cli.Quiet{Code: exitCrash}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&json, "json", "", "write the report to `FILE` as JSON")
	cmd.Flags().StringVar(&junit, "junit", "", "write the report to `FILE` as JUnit XML")
	return cmd
}
