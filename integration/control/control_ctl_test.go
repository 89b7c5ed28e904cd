package control

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// ctlChecks are about commands that work, and their answers.
var ctlChecks = []treeCheck{
	{name: "ctl_every_command", run: func(c *treeT) {
		c.Write(c.Path("f"), strings.Repeat("x", pages(3)+1))
		ctl, p := c.of("f", "ctl"), os.Getpagesize()
		for _, line := range []string{
			"msync", "msync\n", "  msync\t\r\n", "msync offset=0", fmt.Sprintf("msync offset=%d length=1", p),
			fmt.Sprintf("msync length=%d offset=%d flags=sync", 2*p, 2*p), "msync flags=async", "msync flags=invalidate",
			"msync flags=sync,invalidate", "msync flags=async,invalidate", `msync flags="sync" offset="0"`,
			"madvise advice=dontneed", "madvise advice=willneed", "madvise advice=cold",
			fmt.Sprintf("madvise advice=pageout offset=%d length=%d", p, p),
			"mlock", fmt.Sprintf("munlock offset=%d", p), "munlock", "munlock",
			fmt.Sprintf("mlock offset=%d length=%d", p, p), "munlock offset=0 length=1", "munlock",
		} {
			c.obeys(ctl, line)
		}
		c.obeys(c.tree("ctl"), "sync\n")
		// Without a mapping and without a byte there is nothing to do.
		c.Write(c.Path("empty"), "")
		c.obeys(c.of("empty", "ctl"), "msync")
	}},
	{name: "ctl_by_echo", run: func(c *treeT) {
		c.Write(c.Path("f"), "hello")
		harness.Run(c, "sh", "-c", `echo msync >"$1"`, "sh", c.of("f", "ctl"))
		harness.Equal(c, c.text(c.of("f", "unsynced")), "", "unsynced")
		c.Write(c.Path("f"), "hello")
		harness.Run(c, "sh", "-c", `printf "msync flags=async\nmsync\n" >>"$1"`, "sh", c.of("f", "ctl"))
		harness.Equal(c, c.text(c.of("f", "unsynced")), "", "unsynced after two lines")
		_, err := harness.RunErr("sh", "-c", `env echo msync offset=100 >"$1"`, "sh", c.of("f", "ctl"))
		if err == nil || !strings.Contains(err.Error(), "Invalid argument") {
			c.Fatalf("echo of a bad command: got %v, want Invalid argument", err)
		}
		harness.Run(c, "sh", "-c", `echo sync >"$1"`, "sh", c.tree("ctl"))
	}},
	{name: "ctl_msync_ranges", run: func(c *treeT) {
		p := os.Getpagesize()
		write := func() { c.Write(c.Path("f"), strings.Repeat("x", 8*p)) }
		for line, want := range map[string]string{
			"msync":                                        "",
			fmt.Sprintf("msync offset=%d", 5*p):            fmt.Sprintf("0 %d write\n", 5*p),
			fmt.Sprintf("msync length=%d", p+1):            fmt.Sprintf("%d %d write\n", 2*p, 6*p),
			fmt.Sprintf("msync offset=%d length=1", 3*p):   fmt.Sprintf("0 %d write\n%d %d write\n", 3*p, 4*p, 4*p),
			"msync flags=async":                            fmt.Sprintf("0 %d write\n", 8*p),
			"msync flags=invalidate":                       fmt.Sprintf("0 %d write\n", 8*p),
			fmt.Sprintf("msync offset=%d flags=sync", 7*p): fmt.Sprintf("0 %d write\n", 7*p),
		} {
			write()
			c.obeys(c.of("f", "ctl"), line)
			harness.Equal(c, c.text(c.of("f", "unsynced")), want, "unsynced after %q", line)
		}
		c.obeys(c.tree("ctl"), "sync")
		harness.Equal(c, c.value(c.of("f", "status"), "unsynced_bytes"), "0", "unsynced_bytes after the mount's sync")
	}},
	{name: "ctl_locked_pages", run: func(c *treeT) {
		p := os.Getpagesize()
		c.Write(c.Path("f"), strings.Repeat("x", 4*p))
		ctl := c.of("f", "ctl")
		c.obeys(ctl, fmt.Sprintf("mlock offset=%d length=%d", p, p))
		for _, flags := range []string{"invalidate", "sync,invalidate", "async,invalidate"} {
			c.refuses(ctl, "msync flags="+flags, syscall.EBUSY, "lock")
			c.refuses(ctl, fmt.Sprintf("msync offset=%d flags=%s", p, flags), syscall.EBUSY, "lock")
		}
		// Refused is not failed: nothing is wrong with the file.
		harness.Equal(c, c.value(c.of("f", "status"), "error"), "none", "the sticky error")
		c.obeys(ctl, fmt.Sprintf("msync offset=%d flags=sync,invalidate", 2*p))
		c.obeys(ctl, "msync")
		c.obeys(ctl, "munlock")
		c.obeys(ctl, "msync flags=invalidate")
		c.Ok(c.fsync("f"), "fsync")
	}},
	{name: "ctl_answers", run: func(c *treeT) {
		c.Write(c.Path("f"), "hello")
		fd := c.Open(c.of("f", "ctl"), unix.O_RDWR, 0)
		harness.Equal(c, c.answer(fd), "", "answer before a command")
		write := func(text string, want error) {
			_, err := unix.Write(fd, []byte(text))
			harness.Equal(c, err, want, "write of %q", text)
		}
		write("msync", nil)
		harness.Equal(c, c.answer(fd), "ok\n", "answer")
		harness.Equal(c, c.answer(fd), "", "answer read twice")
		write("msync\nmsync\n\nmsync\n", nil)
		harness.Equal(c, c.answer(fd), "ok\nok\nok\n", "answers of three lines")
		write("nonsense", syscall.EINVAL)
		sentence := c.answer(fd)
		if !strings.Contains(sentence, "nonsense") || !strings.HasSuffix(sentence, "\n") || strings.Count(sentence, "\n") != 1 {
			c.Fatalf("the sentence is %q", sentence)
		}
		write("msync", nil) // not read
		write("still nonsense", syscall.EINVAL)
		if got := c.answer(fd); !strings.Contains(got, "still") {
			c.Fatalf("the answer is not to the last command: %q", got)
		}
		// Two descriptors do not hear each other's answers.
		other := c.Open(c.of("f", "ctl"), unix.O_RDWR, 0)
		write("msync", nil)
		harness.Equal(c, c.answer(other), "", "answer on another descriptor")
		harness.Equal(c, c.answer(fd), "ok\n", "answer on this one")
	}},
	{name: "ctl_stops_at_the_first_failure", run: func(c *treeT) {
		p := os.Getpagesize()
		c.Write(c.Path("f"), strings.Repeat("x", 3*p))
		answer, err := c.command(c.of("f", "ctl"),
			fmt.Sprintf("msync length=%d\nmsync offset=7\nmsync offset=%d\n", p, p))
		c.Errno(err, unix.EINVAL, "write of three lines, the second bad")
		if !strings.Contains(answer, "offset=7") {
			c.Fatalf("the sentence does not name the argument: %q", answer)
		}
		harness.Equal(c, c.text(c.of("f", "unsynced")), fmt.Sprintf("%d %d write\n", p, 2*p), "unsynced")
	}},
	{name: "ctl_a_hundred_writers", run: func(c *treeT) {
		c.Write(c.Path("f"), strings.Repeat("x", pages(4)))
		var group sync.WaitGroup
		failures := make(chan string, 100)
		for i := range 100 {
			group.Go(func() {
				text, want, answer := fmt.Sprintf("msync offset=%d", pages(i%4)), error(nil), "ok"
				if i%2 == 1 {
					text, want, answer = fmt.Sprintf("msync offset=%d", pages(4)+i), syscall.EINVAL, fmt.Sprintf("offset=%d ", pages(4)+i)
				}
				fd, err := unix.Open(c.of("f", "ctl"), unix.O_RDWR|unix.O_CLOEXEC, 0)
				if err != nil {
					failures <- fmt.Sprintf("open: %v", err)
					return
				}
				defer unix.Close(fd)
				for range 5 {
					if _, err := unix.Write(fd, []byte(text)); err != want {
						failures <- fmt.Sprintf("write of %q: got %v, want %v", text, err, want)
						return
					}
					b := make([]byte, 1000)
					n, err := unix.Read(fd, b)
					if err != nil || !strings.Contains(string(b[:max(n, 0)]), answer) {
						failures <- fmt.Sprintf("answer to %q: %q %v", text, b[:max(n, 0)], err)
						return
					}
				}
			})
		}
		group.Wait()
		select {
		case failure := <-failures:
			c.Fatal(failure)
		default:
		}
		harness.Equal(c, c.text(c.of("f", "unsynced")), "", "unsynced")
	}},
}

