package posix

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// dirent is one entry as getdents64(2) gives it.
type dirent struct {
	name string
	ino  uint64
	next int64 // the offset behind the entry: what telldir returns
	kind byte
}

// getdents reads one buffer of entries; none at the end.
func getdents(fd, size int) ([]dirent, error) {
	buf := make([]byte, size)
	n, err := unix.Getdents(fd, buf)
	if err != nil {
		return nil, err
	}
	var entries []dirent
	for buf = buf[:n]; len(buf) > 0; {
		reclen := int(binary.NativeEndian.Uint16(buf[16:]))
		entries = append(entries, dirent{
			ino:  binary.NativeEndian.Uint64(buf),
			next: int64(binary.NativeEndian.Uint64(buf[8:])),
			kind: buf[18],
			name: unix.ByteSliceToString(buf[19:reclen]),
		})
		buf = buf[reclen:]
	}
	return entries, nil
}

// allEntries reads a directory from where its descriptor stands.
func (c *checkT) allEntries(fd, size int) []dirent {
	var all []dirent
	for {
		entries, err := getdents(fd, size)
		c.Ok(err, "getdents")
		if len(entries) == 0 {
			return all
		}
		all = append(all, entries...)
	}
}

func (c *checkT) entries(dir string) []dirent {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	c.Ok(err, "open the directory")
	defer unix.Close(fd)
	return c.allEntries(fd, 32<<10)
}

func names(entries []dirent) []string {
	var names []string
	for _, e := range entries {
		names = append(names, e.name)
	}
	return names
}

// readNames lists a directory without looking at any entry: os.ReadDir may.
func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// fill makes n empty files f0, f1, ...
func (c *checkT) fill(n int) {
	for i := range n {
		fd, err := unix.Open(c.Path(fmt.Sprint("f", i)), unix.O_CREAT|unix.O_WRONLY, 0o644)
		c.Ok(err, "create file %d", i)
		unix.Close(fd)
	}
}

// onlyOnce fails the check unless each of f0 ... f(n-1) is there exactly once.
func (c *checkT) onlyOnce(entries []dirent, n int) {
	count := map[string]int{}
	for _, e := range entries {
		count[e.name]++
	}
	for i := range n {
		harness.Equal(c, count[fmt.Sprint("f", i)], 1, "times that f%d is listed", i)
	}
}

