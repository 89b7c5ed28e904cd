package durability

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

func init() {
	harness.AddVerb("append", clientAppend)
}

// patternAt fills b with what the tests' files hold at off: never a zero, so
// that a hole or a tail that nobody wrote shows, and nothing that repeats with
// a page, so that a page in the wrong place shows.
func patternAt(b []byte, off int64) {
	for i := range b {
		x := uint64(off) + uint64(i)
		b[i] = byte((x*0x9e3779b97f4a7c15)>>56) | 1
	}
}

// checkPattern fails the test unless the file has the pattern from off on.
func checkPattern(t testing.TB, file string, off int64) {
	t.Helper()
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, len(got))
	patternAt(want, off)
	if i := firstDifference(got, want); i >= 0 {
		t.Errorf("%s (%d bytes): at %d got %x, want %x", file, len(got), i, got[i], want[i])
	}
}

// firstDifference is the index of the first byte in which a and b, of one
// length, differ, or -1.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// clientAppend is `append FILE BLOCK [MOST]`: it appends blocks of the pattern
// until the file has MOST bytes or a write fails, and says after each write how
// many bytes the file has by what write(2) acknowledged. The last line is
// "done" or the error.
func clientAppend(args []string) error {
	fd, err := unix.Open(args[0], unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	acked, most := st.Size, int64(1)<<62
	if len(args) > 2 {
		most = harness.Atoi64(args[2])
	}
	block := make([]byte, harness.Atoi64(args[1]))
	for acked < most {
		b := block[:min(int64(len(block)), most-acked)]
		patternAt(b, acked)
		n, err := unix.Write(fd, b)
		if err != nil {
			fmt.Println("error: " + harness.ErrnoName(err))
			return nil
		}
		acked += int64(n)
		fmt.Println(acked)
	}
	fmt.Println("done")
	return nil
}

// appender follows a client that runs clientAppend.
type appender struct {
	*harness.Process
	t     testing.TB
	acked int64
	end   string // the last line, once it was said
}

func startAppend(t testing.TB, file string, block int, most ...int64) *appender {
	t.Helper()
	args := []string{file, strconv.Itoa(block)}
	for _, m := range most {
		args = append(args, strconv.FormatInt(m, 10))
	}
	return &appender{t: t, Process: harness.StartClient(t, "append", args...)}
}

// follow reads on until the client has at least so many bytes acknowledged or
// ends, and reports whether it still runs.
func (a *appender) follow(acked int64) bool {
	a.t.Helper()
	for a.acked < acked && a.end == "" {
		line := a.Line()
		if n, err := strconv.ParseInt(line, 10, 64); err == nil {
			a.acked = n
		} else {
			a.end = line
		}
	}
	return a.end == ""
}

// finish reads to the end and wants the last line to be one of these.
func (a *appender) finish(want ...string) {
	a.t.Helper()
	a.follow(1 << 62)
	for _, w := range want {
		if a.end == w {
			a.Wait()
			return
		}
	}
	a.t.Errorf("%q after %d bytes: got %q, want one of %q", a.Cmd.Args, a.acked, a.end, want)
}

// fileSize is the size of a file of BACKING.
func fileSize(t testing.TB, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
