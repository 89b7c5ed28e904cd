package control

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

func init() {
	harness.AddVerb("follow", clientFollow)
	harness.AddVerb("watch", clientWatch)
}

// eventLine is how a line of events begins: TIME SEQ KIND PATH.
var eventLine = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (\d+) ([a-z]+) ("(?:[^"\\]|\\.)*"|\S+)((?: [a-z]+=(?:"(?:[^"\\]|\\.)*"|\S+))*)$`)

// clientWatch is `client watch FILE FLAGS`, where FLAGS are those of `client fd`.
func clientWatch(args []string) error {
	flags := 0
	for _, word := range strings.Split(args[1], "|") {
		flags |= harness.OpenFlags[word]
	}
	fd, err := unix.Open(args[0], flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	fmt.Println("open")
	return harness.Converse(func(words []string) (string, error) { return watchCommand(fd, words) })
}

// clientFollow is `client follow FILE`: print what the file has, as it comes.
func clientFollow(args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, f)
	return err
}

// watchCommand is one line of a conversation with an open events file:
//
//	read SIZE | line | nonblock | check
//	poll MILLISECONDS | select MILLISECONDS | polls TIMES
//
// poll and select answer whether there was something to read in time; polls does
// many short ones. check reads on, in small pieces, until "the end", a file's
// name: it answers how many lines there were and how many were lost, or what was
// wrong with their numbers.
func watchCommand(fd int, words []string) (string, error) {
	switch words[0] {
	case "read":
		b := make([]byte, harness.Atoi64(words[1]))
		n, err := readOn(fd, b)
		return strconv.Quote(string(b[:max(n, 0)])), err
	case "line":
		var line []byte
		for {
			var b [1]byte
			if n, err := readOn(fd, b[:]); err != nil || n == 0 || b[0] == '\n' {
				return strconv.Quote(string(line)), err
			}
			line = append(line, b[0])
		}
	case "nonblock":
		return "ok", unix.SetNonblock(fd, true)
	case "check":
		return checkEvents(fd)
	case "poll":
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(harness.Atoi64(words[1])))
		return ready(n, fds[0].Revents&unix.POLLIN != 0), err
	case "polls":
		for range harness.Atoi64(words[1]) {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds, 1); err != nil && err != unix.EINTR {
				return "", err
			}
		}
		return "ok", nil
	case "select":
		var set unix.FdSet
		set.Set(fd)
		timeout := unix.NsecToTimeval(harness.Atoi64(words[1]) * int64(time.Millisecond))
		n, err := unix.Select(fd+1, &set, nil, nil, &timeout)
		return ready(n, set.IsSet(fd)), err
	}
	return "", fmt.Errorf("no command %q", words)
}

// ready is how poll and select of watchCommand answer.
func ready(n int, asked bool) string { return strconv.FormatBool(n == 1 && asked) }

// readOn is read(2), again after a signal: Go's runtime sends itself some.
func readOn(fd int, b []byte) (n int, err error) {
	for {
		if n, err = unix.Read(fd, b); err != unix.EINTR {
			return n, err
		}
	}
}

// readAvailable reads from a non-blocking descriptor until EAGAIN.
func readAvailable(fd int) (string, error) {
	var text strings.Builder
	b := make([]byte, 1<<16)
	for {
		n, err := readOn(fd, b)
		if err == unix.EAGAIN {
			return text.String(), nil
		}
		if err != nil {
			return "", fmt.Errorf("read of events: %w", err)
		}
		text.Write(b[:n])
	}
}

// checkEvents is the command check.
func checkEvents(fd int) (string, error) {
	var rest string
	var next, lineN, lostN uint64
	b := make([]byte, 1000)
	for {
		n, err := readOn(fd, b)
		if err != nil || n == 0 {
			return "end", err
		}
		rest += string(b[:n])
		for {
			line, after, found := strings.Cut(rest, "\n")
			if !found {
				break
			}
			rest = after
			m := eventLine.FindStringSubmatch(line)
			if m == nil {
				return fmt.Sprintf("a strange line: %q", line), nil
			}
			seq, _ := strconv.ParseUint(m[1], 10, 64)
			lineN++
			if m[2] == "lost" {
				lost, err := strconv.ParseUint(strings.TrimPrefix(m[4], " n="), 10, 64)
				if err != nil || m[3] != "-" {
					return fmt.Sprintf("a strange lost line: %q", line), nil
				}
				lostN += lost
				if next != 0 {
					next += lost
				}
				continue
			}
			if next != 0 && seq != next {
				return fmt.Sprintf("event %d comes where %d should: %q", seq, next, line), nil
			}
			next = seq + 1
			if strings.Contains(m[3], "the-end") {
				return fmt.Sprintf("%d lines, %d lost", lineN, lostN), nil
			}
		}
	}
}

// events is the path of the mount's events.
func events(m *harness.Mounted) string { return m.Path(".mapfs", "events") }

// startCat starts a cat of the events, and waits for the line that says so.
func startCat(t *testing.T, m *harness.Mounted) *harness.Process {
	t.Helper()
	p := harness.StartProc(t, exec.Command("cat", events(m)))
	until(t, p, touched(t, m))
	return p
}

var touchedN int

// touched makes a file with a name of its own, and returns a text that its events
// have.
func touched(t *testing.T, m *harness.Mounted) string {
	t.Helper()
	touchedN++
	name := fmt.Sprintf("touched-%d", touchedN)
	harness.Run(t, "touch", m.Path(name))
	return " open " + name + " "
}

// until reads lines until one that has the text, and returns it.
func until(t *testing.T, p *harness.Process, text string) string {
	t.Helper()
	for {
		line := p.Line()
		if !eventLine.MatchString(line) {
			t.Fatalf("a strange line: %q", line)
		}
		if strings.Contains(line, text) {
			return line
		}
	}
}

// TestControlEventsReaders has readers wait for events in every way there is.
func TestControlEventsReaders(t *testing.T) {
	m := harness.Mount(t, harness.TempDir(t))

	t.Run("many", func(t *testing.T) {
		var cats []*harness.Process
		for range 20 {
			cats = append(cats, startCat(t, m))
		}
		harness.Run(t, "sh", "-c", `echo hello >"$1"`, "sh", m.Path("f"))
		var want []string
		for i, cat := range cats {
			got := []string{until(t, cat, " open f "), until(t, cat, " write f "), until(t, cat, " extend f ")}
			if i == 0 {
				want = got
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("reader %d: got %q, the first got %q", i, got, want)
			}
		}
		if !strings.HasSuffix(want[0], " open f flags=wronly,creat,trunc pid="+wordAfter(want[0], "pid=")) ||
			!strings.Contains(want[1], " offset=0 length=6 pid=") || !strings.HasSuffix(want[2], " offset=0 length=6") {
			t.Errorf("the events are\n%s", strings.Join(want, "\n"))
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
			cat := startCat(t, m)
			time.Sleep(50 * time.Millisecond) // it waits in the kernel now
			if err := cat.Cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := cat.WaitErr(); err == nil || !strings.Contains(err.Error(), "signal: "+sig.String()) {
				t.Errorf("cat after %v: %v", sig, err)
			}
		}
		_, err := harness.RunErr("timeout", "0.5", "cat", events(m))
		if code := harness.ExitCode(err); code != 124 {
			t.Errorf("timeout cat: %v, want exit status 124", err)
		}
	})
	t.Run("nonblock", func(t *testing.T) {
		w := harness.StartClient(t, "watch", events(m), "r|nonblock")
		w.Hear("open")
		drainWatch(t, w)
		touched(t, m)
		if got := w.Ask("read 100000"); !strings.Contains(got, " open touched-") {
			t.Errorf("read after an event: %s", got)
		}
		w.Wait()
	})
	t.Run("nonblock_later", func(t *testing.T) {
		w := harness.StartClient(t, "watch", events(m), "r")
		w.Hear("open")
		if got := w.Ask("nonblock"); got != "ok" {
			t.Fatal(got)
		}
		drainWatch(t, w)
		w.Wait()
	})
	t.Run("tail", func(t *testing.T) {
		need.Tool(t, "stdbuf")
		last := touched(t, m)
		for _, args := range [][]string{{"tail", "-f"},
			// tail keeps what it writes first in a buffer until its first end of file.
			{"stdbuf", "-oL", "tail", "-n", "+1", "-f"}} {
			tail := harness.StartProc(t, exec.Command(args[0], append(args[1:], events(m))...))
			tail.Line()
			until(t, tail, touched(t, m))
			until(t, tail, touched(t, m))
			tail.Kill()
		}
		out, err := harness.RunErr("timeout", "0.5", "tail", "-n", "20", events(m))
		if code := harness.ExitCode(err); code == 0 && !strings.Contains(out, last) {
			t.Errorf("tail -n 20 ended without %q:\n%s", last, out)
		}
	})
	t.Run("head", func(t *testing.T) {
		if got := harness.Run(t, "head", "-n", "3", events(m)); strings.Count(got, "\n") != 3 {
			t.Errorf("head -n 3: %q", got)
		}
	})
}

// wordAfter is the rest of a line after the last mark.
func wordAfter(line, mark string) string { return line[strings.LastIndex(line, mark)+len(mark):] }

// drainWatch reads what there is until EAGAIN.
func drainWatch(t *testing.T, w *harness.Process) {
	t.Helper()
	for range 1000 {
		switch got := w.Ask("read 100000"); {
		case got == "error: EAGAIN":
			return
		case strings.HasPrefix(got, "error"):
			t.Fatalf("read: %s", got)
		}
	}
	t.Fatal("there is no end of events")
}

// TestControlEventsLost has more happen than is kept. Whoever could not follow
// is told how much it missed, and everybody's numbers go up one by one.
func TestControlEventsLost(t *testing.T) {
	for _, c := range []struct {
		name string
		fast bool // a reader that follows makes events text, which is kept apart
	}{{"slow", false}, {"slow_beside_a_fast_one", true}} {
		t.Run(c.name, func(t *testing.T) {
			m := harness.Mount(t, harness.TempDir(t))
			harness.Run(t, "touch", m.Path("start"))
			slow := harness.StartClient(t, "watch", events(m), "r")
			slow.Hear("open")
			if got := slow.Ask("line"); !strings.Contains(got, " 1 open start ") {
				t.Fatalf("the first event: %s", got)
			}
			if c.fast {
				fast := harness.StartClient(t, "watch", events(m), "r")
				fast.Hear("open")
				fast.Say("check")
				defer func() {
					if got := fast.Line(); !strings.Contains(got, " lines, ") {
						t.Errorf("the fast reader: %s", got)
					}
					fast.Wait()
				}()
			}
			// Each write is two events.
			harness.Run(t, "dd", "if=/dev/zero", "of="+m.Path("a-rather-long-name-that-fills-the-text-that-is-kept"), "bs=1", "count=9000", "status=none")
			harness.Run(t, "touch", m.Path("the-end"))
			got := slow.Ask("check")
			var lineN, lostN int
			if _, err := fmt.Sscanf(got, "%d lines, %d lost", &lineN, &lostN); err != nil || lostN == 0 {
				t.Errorf("the slow reader: %s, want some lost", got)
			}
			if all := lineN + lostN; all < 18000 || all > 18100 {
				t.Errorf("the slow reader: %s, want some 18000 together", got)
			}
			slow.Wait()
		})
	}
}

// TestControlEventsKinds follows one file, and compares every event but the time.
func TestControlEventsKinds(t *testing.T) {
	dir := harness.Ext4Dir(t)
	m := harness.Mount(t, dir)
	cat := startCat(t, m)
	page := os.Getpagesize()
	fd := harness.StartClient(t, "fd", m.Path("f"), "rw|creat")
	fd.Hear("open")
	for _, line := range []string{"pwrite 0 hello", "truncate 3", "truncate " + strconv.Itoa(page+1), "fsync"} {
		if got := fd.Ask("%s", line); strings.HasPrefix(got, "error") {
			t.Fatalf("%s: %s", line, got)
		}
	}
	ctl := func(line string) {
		t.Helper()
		_, _ = harness.RunErr("sh", "-c", `echo "$2" >"$1"`, "sh", m.Path(".mapfs", "files", "f", "ctl"), line)
	}
	ctl("msync flags=async")
	ctl("mlock")
	ctl("msync flags=sync,invalidate")
	ctl("munlock")
	ctl("madvise advice=dontneed")
	fd.Wait()

	want := []string{
		`open f flags=rdwr,creat pid=\d+`,
		`write f offset=0 length=5 pid=\d+`,
		`extend f offset=0 length=5`,
		`truncate f from=5 to=3`,
		fmt.Sprintf(`truncate f from=3 to=%d`, page+1),
		fmt.Sprintf(`msync f flags=sync offset=0 length=%d pages=2 errno=0`, page+1),
		fmt.Sprintf(`msync f flags=async offset=0 length=%d pages=0 errno=0 note="[^"]+"`, 2*page),
		fmt.Sprintf(`msync f flags=sync,invalidate offset=0 length=%d pages=0 errno=EBUSY`, 2*page),
		fmt.Sprintf(`invalidate f offset=0 length=%d`, 2*page),
		`close f flags=rdwr,creat`,
	}
	zero := regexp.MustCompile(`^zero f offset=\d+ length=\d+$`)
	for seq := 0; len(want) > 0; {
		line := cat.Line()
		match := eventLine.FindStringSubmatch(line)
		if match == nil {
			t.Fatalf("a strange line: %q", line)
		}
		n, _ := strconv.Atoi(match[1])
		if seq != 0 && n != seq+1 {
			t.Errorf("event %d after %d", n, seq)
		}
		seq = n
		switch rest := match[2] + " " + match[3] + match[4]; {
		case match[3] != "f" || zero.MatchString(rest): // whether a tail needs clearing is the engine's to know
		case regexp.MustCompile("^" + want[0] + "$").MatchString(rest):
			want = want[1:]
		case match[2] != "map": // made when it is first needed
			t.Fatalf("event %q, want %s", rest, want[0])
		}
	}
}

