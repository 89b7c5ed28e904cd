package control

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

func init() {
	harness.AddVerb("scatter", clientScatter)
}

// pageModel is what must be recorded of a file: which pages are unsynced, and
// why.
type pageModel struct {
	size  int64
	cause []string // by page: "" or the cause in unsynced
}

// pages is how many pages the file has.
func (m *pageModel) pages() int { return int((m.size + int64(pages(1)) - 1) / int64(pages(1))) }

// resize sets the size; pages wholly past it are forgotten.
func (m *pageModel) resize(size int64) {
	m.size = size
	n := m.pages()
	if n < len(m.cause) {
		m.cause = m.cause[:n]
	}
	m.cause = append(m.cause, make([]string, n-len(m.cause))...)
}

// mark gives the pages that the bytes touch a cause, unless they have a stronger
// one.
func (m *pageModel) mark(off, length int64, cause string) {
	for page := off / int64(pages(1)); page*int64(pages(1)) < off+length; page++ {
		if cause == "write" || m.cause[page] == "" {
			m.cause[page] = cause
		}
	}
}

// unsynced is the text of the file unsynced.
func (m *pageModel) unsynced() string {
	var b strings.Builder
	for first := 0; first < len(m.cause); {
		end := first + 1
		for end < len(m.cause) && m.cause[end] == m.cause[first] {
			end++
		}
		if m.cause[first] != "" {
			off := int64(pages(first))
			fmt.Fprintf(&b, "%d %d %s\n", off, min(int64(pages(end)), m.size)-off, m.cause[first])
		}
		first = end
	}
	return b.String()
}

// agree compares the tree's word on a file with the model.
func (m *pageModel) agree(c *treeT, name, after string) {
	want := m.unsynced()
	harness.Equal(c, c.text(c.of(name, "unsynced")), want, "unsynced after %s", after)
	flags := c.pageFlags(name)
	harness.Equal(c, len(flags), m.pages(), "number of pages after %s", after)
	var sum int64
	for line := range strings.Lines(want) {
		var off, length int64
		var cause string
		_, err := fmt.Sscan(line, &off, &length, &cause)
		c.Ok(err, "line %q", line)
		sum += length
	}
	harness.Equal(c, c.number(c.of(name, "status"), "unsynced_bytes"), sum, "unsynced_bytes after %s", after)
	harness.Equal(c, c.xattr(c.Path(name), "user.mapfs.unsynced_bytes"), fmt.Sprint(sum), "attribute unsynced_bytes after %s", after)
	for page, f := range flags {
		harness.Equal(c, strings.Contains(f, "U"), m.cause[page] != "", "U flag of page %d (%s) after %s", page, f, after)
		harness.Equal(c, strings.Contains(f, "T"), page == len(flags)-1, "T flag of page %d (%s) after %s", page, f, after)
	}
	picture := c.picture(c.text(c.of(name, "map")))
	harness.Equal(c, len(picture), m.pages(), "pages in map after %s", after)
	for page := range picture {
		// The kernel can make a dirty page clean between the two, but it cannot
		// take an unsynced one off the record.
		if unsynced := strings.IndexByte("WDCU", picture[page]) >= 0; m.cause[page] != "" && !unsynced {
			c.Fatalf("map after %s: page %d is %q, but unsynced", after, page, picture[page])
		}
	}
}

// picture takes the text of a map file apart: a letter for each page.
func (c *treeT) picture(text string) string {
	lines := strings.SplitAfter(text, "\n")
	harness.Equal(c, lines[len(lines)-1], "", "what follows the last line")
	lines = lines[:len(lines)-1]
	harness.Equal(c, lines[len(lines)-1], "R resident  D dirty  W under writeback  C copied  U unsynced  . none\n", "legend")
	var letters strings.Builder
	for i, line := range lines[:len(lines)-1] {
		row := strings.TrimSuffix(line, "\n")
		if len(row) <= 14 || len(row) > 14+64 || len(row) < 14+64 && i < len(lines)-2 {
			c.Fatalf("row %d of map: %q", i, row)
		}
		harness.Equal(c, row[:14], fmt.Sprintf("%12d  ", pages(64*i)), "offset of row %d", i)
		if strings.Trim(row[14:], "WDCUR.") != "" {
			c.Fatalf("row %d of map has unknown letters: %q", i, row)
		}
		letters.WriteString(row[14:])
	}
	return letters.String()
}

