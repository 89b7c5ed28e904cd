//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/ctltree"
	"mapfs/fs/crash"
	"mapfs/fs/crash/explore"
	"mapfs/fs/crash/image"
	"mapfs/internal/quote"
)

// crashFlags are the flags of "mapfs crash" and of those of its subcommands that explore.
type crashFlags struct {
	model        string
	check        string
	checkTimeout time.Duration
	budget       time.Duration
	seed         uint64
	torn         int64
	jobs         int
	shard        string
	report       string
	json, junit  string
}

func (f *crashFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.model, "model", "posix", "rules of what a power cut leaves: `MODEL` posix or ext4")
	flags.StringVar(&f.check, "check", "", "shell `COMMAND` that looks at a state; 0 is good")
	flags.DurationVar(&f.checkTimeout, "check-timeout", 10*time.Second, "end a check after `TIME`: it has failed then")
	flags.DurationVar(&f.budget, "budget", time.Minute, "search for at most `TIME`")
	flags.Uint64Var(&f.seed, "seed", 1, "of the random states")
	flags.Int64Var(&f.torn, "torn", tornDefault, "`BYTES` of a page that survive as one, 0 for all (512; with --fs 0)")
	flags.Lookup("torn").DefValue = "0" // which is not shown
	flags.IntVar(&f.jobs, "jobs", runtime.NumCPU(), "how many checks run side by side")
	flags.StringVar(&f.shard, "shard", "", "check part `N/M` of the states")
	flags.StringVar(&f.report, "report", "", "keep recording, failing states and index.html in `DIR`")
	flags.StringVar(&f.json, "json", "", "write the report to `FILE` as JSON")
	flags.StringVar(&f.junit, "junit", "", "write the report to `FILE` as JUnit XML")
	completeWords(cmd, "model", modelNames()...)
}

// modelNames are the values of --model.
func modelNames() (names []string) {
	for _, m := range crash.Models() {
		names = append(names, m.Name())
	}
	return names
}

// completeWords has the shell offer words for a flag.
func completeWords(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // only for a flag that is not there, or has one already
	}
}

// tornDefault stands for 512 bytes: what no program may count on to be more. The device of a
// filesystem is one of today's, which write 4 KiB as one: ext4 does not mount a superblock of
// which a half was written.
const tornDefault = -1

// options returns what the flags say of a search.
func (f *crashFlags) options() (o explore.Options, err error) {
	if o.Model, err = crash.ModelOf(f.model); err != nil {
		return o, cli.Usagef("--model %s: %v", f.model, err)
	}
	switch {
	case f.torn < 0 && f.torn != tornDefault || f.torn > 4096 || f.torn > 0 && 4096%f.torn != 0:
		return o, cli.Usagef("--torn %d: choose 0 or a number of bytes that divides 4096", f.torn)
	case f.jobs < 1:
		return o, cli.Usagef("--jobs %d: choose 1 or more", f.jobs)
	case f.budget <= 0:
		return o, cli.Usagef("--budget %v: choose a time, such as 60s", f.budget)
	case f.checkTimeout <= 0:
		return o, cli.Usagef("--check-timeout %v: choose a time, such as 10s", f.checkTimeout)
	}
	o.Budget, o.Seed, o.Torn, o.Jobs = f.budget, f.seed, f.torn, f.jobs
	if f.torn == tornDefault {
		o.Torn = 512
	}
	if f.shard != "" {
		n, m, found := strings.Cut(f.shard, "/")
		var errN, errM error
		o.Shard, errN = strconv.Atoi(n)
		o.Shards, errM = strconv.Atoi(m)
		if !found || errN != nil || errM != nil || o.Shard < 1 || o.Shard > o.Shards {
			return o, cli.Usagef("--shard %s: choose N/M, such as 2/8", f.shard)
		}
	}
	if f.check != "" {
		o.Checker = explore.Command{Script: f.check, Timeout: f.checkTimeout}
	}
	return o, nil
}