// refuses runs a command that must fail with the errno and answer a sentence
// that has all of the words.
func (c *treeT) refuses(ctl, text string, want syscall.Errno, words ...string) {
	answer, err := c.command(ctl, text)
	what := fmt.Sprintf("%.60q", text)
	c.Errno(err, want, "%s", what)
	if len(answer) > 1000 || !strings.HasSuffix(answer, "\n") || strings.Count(answer, "\n") != 1 || len(answer) < 10 {
		c.Fatalf("%s: the answer is no sentence: %.1000q", what, answer)
	}
	for _, r := range strings.TrimSuffix(answer, "\n") {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			c.Fatalf("%s: the answer is no text: %q", what, answer)
		}
	}
	for _, word := range words {
		if !strings.Contains(answer, word) {
			c.Fatalf("%s: the sentence %q does not have %q", what, answer, word)
		}
	}
}

// badCommands are what a file's ctl must refuse, and the words of the sentence.
func badCommands() []badCommand {
	p := os.Getpagesize()
	return []badCommand{
		// As msync(2) says.
		{"msync offset=100", syscall.EINVAL, []string{"offset=100", "multiple of the page size", fmt.Sprint(p)}},
		{fmt.Sprintf("msync offset=%d", p+1), syscall.EINVAL, []string{fmt.Sprint("offset=", p+1)}},
		{"msync flags=sync,async", syscall.EINVAL, []string{"sync,async"}},
		{"msync flags=async,invalidate,sync", syscall.EINVAL, []string{"async"}},
		{fmt.Sprintf("msync length=%d", 4*p), syscall.ENOMEM, nil},
		{fmt.Sprintf("msync offset=%d length=1", 3*p), syscall.ENOMEM, nil},
		{fmt.Sprintf("msync offset=%d", 8*p), syscall.ENOMEM, nil},
		{fmt.Sprintf("madvise advice=willneed offset=%d length=%d", p, 3*p), syscall.ENOMEM, nil},
		{fmt.Sprintf("mlock offset=%d length=%d", 2*p, 2*p), syscall.ENOMEM, nil},
		{fmt.Sprintf("munlock offset=%d length=%d", 16*p, p), syscall.ENOMEM, nil},
		{"madvise advice=dontneed offset=1", syscall.EINVAL, []string{"offset=1"}},
		{"mlock offset=1", syscall.EINVAL, []string{"offset=1"}},
		{"munlock offset=1", syscall.EINVAL, []string{"offset=1"}},
		// Numbers that are none, or too large.
		{"msync offset=", syscall.EINVAL, []string{"offset"}},
		{"msync offset=-4096", syscall.EINVAL, []string{"offset", "-4096"}},
		{"msync length=-1", syscall.EINVAL, []string{"length", "-1"}},
		{"msync length=0", syscall.EINVAL, []string{"length"}},
		{"msync offset=0x1000", syscall.EINVAL, []string{"0x1000"}},
		{"msync offset=1e3", syscall.EINVAL, []string{"1e3"}},
		{"msync offset=+0", syscall.EINVAL, []string{"+0"}},
		{"msync offset=4_096", syscall.EINVAL, []string{"4_096"}},
		{"msync offset=9223372036854775808", syscall.EINVAL, []string{"9223372036854775808"}},
		{"msync offset=99999999999999999999999999", syscall.EINVAL, []string{"offset"}},
		{"msync length=18446744073709551616", syscall.EINVAL, []string{"length"}},
		{fmt.Sprintf("msync offset=%d length=9223372036854775807", 1<<62), syscall.EINVAL, []string{"length"}},
		{"msync length=9223372036854775807", syscall.ENOMEM, nil},
		// Words that nobody knows, or that come twice.
		{"frobnicate", syscall.EINVAL, []string{"frobnicate"}},
		{"MSYNC", syscall.EINVAL, []string{"MSYNC"}},
		{"sync", syscall.EINVAL, []string{"sync"}},
		{"msync offset", syscall.EINVAL, []string{"offset"}},
		{"msync off=0", syscall.EINVAL, []string{"off"}},
		{"msync =0", syscall.EINVAL, nil},
		{"msync flags=", syscall.EINVAL, []string{"flags"}},
		{"msync flags=sync,", syscall.EINVAL, []string{"flags"}},
		{"msync flags=sink", syscall.EINVAL, []string{"sink"}},
		{"msync offset=0 offset=0", syscall.EINVAL, []string{"offset", "twice"}},
		{"msync advice=cold", syscall.EINVAL, []string{"advice"}},
		{"madvise", syscall.EINVAL, []string{"advice"}},
		{"madvise advice=free", syscall.EINVAL, []string{"free"}},
		{"madvise advice=cold flags=sync", syscall.EINVAL, []string{"flags"}},
		{"mlock flags=sync", syscall.EINVAL, []string{"flags"}},
		{`msync offset="0`, syscall.EINVAL, []string{"quotes"}},
		{`msync offset=0"`, syscall.EINVAL, []string{"quotes"}},
		{`msync offset="\q"`, syscall.EINVAL, nil},
		{`"msync`, syscall.EINVAL, []string{"quotes"}},
		// No command at all.
		{"\n", syscall.EINVAL, []string{"empty"}},
		{" \t \n\n", syscall.EINVAL, []string{"empty"}},
		{"\x00", syscall.EINVAL, nil},
		{"msync\x00", syscall.EINVAL, nil},
		{"msync offset=\xff\xfe", syscall.EINVAL, nil},
		{"\x1b[31m\x07 \u202e", syscall.EINVAL, nil},
		{strings.Repeat("a", 1<<20), syscall.EINVAL, nil},
		{strings.Repeat("\n", 1<<20), syscall.EINVAL, nil},
		{strings.Repeat("msync\n", 200_000), syscall.EINVAL, nil},
		{"msync " + strings.Repeat("k=v ", 10_000), syscall.EINVAL, nil},
		{"msync offset=" + strings.Repeat("0", 60_000) + "1", syscall.EINVAL, nil},
		{strings.Repeat(`"`, 60_001), syscall.EINVAL, nil},
	}
}