// pagesChecks compare what the tree tells of pages with a model and with the
// kernel.
var pagesChecks = []treeCheck{
	{name: "pages_against_a_model", run: func(c *treeT) {
		random := rand.New(rand.NewPCG(1, 2))
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		var m pageModel
		const most = 300 // pages
		for range 120 {
			off := random.Int64N(int64(pages(most)))
			length := 1 + random.Int64N(int64(pages(9)))
			var what string
			switch random.IntN(6) {
			default:
				what = fmt.Sprintf("pwrite of %d bytes at %d", length, off)
				_, err := unix.Pwrite(fd, make([]byte, length), off)
				c.Ok(err, "pwrite")
				m.resize(max(m.size, off+length))
				m.mark(off, length, "write")
			case 3:
				what = fmt.Sprintf("ftruncate to %d", off)
				changed := off != m.size
				c.Ok(unix.Ftruncate(fd, off), "ftruncate")
				m.resize(off)
				if off > 0 && changed {
					m.mark(off-1, 1, "truncate")
				}
			case 4:
				// In whole pages, as msync(2) rounds up.
				first := random.Int64N(most) * int64(pages(1))
				if first >= m.size {
					continue
				}
				what = fmt.Sprintf("msync from %d", first)
				line := fmt.Sprintf("msync offset=%d", first)
				end := m.pages()
				if n := random.IntN(m.pages() + 1); n > 0 && int(first)/pages(1)+n <= end {
					// A length that is no multiple is rounded up.
					line += fmt.Sprintf(" length=%d", pages(n)-random.IntN(100))
					end = int(first)/pages(1) + n
				}
				c.obeys(c.of("f", "ctl"), line)
				clear(m.cause[int(first)/pages(1) : end])
			case 5:
				what = "fsync"
				if random.IntN(3) == 0 {
					c.Ok(unix.Fsync(fd), "fsync")
					clear(m.cause)
				}
			}
			m.agree(c, "f", what)
		}
	}},
	{name: "pages_against_cachestat", mountOnly: true, run: func(c *treeT) {
		if !c.kernelTellsDirty() {
			c.Skip("dirty-pages", "%s", c.value(c.tree("status"), "source_cachestat"))
		}
		// The file is mapped at times, so that both ways are compared.
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.Ok(unix.Ftruncate(fd, int64(pages(200))+100), "ftruncate")
		random := rand.New(rand.NewPCG(3, 4))
		dirtySeen := false
		for round := range 20 {
			for range 5 {
				_, err := unix.Pwrite(fd, make([]byte, random.IntN(pages(3))), random.Int64N(int64(pages(197))))
				c.Ok(err, "pwrite")
			}
			if round%4 == 3 {
				c.obeys(c.of("f", "ctl"), fmt.Sprintf("msync length=%d", pages(1+random.IntN(200))))
			}
			if round%7 == 6 {
				c.text(c.of("f", "memory"))
			}
			// Write-back that others cause can come between the two looks.
			c.soon("pages and cachestat to agree", func() bool {
				want := c.cachestat(c.Below("f"))
				for page, flags := range c.pageFlags("f") {
					if got := strings.Trim(flags, "CUT-"); got != want[page] {
						return false
					}
					dirtySeen = dirtySeen || strings.Contains(flags, "D")
				}
				return true
			})
		}
		harness.Equal(c, dirtySeen, true, "a dirty page was ever seen")
	}},
	{name: "pages_of_odd_sizes", run: func(c *treeT) {
		c.Write(c.Path("f"), "")
		for _, size := range []int{0, 1, pages(1) - 1, pages(1), pages(1) + 1, pages(64) - 1, pages(64), pages(64) + 1, pages(65)} {
			c.Ok(unix.Truncate(c.Path("f"), int64(size)), "truncate")
			want := (size + pages(1) - 1) / pages(1)
			flags := c.pageFlags("f")
			harness.Equal(c, len(flags), want, "pages of %d bytes", size)
			harness.Equal(c, len(c.picture(c.text(c.of("f", "map")))), want, "pages in map of %d bytes", size)
			harness.Equal(c, c.number(c.of("f", "status"), "pages"), int64(want), "pages in status of %d bytes", size)
			harness.Equal(c, c.Lstat(c.of("f", "memory")).Size, int64(pages(want)), "size of memory of %d bytes", size)
			harness.Equal(c, len(c.text(c.of("f", "memory"))), pages(want), "bytes of memory of %d bytes", size)
		}
	}},
	{name: "pages_of_a_clean_file", run: func(c *treeT) {
		c.Write(c.Path("f"), strings.Repeat("x", pages(3)+1))
		c.Ok(c.fsync("f"), "fsync")
		// Clean says the record, so clean the kernel must say.
		c.soon("every page to be resident and clean", func() bool {
			return c.text(c.of("f", "pages")) == "0-2 R\n3-3 RT\n"
		})
		harness.Equal(c, c.text(c.of("f", "unsynced")), "", "unsynced")
		harness.Equal(c, c.value(c.of("f", "status"), "unsynced_bytes"), "0", "unsynced_bytes")
		harness.Equal(c, c.value(c.of("f", "status"), "resident_pages"), "4", "resident_pages")
	}},
	{name: "unsynced_outlives_the_open_file", run: func(c *treeT) {
		c.Write(c.Path("f"), "closed long ago")
		c.Ok(unix.Rename(c.Path("f"), c.Path("g")), "rename")
		harness.Equal(c, c.text(c.of("g", "unsynced")), "0 15 write\n", "unsynced")
		c.obeys(c.tree("ctl"), "sync")
		harness.Equal(c, c.text(c.of("g", "unsynced")), "", "unsynced after sync")
	}},
}

