//go:build linux

package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"mapfs/client"
	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/display"
)

// ipcFlags are the flags of "mapfs ipc".
type ipcFlags struct {
	via    []string
	size   cli.ByteCount
	count  int64
	dir    string
	noSync bool
}

func newIPCCommand(signals Signals) *cobra.Command {
	flags := ipcFlags{via: client.MediaNames(), size: cli.ByteCount{N: 4 << 10, Given: true}, count: 1000}
	cmd := &cobra.Command{
		Use:   "ipc [flags]",
		Short: "Move messages between two processes, in every way there is",
		Long: `Move the same messages between two processes through each medium, check every
byte of each message at the receiver, and print the times side by side:

  mapping    a file in DIR, mapped by both (MAP_SHARED); try a mapfs mount
  posix-shm  POSIX shared memory (shm_overview(7))
  sysv-shm   System V shared memory (shmget(2))
  pipe       two pipes
  socket     a pair of stream sockets
  mqueue     two POSIX message queues (mq_overview(7)), long messages in pieces

Shared memory knows no order: there a semaphore made of futex(2), in the memory
itself, keeps writer and reader apart. The others are kept in order by the kernel.

ROUND TRIP is the median time of a message and its answer. THROUGHPUT is that of
all messages in one direction; the time to fill and to check them is in it. The
first row of a cold machine can be slower than it should be.

With --no-sync there is no semaphore: the writer stores one message over the
other, and the reader looks when it comes round. What it then sees is counted:
messages that were WHOLE; reads that were TORN, of bytes of several messages; and
messages LOST, which were never seen whole. The kernel's media have no such mode.

Nothing is left in the system, also after Ctrl-C.`,
		Example: `  mapfs ipc
  mapfs ipc --via mapping,pipe --size 64k --dir ~/mnt
  mapfs ipc --via mapping --no-sync --count 100000`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("unexpected argument %q after ipc", args[0])
			}
			return flags.check()
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// A medium that was asked for by name must work.
			named := cmd.Flags().Changed("via") || cmd.Flags().Changed("dir")
			return runIPC(cmd.Context(), signals, &flags, named, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&flags.via, "via", flags.via, "the `MEDIA`, joined by commas")
	f.Var(&flags.size, "size", "make each message `N` bytes long")
	f.Int64Var(&flags.count, "count", flags.count, "move `N` messages, each way and then in one go")
	f.StringVar(&flags.dir, "dir", ".", "make the file of the medium mapping in `DIR`")
	f.BoolVar(&flags.noSync, "no-sync", false, "use shared memory without a semaphore, and count what goes wrong")
	completeFlag(cmd, "size")
	completeFlag(cmd, "count")
	for flag, complete := range map[string]cobra.CompletionFunc{"via": completeMedia, "dir": completeDirectory} {
		if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
			panic(err) // only for a flag that is not there, or has one already
		}
	}
	return cmd
}

// mostMessages bounds what is remembered of the times.
const mostMessages = 10_000_000

func (f *ipcFlags) check() error {
	for _, via := range f.via {
		if !slices.Contains(client.MediaNames(), via) {
			return cli.Usagef("--via %s: choose %s", via, strings.Join(client.MediaNames(), ", "))
		}
	}
	switch {
	case len(f.via) == 0:
		return cli.Usagef("--via: name at least one of %s", strings.Join(client.MediaNames(), ", "))
	case f.size.N < client.SmallestMessage || f.size.N > client.LargestMessage:
		return cli.Usagef("--size %d: a message has %d bytes, for its number, to %s", f.size.N,
			client.SmallestMessage, display.ShortBytes(client.LargestMessage))
	case f.count < 1 || f.count > mostMessages:
		return cli.Usagef("--count %d: choose 1 to %d messages", f.count, mostMessages)
	}
	return nil
}