// dirChecks are about listing.
var dirChecks = []check{
	{name: "readdir_types", run: func(c *checkT) {
		c.MakeOneOfEach(c.Dir)
		want := map[string]byte{".": unix.DT_DIR, "..": unix.DT_DIR, "file": unix.DT_REG, "dir": unix.DT_DIR,
			"symlink": unix.DT_LNK, "fifo": unix.DT_FIFO, "socket": unix.DT_SOCK, "regular": unix.DT_REG}
		entries := c.entries(c.Dir)
		harness.Equal(c, len(entries), len(want), "entries")
		for _, e := range entries {
			harness.Equal(c, e.kind, want[e.name], "type of %s", e.name)
		}
	}},
	{name: "readdir_empty", run: func(c *checkT) {
		got := names(c.entries(c.Dir))
		slices.Sort(got)
		harness.Equal(c, fmt.Sprint(got), "[. ..]", "entries")
	}},
	{name: "readdir_buffer_sizes", run: func(c *checkT) {
		const n = 300
		c.fill(n)
		fd := c.Open(c.Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		for _, size := range []int{48, 100, 1000, 4096, 1 << 20} {
			_, err := unix.Seek(fd, 0, unix.SEEK_SET)
			c.Ok(err, "rewind")
			entries := c.allEntries(fd, size)
			harness.Equal(c, len(entries), n+2, "entries by buffers of %d bytes", size)
			c.onlyOnce(entries, n)
		}
		_, err := unix.Seek(fd, 0, unix.SEEK_SET)
		c.Ok(err, "rewind")
		_, err = getdents(fd, 16)
		c.Errno(err, unix.EINVAL, "getdents to a buffer that holds no entry")
	}},
	{name: "seekdir_telldir", run: func(c *checkT) {
		const n = 500
		c.fill(n)
		fd := c.Open(c.Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		entries := c.allEntries(fd, 4096)
		harness.Equal(c, len(entries), n+2, "entries")
		for i := len(entries) - 2; i >= 0; i -= 37 {
			_, err := unix.Seek(fd, entries[i].next, unix.SEEK_SET)
			c.Ok(err, "seekdir")
			rest := c.allEntries(fd, 4096)
			harness.Equal(c, fmt.Sprint(names(rest)), fmt.Sprint(names(entries[i+1:])), "entries behind %s", entries[i].name)
		}
	}},
	{name: "rewinddir_sees_changes", run: func(c *checkT) {
		fd := c.Open(c.Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		harness.Equal(c, len(c.allEntries(fd, 4096)), 2, "entries at first")
		c.fill(3)
		_, err := unix.Seek(fd, 0, unix.SEEK_SET)
		c.Ok(err, "rewinddir")
		c.onlyOnce(c.allEntries(fd, 4096), 3)
		c.Ok(unix.Unlink(c.Path("f1")), "unlink")
		_, err = unix.Seek(fd, 0, unix.SEEK_SET)
		c.Ok(err, "rewinddir")
		if got := names(c.allEntries(fd, 4096)); slices.Contains(got, "f1") {
			c.Fatalf("a removed name is listed after rewinddir: %q", got)
		}
	}},
	{name: "readdir_is_fresh_at_each_open", run: func(c *checkT) {
		for i := range 20 {
			c.Write(c.Path(fmt.Sprint("f", i)), "")
			c.onlyOnce(c.entries(c.Dir), i+1)
		}
	}},
	{name: "readdir_during_changes", run: func(c *checkT) {
		// POSIX leaves open only whether names that come and go are listed.
		const n = 5000
		c.fill(n)
		var stop atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				name := c.Path(fmt.Sprint("other", i%100))
				if fd, err := unix.Open(name, unix.O_CREAT|unix.O_WRONLY, 0o644); err == nil {
					unix.Close(fd)
				}
				_ = unix.Unlink(c.Path(fmt.Sprint("other", (i+50)%100)))
			}
		})
		defer wg.Wait()
		defer stop.Store(true)
		for range 3 {
			fd, err := unix.Open(c.Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			c.Ok(err, "open")
			entries := c.allEntries(fd, 2000)
			unix.Close(fd)
			c.onlyOnce(entries, n)
		}
	}},
	{name: "readdir_while_removing_what_was_read", run: func(c *checkT) {
		// What rm -r does.
		const n = 3000
		c.fill(n)
		fd := c.Open(c.Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		removed := 0
		for {
			entries, err := getdents(fd, 1000)
			c.Ok(err, "getdents")
			if len(entries) == 0 {
				break
			}
			for _, e := range entries {
				if e.name != "." && e.name != ".." {
					c.Ok(unix.Unlink(c.Path(e.name)), "unlink of a listed name")
					removed++
				}
			}
		}
		harness.Equal(c, removed, n, "removed")
		harness.Equal(c, len(c.entries(c.Dir)), 2, "entries left")
	}},
	{name: "directory_links", run: func(c *checkT) {
		for i := range 3 {
			c.Mkdir(c.Path(fmt.Sprint("d", i)))
			harness.Equal(c, uint64(c.Lstat(c.Dir).Nlink), uint64(c.Lstat(c.Native()).Nlink), "links")
		}
		c.Ok(unix.Rmdir(c.Path("d0")), "rmdir")
		harness.Equal(c, uint64(c.Lstat(c.Dir).Nlink), uint64(c.Lstat(c.Native()).Nlink), "links after rmdir")
	}},
	{name: "open_directory_handle", run: func(c *checkT) {
		c.Mkdir(c.Path("d"))
		fd := c.Open(c.Path("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		path := c.Open(c.Path("d"), unix.O_PATH, 0)
		for i, dirfd := range []int{fd, path} {
			name := fmt.Sprint("f", i)
			f, err := unix.Openat(dirfd, name, unix.O_CREAT|unix.O_RDWR, 0o644)
			c.Ok(err, "openat")
			unix.Close(f)
			c.Ok(unix.Renameat(dirfd, name, dirfd, name+"x"), "renameat")
			c.Ok(unix.Linkat(dirfd, name+"x", dirfd, name, 0), "linkat")
			c.Ok(unix.Fchmodat(dirfd, name, 0o600, 0), "fchmodat")
			var st unix.Stat_t
			c.Ok(unix.Fstatat(dirfd, name+"x", &st, unix.AT_SYMLINK_NOFOLLOW), "fstatat")
			harness.Equal(c, st.Mode&0o777, 0o600, "mode")
		}
	}},
}