// fsync is fsync(2) of a file of the check.
func (c *treeT) fsync(name string) error {
	fd, err := unix.Open(c.Path(name), unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}

// cachestat asks the kernel for the state of each page of a file, in letters.
func (c *treeT) cachestat(path string) (flags []string) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOATIME, 0)
	c.Ok(err, "open %s", path)
	defer unix.Close(fd)
	for off := int64(0); off < c.Fstat(fd).Size; off += int64(pages(1)) {
		var cs unix.Cachestat_t
		c.Ok(unix.Cachestat(uint(fd), &unix.CachestatRange{Off: uint64(off), Len: uint64(pages(1))}, &cs, 0), "cachestat")
		letters := ""
		for _, l := range []struct {
			count  uint64
			letter string
		}{{cs.Cache, "R"}, {cs.Dirty, "D"}, {cs.Writeback, "W"}} {
			if l.count > 0 {
				letters += l.letter
			}
		}
		flags = append(flags, letters)
	}
	return flags
}

// lookChecks are about looking, which changes nothing.
var lookChecks = []treeCheck{
	{name: "looking_changes_nothing", mountOnly: true, run: func(c *treeT) {
		// Made behind the mount, and never opened through it.
		c.Ok(os.WriteFile(c.Below("f"), []byte(strings.Repeat("x", pages(5)+7)), 0o644), "write below")
		old := []unix.Timespec{{Sec: 1000}, {Sec: 2000}} // relatime would move such an atime
		c.Ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.Below("f"), old, 0), "utimens")
		fd := c.Open(c.Below("f"), unix.O_RDONLY|unix.O_NOATIME, 0)
		c.Ok(unix.Fsync(fd), "fsync")
		c.Ok(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED), "fadvise")
		before, mappings := c.Lstat(c.Below("f")), c.number(c.tree("status"), "mappings")
		resident := c.value(c.of("f", "status"), "resident_pages")

		for range 2 {
			for _, name := range []string{"status", "pages", "map", "unsynced"} {
				c.text(c.of("f", name))
			}
			c.xattr(c.Path("f"), "user.mapfs.dirty_pages")
			c.xattr(c.Path("f"), "user.mapfs.unsynced_bytes")
		}
		harness.Equal(c, c.value(c.of("f", "status"), "resident_pages"), resident, "resident pages, after looking")
		harness.Equal(c, c.text(c.of("f", "backing")), strings.Repeat("x", pages(5)+7), "backing")
		harness.Equal(c, c.value(c.of("f", "status"), "mapped_pages"), "0", "mapped_pages")
		if now := c.number(c.tree("status"), "mappings"); now > mappings { // older ones may go
			c.Fatalf("the mount has %d mappings after looking, %d before", now, mappings)
		}
		name := filepath.Base(c.Dir) + "/f"
		harness.Equal(c, len(c.mapsOf(name)), 0, "lines of maps")
		after := c.Lstat(c.Below("f"))
		harness.Equal(c, after.Atim, before.Atim, "atime")
		harness.Equal(c, after.Mtim, before.Mtim, "mtime")
		harness.Equal(c, after.Ctim, before.Ctim, "ctime")

		// memory alone maps, and says so.
		c.text(c.of("f", "memory"))
		harness.Equal(c, c.value(c.of("f", "status"), "mapped_pages"), "6", "mapped_pages after memory was read")
		harness.Equal(c, len(c.mapsOf(name)), 1, "lines of maps after memory was read")
	}},
	{name: "looking_fills_no_hole", mountOnly: true, run: func(c *treeT) {
		c.Ok(os.WriteFile(c.Below("f"), nil, 0o644), "write below")
		c.Ok(unix.Truncate(c.Below("f"), int64(pages(100))), "truncate")
		blocks := c.Lstat(c.Below("f")).Blocks
		for _, name := range []string{"status", "pages", "map", "unsynced", "backing", "memory"} {
			c.text(c.of("f", name))
		}
		harness.Equal(c, c.Lstat(c.Below("f")).Blocks, blocks, "blocks")
	}},
}