func newCrashCommand(sys system) *cobra.Command {
	var flags crashFlags
	var from, mount, device string
	cmd := &cobra.Command{
		Use:   "crash [flags] -- COMMAND [ARG]...",
		Short: "Find a power cut that a program does not survive, and the missing sync",
		Long: `Run COMMAND in a mount on a temporary directory, then make the states that a power
cut could have left at each moment, and have --check look at each. The smallest loss
that is too much is told, with the sync that would have prevented it.

A line that COMMAND prints is a promise: what it says to have made durable. The check
runs in a state, and has the promises before the power cut on its standard input.
Without a check, what was promised must be there, and no file lose both its old and
its new bytes.

The exit code is 3 if a state was found that is not good.`,
		Example: `  mapfs crash -- sh -c 'echo 1 >t; mv t f; echo saved'
  mapfs crash --check ./verify --report found -- ./store
  mapfs crash --from data --model ext4 -- make install
  mapfs crash replay found 1`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case mount != "" && len(args) > 0:
				return cli.Usagef("--mount explores what was done in a mount: name no COMMAND")
			case mount != "" || cmd.ArgsLenAtDash() == 0 && len(args) > 0 && args[0] != "":
				return nil
			case cmd.ArgsLenAtDash() < 0 && len(args) > 0:
				return cli.Usagef("%q is no subcommand of crash; a COMMAND to run is named after --", args[0])
			}
			return cli.Usagef("name the COMMAND to run after --")
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.options()
			if err != nil {
				return err
			}
			s := crashSearch{flags: &flags, options: o, stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr()}
			if mount != "" {
				return s.ofMount(cmd.Context(), sys, mount)
			}
			r, err := newRecorder(cmd, sys, from, device)
			if err != nil {
				return err
			}
			r.model = o.Model
			return s.ofCommand(cmd.Context(), r, args)
		},
	}
	flags.register(cmd)
	registerRecording(cmd, &from, &device)
	cmd.Flags().StringVar(&mount, "mount", "", "explore what was done in the mount on `DIR` up to now; it needs -o record=")
	cmd.AddCommand(newCrashRecordCommand(sys), newCrashExploreCommand(), newCrashReplayCommand(), newCrashListCommand(), newCrashMergeCommand())
	return cmd
}

func newCrashRecordCommand(sys system) *cobra.Command {
	var from, device string
	cmd := &cobra.Command{
		Use:   "record [flags] DIR -- COMMAND [ARG]...",
		Short: "Run a command and keep the recording of what it did",
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 1 || len(args) < 2 || args[0] == "" || args[1] == "" {
				return cli.Usagef("name the directory DIR for the recording, and the COMMAND after --")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := newRecorder(cmd, sys, from, device)
			if err != nil {
				return err
			}
			dir, err := newDirectory(args[0])
			if err != nil {
				return err
			}
			status, err := r.record(cmd.Context(), dir, args[1:])
			if err == nil && status != 0 {
				err = cli.Quiet{Code: status}
			}
			return err
		},
	}
	registerRecording(cmd, &from, &device)
	return cmd
}

// registerRecording adds the flags of what makes a recording.
func registerRecording(cmd *cobra.Command, from, device *string) {
	cmd.Flags().StringVar(from, "from", "", "begin with a copy of `DIR`, not with an empty directory")
	cmd.Flags().StringVar(device, "fs", "", "run COMMAND on a real filesystem `FS`: ext4, xfs or btrfs (root)")
	var names []string
	for _, f := range image.All() {
		names = append(names, f.Name)
	}
	completeWords(cmd, "fs", names...)
}

// newRecorder returns what runs a command and records it.
func newRecorder(cmd *cobra.Command, sys system, from, device string) (*recorder, error) {
	r := &recorder{from: from, model: crash.Posix{}, lines: cmd.OutOrStdout()}
	flags := &mountFlags{readyFD: noReadyFD, logLevel: "info"}
	r.runner = runner{sys: sys, flags: flags, stdin: cmd.InOrStdin(), stderr: cmd.ErrOrStderr()}
	if device == "" {
		return r, nil
	}
	var err error
	if r.device, err = image.Of(device); err != nil {
		return nil, cli.Usagef("--fs %s: %v", device, err)
	}
	if err := r.device.Missing(); err != nil {
		return nil, fmt.Errorf("--fs %s: %w", device, err)
	}
	return r, nil
}

func newCrashExploreCommand() *cobra.Command {
	var flags crashFlags
	cmd := &cobra.Command{
		Use:   "explore [flags] DIR",
		Short: "Explore a recording",
		Args:  oneDirectory,

		ValidArgsFunction: completeDirectories,
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.options()
			if err != nil {
				return err
			}
			s := crashSearch{flags: &flags, options: o, stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr()}
			return s.ofRecording(cmd.Context(), recordingDir(args[0]))
		},
	}
	flags.register(cmd)
	return cmd
}

// oneDirectory wants one argument.
func oneDirectory(_ *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return cli.Usagef("name one directory DIR")
	}
	return nil
}

// newDirectory makes a directory, which may be there if it is empty, and returns its
// absolute path.
func newDirectory(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return path, makeEmpty(path)
}

// crashSearch is one search, and what is done with what it finds.
type crashSearch struct {
	flags          *crashFlags
	options        explore.Options
	merged         bool // the report is one of many
	stdout, stderr io.Writer
}

