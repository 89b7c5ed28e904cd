// Command bench measures mapfs beside what people would use instead, and writes what
// it found to docs/performance.md and docs/performance.svg.
//
//	bench [flags]          measure, report
//	bench [flags] counts   count the daemon's system calls per operation
//
// Nothing here is a test: goals are judged in the report alone, and a run that misses
// them all succeeds. It needs root, and leaves nothing behind but the report and, in
// the directory of -bin, the peers that it has built.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func init() {
	// The daemons ask the kernel for a signal when their parent dies, and to the kernel
	// that is the thread which started them: main's, which has to stay.
	runtime.LockOSThread()
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "client" {
		if err := runClientMain(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench client:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Options are the command line.
type options struct {
	quick     bool
	mapfs     string
	src, bin  string
	dir, out  string
	only      string
	peers     string
	rounds, n int
	counts    bool
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: bench [flags] [counts]")
		flags.PrintDefaults()
	}
	flags.BoolVar(&o.quick, "quick", false, "small sizes and one round: to see that it works, not to be quoted")
	flags.StringVar(&o.mapfs, "mapfs", "../bin/mapfs", "the mapfs to measure, a `FILE`")
	flags.StringVar(&o.src, "src", ".", "`DIR` of this program's source, where the peers' source is too")
	flags.StringVar(&o.bin, "bin", "../bin/bench", "`DIR` for the peers that are built")
	flags.StringVar(&o.dir, "dir", os.TempDir(), "`DIR` to work in; cells on ext4 need it to be on ext4")
	flags.StringVar(&o.out, "out", "", "Markdown `FILE` whose marked part is replaced, the plot beside it; without it the report goes to standard output")
	flags.StringVar(&o.only, "only", ".", "`REGEXP` of the jobs or cells to measure")
	flags.StringVar(&o.peers, "peers", "", "`LIST` of peers, by comma, to measure beside native")
	flags.IntVar(&o.rounds, "rounds", 0, "`N` rounds instead of the usual number")
	flags.IntVar(&o.n, "n", 1000, "counts: `N` operations of each kind")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case flags.NArg() == 1 && flags.Arg(0) == "counts":
		o.counts = true
	case flags.NArg() != 0:
		flags.Usage()
		return nil, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	// Daemons and clients get paths in other directories.
	for _, path := range []*string{&o.mapfs, &o.src, &o.bin, &o.dir} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return nil, err
		}
		*path = abs
	}
	return o, os.MkdirAll(o.bin, 0o755)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	if err := o.run(ctx, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

func (o *options) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	if err := raiseFileLimit(); err != nil {
		return err
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	c, err := makeCast(ctx, o.src, o.bin, o.mapfs)
	if err != nil {
		return err
	}
	switch {
	case o.peers != "":
		err = c.only(strings.Split(o.peers, ","))
	case o.counts:
		// bindfs shows what a daemon without a runtime needs; most goals name it.
		err = c.only(slices.DeleteFunc([]string{mapfs, bindfs}, func(name string) bool { return !slices.Contains(c.names(), name) }))
	}
	if err != nil {
		return err
	}
	work, err := newWorkspace(o.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, work.close()) }()

	if o.counts {
		return o.count(ctx, work, c, stdout, stderr)
	}
	return o.measure(ctx, work, c, only, stdout, stderr)
}

// The grounds' names.
const (
	onTmpfs = "tmpfs"
	onExt4  = "ext4"
)

func (o *options) measure(ctx context.Context, work *workspace, c *cast, only *regexp.Regexp, stdout, stderr io.Writer) error {
	size := fullSizes
	if o.quick {
		size = quickSizes
	}
	if o.rounds > 0 {
		size.rounds, size.ext4Rounds = o.rounds, o.rounds
	}
	report := newReport(ctx, c, &size, o.command(), o.quick)
	r := &runner{work: work, size: &size, progress: stderr, logs: o.bin, res: report.res}
	chosen := choose(jobs(&size), only)
	if len(chosen) == 0 {
		return fmt.Errorf("no job and no cell matches %q", o.only)
	}

	var onDisk []*job
	for _, j := range chosen {
		if j.ext4 && (size.dataOnExt4 || j.input != inputData) {
			onDisk = append(onDisk, j)
		}
	}
	if !work.onExt4() {
		report.res.notes = append(report.res.notes, "nothing was measured on ext4: the working directory lies on another filesystem")
		onDisk = nil
	}
	// The limit and the slowest tell nothing on ext4 that they have not told before.
	few := slices.DeleteFunc(slices.Clone(c.peers), func(p *peer) bool { return p.name == plain || p.name == passthrough })
	err := r.run(ctx, []turn{
		{&ground{name: onTmpfs, dir: work.tmpfs, peers: c.peers, size: &size}, chosen, size.rounds},
		{&ground{name: onExt4, dir: filepath.Join(work.dir, "ext4"), peers: few, size: &size}, onDisk, size.ext4Rounds},
	})
	report.took = time.Since(report.start)
	report.jobs = chosen
	if err != nil {
		// What was measured is measured. It is no page for others, though.
		report.res.notes = append(report.res.notes, "the run ended early, and what it had not come to is missing")
		_, writeErr := io.WriteString(stdout, report.markdown(""))
		return errors.Join(fmt.Errorf("the run ended early: %w", err), writeErr)
	}
	if o.out == "" {
		_, err := io.WriteString(stdout, report.markdown(""))
		return err
	}
	plot := strings.TrimSuffix(o.out, ".md") + ".svg"
	if err := os.WriteFile(plot, []byte(report.svg()), 0o644); err != nil {
		return err
	}
	if err := replaceInFile(o.out, "bench", report.markdown(filepath.Base(plot))); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "written: %s, %s\n", o.out, plot)
	return err
}

// command is what one types to get the same report.
func (o *options) command() string {
	words := []string{"make bench"}
	if o.quick {
		words = append(words, "QUICK=1")
	}
	var flags []string
	if o.only != "." {
		flags = append(flags, "-only '"+o.only+"'")
	}
	if o.peers != "" {
		flags = append(flags, "-peers '"+o.peers+"'")
	}
	if o.rounds != 0 {
		flags = append(flags, fmt.Sprintf("-rounds %d", o.rounds))
	}
	if len(flags) > 0 {
		words = append(words, fmt.Sprintf("BENCH=%q", strings.Join(flags, " ")))
	}
	return strings.Join(words, " ")
}