// TestControlHugeFile looks at a sparse file of 100 GiB: memory follows what is in
// it and not its size, and time as well, or the client's time limit would not do.
func TestControlHugeFile(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		const size = 100 << 30
		harness.Run(t, "truncate", "-s", fmt.Sprint(int64(size)), m.Path("huge"))
		last := size/os.Getpagesize() - 1
		look := func() {
			t.Helper()
			before := rss(t, m)
			runs, picture := lookAt(t, m, "huge", "pages"), lookAt(t, m, "huge", "map")
			lookAt(t, m, "huge", "status")
			if grown := rss(t, m) - before; grown > 64<<20 {
				t.Errorf("the daemon grew by %d bytes", grown)
			}
			parsed, err := parsePages(runs)
			if err != nil {
				t.Fatal(err)
			}
			if end := parsed[len(parsed)-1]; end.last != int64(last) || !strings.HasSuffix(end.flags, "T") {
				t.Errorf("the last run is %+v, want one that ends with page %d and has T", end, last)
			}
			if !strings.Contains(picture, "\n*\n") {
				t.Error("no stretch of map was left out")
			}
		}
		look()
		// Some pages here and there, some of them neighbours.
		script := `for i in $(seq 0 199); do
			dd if=/dev/zero of="$1" bs=5000 count=2 seek=$((i * 99991)) conv=notrunc status=none; done`
		harness.Run(t, "sh", "-ec", script, "sh", m.Path("huge"))
		look()
		if got := strings.Count(lookAt(t, m, "huge", "unsynced"), "\n"); got < 190 {
			t.Errorf("%d unsynced ranges, want about 200", got)
		}
	})
}

// TestControlManyRuns looks at a file of very many runs.
func TestControlManyRuns(t *testing.T) {
	m := harness.Mount(t, harness.TmpfsDir(t)) // where so many pages are soon written
	const runs = 12000
	harness.Client(t, "scatter", m.Path("f"), fmt.Sprint(runs))
	parsed, err := parsePages(lookAt(t, m, "f", "pages"))
	if err != nil {
		t.Fatal(err)
	}
	if len(parsed) < runs {
		t.Errorf("%d runs, want at least %d", len(parsed), runs)
	}
	lookAt(t, m, "f", "map")
}

// clientScatter is `client scatter FILE N`.
func clientScatter(args []string) error {
	fd, err := unix.Open(args[0], unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	for i := range harness.Atoi64(args[1]) {
		// A folio of the page cache must not join two of them.
		if _, err := unix.Pwrite(fd, []byte{1}, i*int64(pages(100))); err != nil {
			return err
		}
	}
	return nil
}

// lookAt reads a part of the control tree that may be very long: a failure shows no
// more than the beginning and the error.
func lookAt(t testing.TB, m *harness.Mounted, file, leaf string) string {
	t.Helper()
	out, err := harness.RunErr("cat", m.Path(".mapfs", "files", file, leaf))
	if err != nil {
		text := err.Error()
		t.Fatalf("cat of %s of %s: %.500s [...] %s", leaf, file, text, text[max(0, len(text)-500):])
	}
	return out
}

// rss is how many bytes of memory the daemon has.
func rss(t testing.TB, m *harness.Mounted) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var kb int64
			if _, err := fmt.Sscan(rest, &kb); err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