type badCommand struct {
	text  string
	errno syscall.Errno
	words []string
}

// ctlBadChecks are about everything that is refused. Nothing may come of it.
var ctlBadChecks = []treeCheck{
	{name: "ctl_refuses", run: func(c *treeT) {
		c.Write(c.Path("f"), strings.Repeat("x", pages(3)))
		want := c.text(c.of("f", "unsynced"))
		for _, bad := range badCommands() {
			c.refuses(c.of("f", "ctl"), bad.text, bad.errno, bad.words...)
			harness.Equal(c, c.text(c.of("f", "unsynced")), want, "unsynced after %.60q", bad.text)
			if bad.errno == syscall.EINVAL && !strings.HasPrefix(bad.text, "sync") {
				c.refuses(c.tree("ctl"), bad.text, syscall.EINVAL)
			}
		}
		harness.Equal(c, c.value(c.of("f", "status"), "msyncs"), "0", "msyncs")
		harness.Equal(c, c.value(c.of("f", "status"), "error"), "none", "the sticky error")
		for _, text := range []string{"sync now", "sync offset=0", "msync", "mlock", "syncsync"} {
			c.refuses(c.tree("ctl"), text, syscall.EINVAL)
		}
		harness.Equal(c, c.text(c.of("f", "unsynced")), want, "unsynced after the mount's ctl")
		c.obeys(c.of("f", "ctl"), "msync") // it still listens
	}},
	{name: "ctl_half_lines", run: func(c *treeT) {
		// A write is a command, not a part of one.
		c.Write(c.Path("f"), strings.Repeat("x", pages(3)))
		want := c.text(c.of("f", "unsynced"))
		fd := c.Open(c.of("f", "ctl"), unix.O_RDWR, 0)
		for _, half := range []string{"msync off", "set=0\n", "ms", "ync\n", "\n"} {
			_, err := unix.Write(fd, []byte(half))
			c.Errno(err, unix.EINVAL, "write of %q", half)
		}
		n, err := unix.Write(fd, nil)
		c.Ok(err, "write of nothing")
		harness.Equal(c, n, 0, "bytes of nothing")
		harness.Equal(c, c.text(c.of("f", "unsynced")), want, "unsynced")
	}},
	{name: "ctl_of_a_removed_file", run: func(c *treeT) {
		c.Write(c.Path("f"), "hello")
		ctl := c.Open(c.of("f", "ctl"), unix.O_RDWR, 0)
		pages := c.of("f", "pages")
		held := c.Open(pages, unix.O_RDONLY, 0)
		c.Ok(unix.Unlink(c.Path("f")), "unlink")
		c.Absent(c.of("f"))
		_, err := unix.Open(pages, unix.O_RDONLY, 0)
		c.Errno(err, unix.ENOENT, "open of its pages")
		// What was opened before may still answer, but never for another file.
		c.Write(c.Path("f"), "another")
		if n, err := unix.Write(ctl, []byte("msync")); err == nil {
			harness.Equal(c, n, 5, "bytes written to the old ctl")
		}
		harness.Equal(c, c.text(c.of("f", "unsynced")), "0 7 write\n", "unsynced of the new file")
		b := make([]byte, 100)
		n, err := unix.Read(held, b)
		c.Ok(err, "read of the old pages")
		if !strings.HasPrefix(string(b[:n]), "0-0 ") {
			c.Fatalf("the old pages: %q", b[:n])
		}
	}},
}
