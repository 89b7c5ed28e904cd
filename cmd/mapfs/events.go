//go:build linux

package main

import (
	"bufio"
	"bytes"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/ctltree"
)

func newEventsCommand(sys system) *cobra.Command {
	var noFollow bool
	cmd := &cobra.Command{
		Use:   "events [--no-follow] [PATH]",
		Short: "Follow what happens in a mount or to one of its files",
		Long: `Print what happens in the mapfs mount that PATH is in, one line for each event,
until Ctrl-C; if PATH is a regular file, only what happens to it. PATH is the
working directory if left out.

  TIME SEQ KIND PATH key=value ...

A line "TIME SEQ lost - n=COUNT" says that events came faster than they were
read. Data is never held up for a reader.`,
		Example: `  mapfs events ~/mnt
  mapfs events ~/mnt/notes.txt
  mapfs events --no-follow ~/mnt | grep msync`,
		Args:              optionalPath,
		ValidArgsFunction: cli.CompletePath,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := findTarget(sys, pathOrHere(args))
			if err != nil {
				return err
			}
			if noFollow {
				return t.explain(recentEvents(t, everything, lineWriter(cmd.OutOrStdout())))
			}
			return t.explain(followEvents(t, cmd.OutOrStdout()))
		},
	}
	cmd.Flags().BoolVar(&noFollow, "no-follow", false, "print what is remembered, and end")
	return cmd
}

// event is a line of the file events.
type event struct {
	time, seq, kind, path, rest string
}

// parseEvent splits TIME SEQ KIND PATH key=value ...
func parseEvent(line string) (event, bool) {
	columns := strings.SplitN(line, " ", 4)
	if len(columns) < 4 {
		return event{}, false
	}
	path, rest, ok := ctltree.CutPath(columns[3])
	return event{columns[0], columns[1], columns[2], path, rest}, ok
}

// wants says whether the line of an event is to be shown for the target. What
// was lost may have been about any file.
func (t target) wants(line string) bool {
	if t.kind != targetFile {
		return true
	}
	e, ok := parseEvent(line)
	return ok && (e.path == t.name || e.kind == "lost")
}

// followEvents prints events as they come. It has no limit of time, and Ctrl-C
// ends the process as it ends tail -f.
func followEvents(t target, out io.Writer) error {
	file, err := ctltree.Within(ctltree.Limit, t.control, func() (*os.File, error) {
		return os.Open(filepath.Join(t.control, "events"))
	})
	if err != nil {
		return err
	}
	defer file.Close()
	return eachLine(file, t.wants, lineWriter(out))
}

// everything is more than a mount remembers of its events, in bytes.
const everything = math.MaxInt64

// recentEvents hands over the last events that the mount remembers, up to so
// many bytes of them, and does not wait for more.
func recentEvents(t target, most int64, show func(line string) error) error {
	path := filepath.Join(t.control, "events")
	file, err := ctltree.Within(ctltree.Limit, path, func() (unwaiting, error) {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return unwaiting(fd), nil
	})
	if err != nil {
		return err
	}
	events := ctltree.Of(file, path)
	defer events.Close()
	want := t.wants
	if cut, err := file.skip(most); err != nil {
		return err
	} else if cut {
		first := true
		want = func(line string) bool {
			whole := !first
			first = false
			return whole && t.wants(line)
		}
	}
	return eachLine(events, want, show)
}

// unwaiting is a descriptor that ends where others wait. An os.File would wait
// in spite of O_NONBLOCK.
type unwaiting int

func (fd unwaiting) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(fd), p)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN, err == nil && n == 0:
			return 0, io.EOF
		case err != nil:
			return 0, &os.PathError{Op: "read", Path: "events", Err: err}
		}
		return n, nil
	}
}

// skip leaves no more than so many bytes to read. It says whether it skipped
// any: the first line is then only the end of one.
func (fd unwaiting) skip(most int64) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(fd), &st); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	if st.Size <= most {
		return false, nil
	}
	_, err := unix.Seek(int(fd), st.Size-most, io.SeekStart)
	return err == nil, os.NewSyscallError("lseek", err)
}

func (fd unwaiting) Close() error { return unix.Close(int(fd)) }

// eachLine shows the wanted lines of r. A reader of events gets some lines at a
// time; they are shown before it waits for more.
func eachLine(r io.Reader, want func(line string) bool, show func(line string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if want(lines.Text()) {
			if err := show(lines.Text()); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// lineWriter writes each line by one call, so that lines of several writers
// never mix.
func lineWriter(w io.Writer) func(line string) error {
	var b bytes.Buffer
	return func(line string) error {
		b.Reset()
		b.WriteString(line)
		b.WriteByte('\n')
		_, err := w.Write(b.Bytes())
		return err
	}
}
