package control

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

func init() {
	harness.AddChecks(controlChecks())
}

// treeT is what a check works with, with what checks of the control tree share.
type treeT struct{ *harness.CheckT }

// treeCheck is one row of the table of the control tree.
type treeCheck struct {
	name      string
	run       func(c *treeT)
	mountOnly bool // as in Check
}

// controlChecks is the table of what the control tree promises to one process
// at a time. Like those of the POSIX table, the checks run in clients of their
// own, each in a directory of its own.
func controlChecks() (all []harness.Check) {
	for _, c := range slices.Concat(treeChecks, readChecks, pagesChecks, lookChecks, ctlChecks, ctlBadChecks,
		privacyChecks, oddPathChecks, cacheChecks) {
		all = append(all, harness.Check{Name: c.name, Run: func(t *harness.CheckT) { c.run(&treeT{t}) }, MountOnly: c.mountOnly, WriteThrough: false})
	}
	return all
}

// TestControl runs the table on mounts of ext4 and of tmpfs, whose pages the
// kernel tells of in different ways.
func TestControl(t *testing.T) {
	need.Root(t)
	harness.RequireFUSE(t)
	harness.EachFS(t, func(t *testing.T, top string) {
		backing := harness.SubDir(t, top, "backing")
		m := harness.Mount(t, backing, "allow_other")
		for _, c := range controlChecks() {
			t.Run(c.Name, func(t *testing.T) { harness.RunCheck(t, m.Dir, backing, c.Name) })
			m.Lives(c.Name)
		}
	})
}

// tree is a path in the control tree's root.
func (c *treeT) tree(elem ...string) string {
	return filepath.Join(append([]string{filepath.Dir(c.Dir), ".mapfs"}, elem...)...)
}

// of is a part of the control tree that is about a file or a directory of the
// check: "status", "pages" ...
func (c *treeT) of(name string, leaf ...string) string {
	return c.tree(append([]string{"files", filepath.Base(c.Dir), name}, leaf...)...)
}

// text reads a file whole.
func (c *treeT) text(path string) string {
	data, err := os.ReadFile(path)
	c.Ok(err, "read %s", path)
	return string(data)
}

// value is the value of a key in a file of `key value` lines.
func (c *treeT) value(path, key string) string {
	text := c.text(path)
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), key+" "); ok {
			return value
		}
	}
	c.Fatalf("%s has no line %q:\n%s", path, key, text)
	return ""
}

// number is value for numbers.
func (c *treeT) number(path, key string) int64 {
	n, err := strconv.ParseInt(c.value(path, key), 10, 64)
	c.Ok(err, "%s in %s", key, path)
	return n
}

// command writes text to a ctl file by one write(2) and returns what a read of
// the same descriptor then gives, and the error of the write.
func (c *treeT) command(path, text string) (answer string, err error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	c.Ok(err, "open %s", path)
	defer unix.Close(fd)
	n, err := unix.Write(fd, []byte(text))
	if err == nil && n != len(text) {
		c.Fatalf("write of %d bytes to %s: got %d", len(text), path, n)
	}
	return c.answer(fd), err
}

// answer reads a ctl descriptor until its end.
func (c *treeT) answer(fd int) string {
	var answer []byte
	for {
		var b [100]byte // so that a sentence takes more than one read
		n, err := unix.Read(fd, b[:])
		c.Ok(err, "read of the answer")
		if n == 0 {
			return string(answer)
		}
		answer = append(answer, b[:n]...)
	}
}

// obeys runs a command that must succeed and answer ok.
func (c *treeT) obeys(path, text string) {
	answer, err := c.command(path, text)
	c.Ok(err, "%q: %s", text, answer)
	harness.Equal(c, answer, "ok\n", "answer to %q", text)
}

// kernelTellsDirty reports whether D flags are to be expected here at all.
func (c *treeT) kernelTellsDirty() bool {
	return c.value(c.tree("status"), "source_cachestat") == "ok"
}

// pages is the size of so many pages.
func pages(n int) int { return n * os.Getpagesize() }

// pageRun is a line of a pages file.
type pageRun struct {
	first, last int64
	flags       string
}

// parsePages takes the text of a pages file apart, and complains of what no such
// text may have: gaps, overlaps, neighbours that are one run, unknown flags.
func parsePages(text string) (runs []pageRun, err error) {
	next := int64(0)
	for line := range strings.Lines(text) {
		var r pageRun
		if _, err := fmt.Sscanf(line, "%d-%d %s\n", &r.first, &r.last, &r.flags); err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		if want := fmt.Sprintf("%d-%d %s\n", r.first, r.last, r.flags); line != want {
			return nil, fmt.Errorf("line %q should be %q", line, want)
		}
		if r.first != next || r.last < r.first {
			return nil, fmt.Errorf("line %q: page %d should come next", line, next)
		}
		if k := len(runs); k > 0 && runs[k-1].flags == r.flags {
			return nil, fmt.Errorf("line %q goes on with the flags of the line before", line)
		}
		if !flagsInOrder(r.flags) {
			return nil, fmt.Errorf("line %q: flags", line)
		}
		next = r.last + 1
		runs = append(runs, r)
	}
	return runs, nil
}

// flagsInOrder reports whether flags are letters of RDWCUT in this order, or "-".
func flagsInOrder(flags string) bool {
	rest := "RDWCUT"
	for _, f := range flags {
		_, after, found := strings.Cut(rest, string(f))
		if !found {
			return flags == "-"
		}
		rest = after
	}
	return flags != ""
}

// pageFlags reads a file's pages: the flags of each page.
func (c *treeT) pageFlags(name string) []string {
	runs, err := parsePages(c.text(c.of(name, "pages")))
	c.Ok(err, "pages of %s", name)
	var flags []string
	for _, r := range runs {
		for range r.last - r.first + 1 {
			flags = append(flags, r.flags)
		}
	}
	return flags
}
