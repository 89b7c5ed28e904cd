//go:build linux

package memory

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"mapfs/client"
	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/display"
)

// holdFlags are the flags of "mapfs hold".
type holdFlags struct {
	mappingFlags
	every secondsFlag
}

func newHoldCommand(signals Signals) *cobra.Command {
	var flags holdFlags
	cmd := &cobra.Command{
		Use:   "hold [flags] FILE",
		Short: "Keep a mapping of a file and obey commands from stdin",
		Long: `Map FILE with exactly these arguments of mmap(2), keep the mapping, and run the
commands that stdin has, one a line, until it ends, quit or Ctrl-C. FILE can be
any file on any filesystem; two processes that hold the same one share it.

The first line of output describes the mapping as /proc/PID/maps does. Then each
command is answered by one line, but for dump and help: its result, ok, or the
error after "error: ". Numbers are bytes and take the suffixes k, M, G and T. OFF
counts from the beginning of the mapping.

` + HoldHelp + `
` + faultsHelp + `
If stdin is no terminal, the status is 1 when a command failed.`,
		Example: `  mapfs hold ~/mnt/notes.txt
  printf 'store 0 Hello\nmsync sync\n' | mapfs hold ~/mnt/notes.txt
  mapfs hold --prot r --length 16 --print-every 1 ~/mnt/notes.txt
  mapfs hold --offset 100 ~/mnt/notes.txt      not a multiple of the page size: EINVAL`,
		Args:              oneClientFile,
		ValidArgsFunction: cli.CompletePath,
		RunE: func(cmd *cobra.Command, args []string) error {
			return hold(signals, args[0], &flags, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	flags.registerRange(cmd, "map from byte `N` of the file on, a multiple of the page size", "map `N` bytes (to the end of the file)")
	flags.registerProtection(cmd, unix.PROT_READ|unix.PROT_WRITE)
	cmd.Flags().Var(&flags.every, "print-every", "print the first bytes of the mapping every `SECONDS`")
	completeFlag(cmd, "print-every")
	return cmd
}

func hold(signals Signals, path string, flags *holdFlags, stdin io.Reader, out io.Writer) (err error) {
	// Ctrl-C is a way to say that it is enough, also of a command that waits.
	stop, restore := signals(true)
	defer restore()
	m, err := client.Map(path, flags.options())
	if err != nil {
		return err
	}
	defer closeMapping(m, &err)
	h := &holder{m: m, out: out, stop: stop}
	if f, isFile := stdin.(*os.File); isFile {
		_, err := display.TerminalSize(f)
		h.prompts = err == nil
	}
	if _, err := fmt.Fprintln(out, m); err != nil {
		return err
	}
	if flags.every > 0 {
		ticker := time.NewTicker(time.Duration(flags.every))
		defer ticker.Stop()
		h.ticks = ticker.C
	}
	return h.obey(stdin)
}

// holder runs the commands for one mapping.
type holder struct {
	m       *client.Mapping
	out     io.Writer
	prompts bool // a person types the commands
	failed  int  // commands
	ticks   <-chan time.Time
	stop    <-chan os.Signal
}

// errEnough ends the conversation; it is no error.
var errEnough = errors.New("enough")

// obey runs commands until they end. All of them, and the printing between them,
// run in this goroutine: what is mapped belongs to one.
func (h *holder) obey(stdin io.Reader) error {
	lines, give := make(chan string), make(chan struct{})
	var readErr error // of stdin; set before lines is closed
	defer close(give)
	go func() {
		defer close(lines)
		in := bufio.NewScanner(stdin)
		in.Buffer(nil, maxCommand)
		for in.Scan() {
			select {
			case lines <- in.Text():
			case <-give:
				return
			}
		}
		readErr = in.Err()
	}()
	for {
		if h.prompts {
			fmt.Fprint(h.out, "> ")
		}
		line, more, err := h.next(lines)
		if err == nil && more {
			err = h.answer(line)
		}
		switch {
		case errors.Is(err, errEnough):
			return h.end(nil)
		case err != nil:
			return err
		case !more:
			return h.end(readErr)
		}
	}
}

// maxCommand is the longest line of stdin that is read, in bytes.
const maxCommand = 16 << 20

// next waits for a command, and prints what is due meanwhile.
func (h *holder) next(lines <-chan string) (line string, more bool, err error) {
	for {
		select {
		case line, more = <-lines:
			if !more {
				h.leavePrompt()
			}
			return line, more, nil
		case <-h.stop:
			h.leavePrompt()
			return "", false, errEnough
		case <-h.ticks:
			if err := h.print(); err != nil {
				return "", false, err
			}
		}
	}
}

// leavePrompt ends the line of a prompt: the shell's next one has its own.
func (h *holder) leavePrompt() {
	if h.prompts {
		fmt.Fprintln(h.out)
	}
}

// pause is the command wait.
func (h *holder) pause(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return nil
		case <-h.stop:
			return errEnough
		case <-h.ticks:
			if err := h.print(); err != nil {
				return err
			}
		}
	}
}

// printMost is how many bytes --print-every shows, to fit a line.
const printMost = 64

func (h *holder) print() error {
	b, err := h.m.LoadBytes(0, min(printMost, h.m.Length()))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(h.out, "%q\n", b)
	return err
}

// end tells a script whether all commands were done; a person has seen it.
func (h *holder) end(err error) error {
	if err == nil && h.failed > 0 && !h.prompts {
		err = fmt.Errorf("%d of the commands failed", h.failed)
	}
	return err
}

// secondsFlag is a flag with a span of time.
type secondsFlag time.Duration

func (s *secondsFlag) Type() string { return "SECONDS" }

// String is the default that the help shows: none.
func (s *secondsFlag) String() string { return "" }

func (s *secondsFlag) Set(text string) error {
	d, err := cli.ParseSeconds(text)
	if err == nil && d == 0 {
		err = errors.New("more than 0 seconds")
	}
	*s = secondsFlag(d)
	return err
}