// completeMedia completes the last word of a comma list.
func completeMedia(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	before := typed[:strings.LastIndexByte(typed, ',')+1]
	var words []cobra.Completion
	for _, name := range client.MediaNames() {
		if strings.HasPrefix(before+name, typed) {
			words = append(words, before+name)
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeDirectory leaves the value of a flag to the shell.
func completeDirectory(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// errInterrupted is the end by Ctrl-C.
var errInterrupted = errors.New("interrupted")

// runIPC prints a row for each medium. Rows are lined up, so they are printed
// together at the end, which is soon.
func runIPC(ctx context.Context, signals Signals, flags *ipcFlags, named bool, out io.Writer) error {
	arrived, restore := signals(true)
	defer restore()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-arrived:
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	}()

	table := newIPCTable(out, flags)
	var failed error
	for _, via := range flags.via {
		result, err := client.RunIPC(ctx, via, client.IPC{
			Size: flags.size.N, Count: flags.count, Dir: flags.dir, Unsynchronised: flags.noSync, Peer: ipcPeer,
		})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, client.ErrUnavailable) && !named:
			table.missing = append(table.missing, err)
		case err != nil && failed == nil:
			failed = err
		case err == nil:
			table.row(result)
			if !flags.noSync && result.Whole != result.Sent && failed == nil {
				failed = fmt.Errorf("%s: %d of %d messages did not arrive as they were sent", via, result.Lost, result.Sent)
			}
		}
	}
	if err := table.end(); err != nil {
		return err
	}
	return failed
}

// ipcTable prints the results side by side.
type ipcTable struct {
	w       *tabwriter.Writer
	noSync  bool
	rows    int
	missing []error // media that are not available
	out     io.Writer
	flags   *ipcFlags
}

func newIPCTable(out io.Writer, flags *ipcFlags) *ipcTable {
	return &ipcTable{
		w: tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight), noSync: flags.noSync, out: out, flags: flags,
	}
}

func (t *ipcTable) row(r client.IPCResult) {
	if t.rows++; t.rows == 1 {
		how := "synchronised"
		if t.noSync {
			how = "without synchronisation"
		}
		fmt.Fprintf(t.out, "%d messages of %s, %s\n\n", t.flags.count, display.ExactBytes(t.flags.size.N), how)
		if t.noSync {
			fmt.Fprintln(t.w, "MEDIUM   \tKEPT APART BY\tSENT\tWHOLE\tTORN\tLOST\t")
		} else {
			fmt.Fprintln(t.w, "MEDIUM   \tKEPT APART BY\tROUND TRIP\tTHROUGHPUT\tCHECKED\tWHOLE\t")
		}
	}
	fmt.Fprintf(t.w, "%-9s\t%s\t", r.Via, r.Keeper)
	if t.noSync {
		fmt.Fprintf(t.w, "%d\t%d\t%d\t%d\t\n", r.Sent, r.Whole, r.Torn, r.Lost)
		return
	}
	fmt.Fprintf(t.w, "%.1f us\t%s/s\t%d\t%d\t\n",
		float64(r.RoundTrip)/float64(time.Microsecond), display.RoughBytes(int64(r.BytesPerSecond)), r.Sent, r.Whole)
}

func (t *ipcTable) end() error {
	if err := t.w.Flush(); err != nil {
		return err
	}
	for _, err := range t.missing {
		if _, err := fmt.Fprintf(t.out, "%v\n", err); err != nil {
			return err
		}
	}
	return nil
}

// IPCPeerName is the hidden command that is the other process.
const IPCPeerName = "ipc-peer"

// ipcPeer runs this binary again. By this link it is the same binary even when
// the file has been replaced meanwhile.
func ipcPeer(argument string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", IPCPeerName, argument)
	cmd.Args[0] = "mapfs"
	return cmd
}

func newIPCPeerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    IPCPeerName,
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			// The terminal sends Ctrl-C to both processes. The first one ends
			// this one, and tells.
			signal.Ignore(syscall.SIGINT)
			return client.RunPeer(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}