// ofCommand records the command and explores that.
func (s *crashSearch) ofCommand(ctx context.Context, r *recorder, command []string) error {
	dir, remove, err := s.home()
	if err != nil {
		return err
	}
	defer remove()
	status, err := r.record(ctx, dir, command)
	if err != nil {
		return err
	}
	if status != 0 {
		fmt.Fprintf(s.stderr, "mapfs: the command has failed, with exit status %d; what it did until then is explored\n", status)
	}
	return s.explore(ctx, dir, recordingDir(dir))
}

// ofMount explores what was done in a mount up to now.
func (s *crashSearch) ofMount(ctx context.Context, sys system, mount string) error {
	t, err := findTarget(sys, mount)
	if err != nil {
		return err
	}
	status, err := ctltree.ReadStatus(t.control + "/status")
	if err != nil {
		return t.explain(err)
	}
	recording, _, ok := ctltree.CutPath(status["recording"])
	switch {
	case !ok || recording == "none":
		return fmt.Errorf("the mount on %s keeps no recording; mount with -o history,record=DIR", quote.Path(t.mountpoint))
	case isBroken(status):
		return fmt.Errorf("the recording of the mount on %s is not complete: %s", quote.Path(t.mountpoint), status["recording"])
	}
	// What is stored through mappings by now is part of it.
	if _, err := ctltree.Read(t.control + "/pending"); err != nil {
		return t.explain(err)
	}
	return s.ofRecording(ctx, recording)
}

// ofRecording explores a recording that stays.
func (s *crashSearch) ofRecording(ctx context.Context, recording string) error {
	dir, remove, err := s.home()
	if err != nil {
		return err
	}
	defer remove()
	if s.flags.report != "" {
		if err := copyTree(recording, recordingDir(dir)); err != nil {
			return err
		}
		recording = recordingDir(dir)
	}
	return s.explore(ctx, dir, recording)
}

// home returns the directory of the report, or a temporary one that remove removes.
func (s *crashSearch) home() (dir string, remove func(), err error) {
	if s.flags.report != "" {
		dir, err = newDirectory(s.flags.report)
		return dir, func() {}, err
	}
	dir, err = os.MkdirTemp("", "mapfs-crash-")
	return dir, func() { _ = explore.RemoveAll(dir) }, err
}

// explore explores a recording and tells of it. home is the report's directory.
func (s *crashSearch) explore(ctx context.Context, home, recording string) (err error) {
	done, err := openRecording(&s.options, recording)
	if err != nil {
		return err
	}
	defer done()
	a, err := readAbout(recording)
	if err != nil {
		return err
	}
	if a.Device != "" {
		if err := s.onDevice(a.Device); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	progress := newCrashProgress(s.stderr)
	s.options.Progress = progress.tell
	report, err := explore.Run(ctx, s.options)
	progress.end()
	if err != nil {
		return err
	}
	report.Command, report.Device, report.Check, report.Shard = a.Command, a.Device, s.flags.check, s.flags.shard
	if err := s.write(home, report); err != nil {
		return err
	}
	if report.Failures > 0 {
		return cli.Quiet{Code: exitCrash}
	}
	return nil
}

// openRecording opens a recording for a search, and makes a directory for that.
func openRecording(o *explore.Options, recording string) (done func(), err error) {
	if o.Recording, err = crash.OpenRecording(recording); err != nil {
		return nil, err
	}
	if o.Dir, err = os.MkdirTemp(stateHome(), "mapfs-crash-"); err != nil {
		o.Recording.Close()
		return nil, err
	}
	return func() {
		o.Recording.Close()
		_ = explore.RemoveAll(o.Dir) // and what is left is in a directory for temporary files
	}, nil
}

// onDevice has the states mounted that have the image of a device.
func (s *crashSearch) onDevice(name string) error {
	fs, err := image.Of(name)
	if err != nil {
		return fmt.Errorf("the recording is of a filesystem %s: %w", name, err)
	}
	if err := fs.Missing(); err != nil {
		return fmt.Errorf("the recording is of a filesystem %s: %w", name, err)
	}
	s.options.Device = true
	if s.flags.torn == tornDefault {
		s.options.Torn = 0
	}
	s.options.Checker = explore.Image{FS: fs, Then: s.options.Checker}
	if fs.Alone {
		s.options.Jobs = 1
	}
	return nil
}

// stateHome is where states are made: in memory, if there is room, unless TMPDIR says where.
// They are made and removed by the hundred.
func stateHome() string {
	const memory, enough = "/dev/shm", 1 << 30
	var st unix.Statfs_t
	if os.Getenv("TMPDIR") == "" && unix.Statfs(memory, &st) == nil && st.Type == unix.TMPFS_MAGIC && int64(st.Bavail)*st.Bsize >= enough {
		return memory
	}
	return os.TempDir()
}

// exitCrash says that a state was found that is not good.
const exitCrash = 3
