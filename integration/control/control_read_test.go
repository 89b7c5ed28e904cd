package control

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// readChecks are about reading the files of the tree, in every way that programs
// know.
var readChecks = []treeCheck{
	{name: "read_by_any_program", run: func(c *treeT) {
		c.stripes("f", 40)
		c.readable(c.of("f", "unsynced"))
		c.settled("f")
		for name := range fileNames {
			if name != "ctl" {
				c.readable(c.of("f", name))
			}
		}
		c.readable(c.tree("maps"))
	}},
	{name: "read_by_any_program_large", run: func(c *treeT) {
		// Longer than one request of the kernel, which is 128 KiB at most.
		c.stripes("f", 12000)
		c.readable(c.of("f", "unsynced"))
		c.settled("f")
		if size := len(c.text(c.of("f", "pages"))); size <= 128<<10 {
			c.Fatalf("pages has only %d bytes: the check checks nothing", size)
		}
		c.readable(c.of("f", "pages"))
		c.readable(c.of("f", "map"))
	}},
	{name: "read_of_a_snapshot", run: func(c *treeT) {
		// What was opened stays as it was, however slowly it is read.
		for _, name := range []string{"status", "pages", "map", "unsynced"} {
			c.Write(c.Path("f"), "")
			c.stripes("f", 40)
			if name != "unsynced" {
				c.settled("f")
			}
			fd := c.Open(c.of("f", name), unix.O_RDONLY, 0)
			all := make([]byte, 1<<16)
			n, err := unix.Pread(fd, all, 0)
			c.Ok(err, "pread")
			want := string(all[:n])
			var got []byte
			for i := 0; ; i++ {
				var b [5]byte
				n, err := unix.Read(fd, b[:])
				c.Ok(err, "read")
				if n == 0 {
					break
				}
				got = append(got, b[:n]...)
				if i == 2 {
					c.Write(c.Path("f"), strings.Repeat("other", pages(3)))
				}
			}
			harness.SameBytes(c, string(got), want, name+" while the file changes")
			// And a seek back shows the same again.
			n, err = unix.Pread(fd, all, 0)
			c.Ok(err, "pread")
			harness.SameBytes(c, string(all[:n]), want, name+" read again")
			if now := c.text(c.of("f", name)); now == want {
				c.Fatalf("%s does not change with the file:\n%s", name, now)
			}
		}
	}},
	{name: "read_by_many_at_once", run: func(c *treeT) {
		// Of one descriptor, at any offset: larger than what is looked at at a time,
		// so that the text is made while it is read.
		c.Write(c.Path("f"), "")
		c.Ok(unix.Truncate(c.Path("f"), int64(pages(1<<19))), "truncate")
		fd := c.Open(c.of("f", "map"), unix.O_RDONLY, 0)
		want := c.text(c.of("f", "map"))
		var group sync.WaitGroup
		failures := make(chan string, 100)
		for i := range 8 {
			group.Go(func() {
				for k := range 10 {
					off := (i*7919 + k*104729) % len(want)
					b := make([]byte, 5000)
					n, err := unix.Pread(fd, b, int64(off))
					if err != nil || string(b[:max(n, 0)]) != want[off:min(off+len(b), len(want))] {
						failures <- fmt.Sprintf("pread at %d: %d bytes, %v; they are not what one reader gets", off, n, err)
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
	}},
	{name: "read_past_the_end", run: func(c *treeT) {
		c.Write(c.Path("f"), "hello")
		for name := range fileNames {
			if name == "ctl" {
				continue
			}
			fd := c.Open(c.of("f", name), unix.O_RDONLY, 0)
			for _, off := range []int64{1 << 20, 1 << 40, 1<<63 - 4096} {
				n, err := unix.Pread(fd, make([]byte, 100), off)
				c.Ok(err, "pread of %s at %d", name, off)
				harness.Equal(c, n, 0, "bytes of %s at %d", name, off)
			}
		}
	}},
	{name: "memory_shows_whole_pages", run: func(c *treeT) {
		c.Write(c.Path("f"), "hello")
		want := "hello" + strings.Repeat("\x00", pages(1)-5)
		harness.SameBytes(c, c.text(c.of("f", "memory")), want, "memory of 5 bytes")
		c.Write(c.Path("empty"), "")
		harness.Equal(c, c.text(c.of("empty", "memory")), "", "memory of an empty file")

		c.Write(c.Path("g"), strings.Repeat("a", pages(1))+strings.Repeat("b", pages(1))+"tail")
		harness.SameBytes(c, harness.Run(c, "dd", "if="+c.of("g", "memory"), fmt.Sprint("bs=", pages(1)), "skip=1", "count=1", "status=none"),
			strings.Repeat("b", pages(1)), "the second page")
		harness.SameBytes(c, harness.Run(c, "dd", "if="+c.of("g", "memory"), fmt.Sprint("bs=", pages(1)), "skip=2", "status=none"),
			"tail"+strings.Repeat("\x00", pages(1)-4), "the last page")
		harness.Equal(c, c.text(c.of("g", "backing")), c.text(c.Path("g")), "backing")
		_, err := unix.Open(c.of("f", "memory"), unix.O_WRONLY|unix.O_TRUNC, 0)
		if err == nil {
			c.Holds(c.Path("f"), "hello") // root may open it; nothing may come of that
		}
	}},
	{name: "memory_past_the_end_stays_zero", run: func(c *treeT) {
		// What a client stores past the end in its own mapping never arrives.
		c.Write(c.Path("f"), "hello")
		client := harness.StartClient(c, "mmap", c.Path("f"), "shared", strconv.Itoa(pages(1)))
		client.Hear("mapped")
		harness.Equal(c, client.Ask("store 5 secret"), "6", "store past the end")
		harness.Equal(c, client.Ask("msync sync"), "ok", "msync")
		harness.SameBytes(c, c.text(c.of("f", "memory")), "hello"+strings.Repeat("\x00", pages(1)-5), "memory after msync")
		harness.Equal(c, c.text(c.of("f", "backing")), "hello", "backing")
		client.Wait()
		harness.SameBytes(c, c.text(c.of("f", "memory")), "hello"+strings.Repeat("\x00", pages(1)-5), "memory at last")
	}},
	{name: "maps_lists_the_mapping", run: func(c *treeT) {
		c.Write(c.Path("f"), "mapped")
		st := c.Lstat(c.Below("f"))
		name := filepath.Base(c.Dir) + "/f"
		harness.Equal(c, len(c.mapsOf(name)), 0, "lines of a file that was only written")
		harness.Equal(c, c.text(c.of("f", "memory"))[:6], "mapped", "memory")
		lines := c.mapsOf(name)
		harness.Equal(c, len(lines), 1, "lines after memory was read")
		want := fmt.Sprintf(" rw-s 00000000 %02x:%02x %d %s\n", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino, name)
		if !strings.HasSuffix(lines[0], want) {
			c.Fatalf("line %q should end with %q", lines[0], want)
		}
		harness.Equal(c, c.value(c.of("f", "status"), "mapped_pages"), "1", "mapped_pages")
		// It is what the kernel says of the daemon.
		addresses, _, _ := strings.Cut(lines[0], " ")
		proc := c.text("/proc/" + c.value(c.tree("status"), "pid") + "/maps")
		if !strings.Contains("\n"+proc, "\n"+addresses+" rw-s ") {
			c.Fatalf("%s is not in the daemon's /proc/PID/maps:\n%s", addresses, proc)
		}
	}},
	{name: "metrics_are_counted", run: func(c *treeT) {
		metric := func(name string) int64 {
			for line := range strings.Lines(c.text(c.tree("metrics"))) {
				if rest, ok := strings.CutPrefix(line, "mapfs_"+name+"{"); ok {
					_, value, _ := strings.Cut(strings.TrimSpace(rest), "} ")
					f, err := strconv.ParseFloat(value, 64)
					c.Ok(err, "metric %s", name)
					return int64(f)
				}
			}
			c.Fatalf("no metric %s", name)
			return 0
		}
		writes, msyncs := metric("writes_total"), metric("msyncs_total")
		c.Write(c.Path("f"), "one write")
		harness.Equal(c, metric("writes_total"), writes+1, "writes after one more")
		c.obeys(c.of("f", "ctl"), "msync")
		harness.Equal(c, metric("msyncs_total"), msyncs+1, "msyncs after one more")
		for metricName, key := range map[string]string{"writes_total": "writes", "msyncs_total": "msyncs", "files": "files",
			"mappings": "mappings", "mapped_bytes": "mapped_bytes", "unsynced_bytes": "unsynced_bytes"} {
			c.soon("the metric "+metricName+" to be what status says", func() bool {
				return metric(metricName) == c.number(c.tree("status"), key)
			})
		}
	}},
}

// stripes writes every other page of the first n of a file, so that its pages
// are n runs.
func (c *treeT) stripes(name string, n int) {
	fd := c.Open(c.Path(name), unix.O_CREAT|unix.O_WRONLY, 0o644)
	for page := 0; page < n; page += 2 {
		_, err := unix.Pwrite(fd, []byte("x"), int64(pages(page)))
		c.Ok(err, "pwrite")
	}
}

// settled writes a file back, so that the kernel has no more reason to change the
// state of its pages while the check looks.
func (c *treeT) settled(name string) {
	c.Ok(c.fsync(name), "fsync")
	c.soon("write-back to end", func() bool { return !strings.ContainsAny(c.text(c.of(name, "pages")), "DWU") })
}

// readable reads a file in several ways and compares. The kernel may give up clean
// pages at any time, which is to be seen: then all is read again.
func (c *treeT) readable(path string) {
	name := filepath.Base(path)
	// One round of a large file takes seconds on a busy machine with a slow daemon.
	c.within(6*harness.SettleLimit, name+" to stay as it is", func() bool {
		want := c.text(path)
		block := 13 // bytes; of a long text the reads would be tens of thousands
		if len(want) > 64<<10 {
			block = 509
		}
		got := map[string]string{
			"cat":                harness.Run(c, "cat", path),
			"dd bs=4097":         harness.Run(c, "dd", "if="+path, "bs=4097", "status=none"),
			"dd bs=N skip=3":     want[:min(3*block, len(want))] + harness.Run(c, "dd", "if="+path, fmt.Sprint("bs=", block), "skip=3", "status=none"),
			"tail -c 10":         want[:max(0, len(want)-10)] + harness.Run(c, "tail", "-c", "10", path),
			"tail -c +11":        want[:min(10, len(want))] + harness.Run(c, "tail", "-c", "+11", path),
			"read(2) of 1 MiB":   c.inPieces(path, 1<<20),
			"read(2) of a third": c.inPieces(path, len(want)/3+1),
		}
		if len(want) < 10000 {
			got["read(2) of 1 byte"], got["read(2) of 7 bytes"] = c.inPieces(path, 1), c.inPieces(path, 7)
		}
		if strings.HasSuffix(want, "\n") {
			first, _, _ := strings.Cut(want, "\n")
			got["head -n 1"] = harness.Run(c, "head", "-n", "1", path) + want[len(first)+1:]
			lines := strings.SplitAfter(want, "\n")
			before := strings.Join(lines[:max(0, len(lines)-3)], "")
			got["tail -n 2"] = before + harness.Run(c, "tail", "-n", "2", path)
			got["grep"] = harness.Run(c, "grep", "", path)
		}
		if c.text(path) != want {
			return false
		}
		for way, text := range got {
			harness.SameBytes(c, text, want, name+" by "+way)
		}
		return true
	})
}

// inPieces reads a file to its end by read(2)s of the given size.
func (c *treeT) inPieces(path string, size int) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	c.Ok(err, "open %s", path)
	defer unix.Close(fd)
	var text []byte
	for b := make([]byte, size); ; {
		n, err := unix.Read(fd, b)
		c.Ok(err, "read of %s", path)
		if n == 0 {
			return string(text)
		}
		text = append(text, b[:n]...)
	}
}

// mapsOf is the lines of maps about a path below the mount's root.
func (c *treeT) mapsOf(name string) (lines []string) {
	for line := range strings.Lines(c.text(c.tree("maps"))) {
		if strings.HasSuffix(line, " "+name+"\n") {
			lines = append(lines, line)
		}
	}
	return lines
}

// soon waits a while until ok says so.
func (c *treeT) soon(what string, ok func() bool) { c.within(harness.SettleLimit, what, ok) }

// within is soon with another limit.
func (c *treeT) within(limit time.Duration, what string, ok func() bool) {
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.Fatalf("waited %v in vain for %s", limit, what)
		}
	}
}