// TestControlEventsUnmount has a reader wait while the mount is to go.
func TestControlEventsUnmount(t *testing.T) {
	t.Run("busy_then_lazy", func(t *testing.T) {
		m := harness.Mount(t, harness.TempDir(t))
		cat := startCat(t, m)
		_, err := harness.RunErr(harness.Binary, "umount", m.Dir)
		if harness.ExitCode(err) != 1 || !strings.Contains(err.Error(), "busy") || !strings.Contains(err.Error(), "cat") {
			t.Errorf("umount beside a reader of events: %v", err)
		}
		if !harness.IsMounted(t, m.Dir) {
			t.Fatal("it is unmounted all the same")
		}
		touched(t, m) // it is alive
		harness.Run(t, harness.Binary, "umount", "-l", m.Dir)
		if harness.IsMounted(t, m.Dir) {
			t.Error("still mounted after umount -l")
		}
		if err := cat.Cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if err := cat.WaitErr(); errors.Is(err, harness.ErrTimeout) {
			t.Errorf("cat: %v", err)
		}
		if code := m.WaitExit(harness.ExitLimit); code != 0 {
			t.Errorf("exit status of the daemon: %d", code)
		}
	})
	t.Run("forced", func(t *testing.T) {
		m := harness.Mount(t, harness.TempDir(t))
		need.Root(t)
		cat := startCat(t, m)
		// umount -f ends the session under its users.
		if _, err := harness.RunErr("umount", "-f", m.Dir); err != nil {
			_, _ = harness.RunErr("umount", "-l", m.Dir)
		}
		if err := cat.WaitErr(); errors.Is(err, harness.ErrTimeout) {
			t.Errorf("cat: %v", err)
		}
		if code := m.WaitExit(harness.ExitLimit); code != 0 {
			t.Errorf("exit status of the daemon: %d", code)
		}
	})
	t.Run("killed", func(t *testing.T) {
		m := harness.Mount(t, harness.TempDir(t))
		cat := startCat(t, m)
		m.Kill()
		if err := cat.WaitErr(); err == nil || !errors.As(err, new(*exec.ExitError)) {
			t.Errorf("cat after the daemon's death: %v", err)
		}
	})
	t.Run("terminated", func(t *testing.T) {
		m := harness.Mount(t, harness.TempDir(t))
		cat := startCat(t, m)
		m.Signal(syscall.SIGTERM) // busy: it says so and stays
		for deadline := time.Now().Add(harness.ExitLimit); !strings.Contains(m.Logged(), "busy"); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the daemon says nothing of being busy:\n%s", m.Logged())
			}
		}
		touched(t, m)
		cat.Kill()
	})
}
