package control

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// oddNames are legal names that a line of text cannot simply hold, and some that
// only look like it; with whether they are shown quoted.
var oddNames = map[string]bool{
	"plain": false, "ümläut-名前": false, "a=b,c;'d'$e": false, "*?[": false,
	"with space": true, "new\nline": true, "tab\there": true, `quote"quote`: true, `back\slash`: true,
	"not-utf8-\xff\xfe": true, "\x01control\x7f": true, "\u202eright-to-left": true, " ": true,
	strings.Repeat("n", 255): false, strings.Repeat("é", 127) + "x": false, strings.Repeat("\xff", 255): true,
	strings.Repeat(" ", 255): true,
}

// oddPathChecks are about names: each is shown in the same way everywhere, and leads to
// its file.
var oddPathChecks = []treeCheck{
	{name: "odd_names", run: func(c *treeT) {
		events := c.Open(c.tree("events"), unix.O_RDONLY|unix.O_NONBLOCK, 0)
		c.Mkdir(c.Path("d d"))
		for _, dir := range []string{"", "d d/"} {
			for name, quoted := range oddNames {
				c.drain(events)
				path := filepath.Base(c.Dir) + "/" + dir + name
				shown := path
				if quoted || dir != "" {
					shown = strconv.Quote(path)
				}
				c.Write(c.Path(dir+name), "x")
				harness.Equal(c, c.value(c.of(dir+name, "status"), "path"), shown, "path in status")
				harness.Equal(c, c.text(c.of(dir+name, "backing")), "x", "backing of %q", name)
				harness.Equal(c, c.text(c.of(dir+name, "unsynced")), "0 1 write\n", "unsynced of %q", name)
				c.obeys(c.of(dir+name, "ctl"), "msync")
				harness.Equal(c, c.text(c.of(dir+name, "memory"))[:1], "x", "memory of %q", name)
				harness.Equal(c, len(c.mapsOf(shown)), 1, "lines in maps of %s", shown)
				told := ""
				for _, kind := range []string{"open", "write", "msync", "close"} {
					c.soon("an event "+kind+" of "+shown, func() bool {
						told += c.drain(events)
						return strings.Contains(told, " "+kind+" "+shown+" ")
					})
				}
			}
			// They are all in the mirror's list.
			names := c.list(c.of(dir))
			want := len(oddNames)
			if dir == "" {
				want++ // the directory
			}
			harness.Equal(c, len(names), want, "names in the mirror")
		}
	}},
	{name: "names_after_a_rename", run: func(c *treeT) {
		events := c.Open(c.tree("events"), unix.O_RDONLY|unix.O_NONBLOCK, 0)
		base := filepath.Base(c.Dir)
		c.Write(c.Path("old"), "x")
		fd := c.Open(c.Path("old"), unix.O_RDWR, 0)
		status := c.Open(c.of("old", "status"), unix.O_RDONLY, 0)
		c.Ok(unix.Rename(c.Path("old"), c.Path("new")), "rename")
		c.drain(events)
		_, err := unix.Pwrite(fd, []byte("y"), 0)
		c.Ok(err, "pwrite")
		harness.Equal(c, c.value(c.of("new", "status"), "path"), base+"/new", "path in status")
		c.Absent(c.of("old"))
		if told := c.drain(events); !strings.Contains(told, " write "+base+"/new ") {
			c.Fatalf("the event of a renamed file's write:\n%s", told)
		}
		b := make([]byte, 1000)
		n, err := unix.Read(status, b)
		c.Ok(err, "read of the status opened before")
		if !strings.HasPrefix(string(b[:n]), "path "+base+"/old\n") {
			c.Fatalf("the status opened before: %q", b[:n])
		}
		// Also when a directory above is renamed.
		c.Mkdir(c.Path("d"))
		c.Ok(unix.Rename(c.Path("new"), c.Path("d", "f")), "rename")
		c.Ok(unix.Rename(c.Path("d"), c.Path("e")), "rename of the directory")
		harness.Equal(c, c.value(c.of("e/f", "status"), "path"), base+"/e/f", "path in status")
		c.text(c.of("e/f", "memory"))
		harness.Equal(c, len(c.mapsOf(base+"/e/f")), 1, "lines in maps")
		_, err = unix.Pwrite(fd, []byte("z"), 0)
		c.Ok(err, "pwrite")
		if told := c.drain(events); !strings.Contains(told, " write "+base+"/e/f ") {
			c.Fatalf("the event of a write below a renamed directory:\n%s", told)
		}
	}},
	{name: "names_of_hard_links", run: func(c *treeT) {
		c.Write(c.Path("one"), "x")
		c.Ok(unix.Link(c.Path("one"), c.Path("two")), "link")
		for _, name := range []string{"one", "two"} {
			harness.Equal(c, c.value(c.of(name, "status"), "unsynced_bytes"), "1", "unsynced_bytes of %s", name)
			harness.Equal(c, c.value(c.of(name, "status"), "inode"), strconv.FormatUint(c.Lstat(c.Path("one")).Ino, 10), "inode of %s", name)
		}
		c.Ok(unix.Unlink(c.Path("two")), "unlink")
		harness.Equal(c, c.value(c.of("one", "status"), "path"), filepath.Base(c.Dir)+"/one", "path after the other is gone")
		c.Absent(c.of("two"))
	}},
}

// drain reads from a non-blocking descriptor of events until there are no more.
func (c *treeT) drain(fd int) string {
	text, err := readAvailable(fd)
	c.Ok(err, "drain")
	return text
}

// cacheChecks are about what the kernel has cached of a file.
var cacheChecks = []treeCheck{
	{name: "invalidate_reaches_a_client_that_has_the_file_mapped", mountOnly: true, run: func(c *treeT) {
		c.Write(c.Path("f"), "before"+strings.Repeat("x", pages(2)-6))
		client := harness.StartClient(c, "mmap", c.Path("f"), "shared", strconv.Itoa(pages(2)))
		client.Hear("mapped")
		harness.Equal(c, client.Ask("load 0 6"), `"before"`, "load")
		c.Ok(c.fsync("f"), "fsync")
		// fsync opened the file, which may have emptied the cache.
		harness.Equal(c, client.Ask("load 0 6"), `"before"`, "load after fsync")
		// Behind the mount, so the kernel keeps what it has cached of it.
		f, err := os.OpenFile(c.Below("f"), os.O_WRONLY, 0)
		c.Ok(err, "open below")
		_, err = f.WriteAt([]byte("after!"), 0)
		c.Ok(err, "write below")
		c.Ok(f.Close(), "close below")
		harness.Equal(c, client.Ask("load 0 6"), `"before"`, "load from the kernel's cache")
		harness.Equal(c, c.text(c.of("f", "backing"))[:6], "after!", "backing")
		harness.Equal(c, c.text(c.of("f", "memory"))[:6], "after!", "memory")

		c.obeys(c.of("f", "ctl"), "msync flags=invalidate")
		c.soon("the client's mapping to show the change", func() bool {
			return client.Ask("load 0 6") == `"after!"`
		})
		client.Wait()
	}},
	{name: "invalidate_keeps_a_clients_stores", run: func(c *treeT) {
		c.Write(c.Path("f"), strings.Repeat("x", pages(2)))
		client := harness.StartClient(c, "mmap", c.Path("f"), "shared", strconv.Itoa(pages(2)))
		client.Hear("mapped")
		harness.Equal(c, client.Ask("store 3 stored"), "6", "store")
		c.obeys(c.of("f", "ctl"), "msync flags=sync,invalidate")
		harness.Equal(c, client.Ask("load 3 6"), `"stored"`, "load")
		c.soon("the store to arrive", func() bool {
			return strings.HasPrefix(c.text(c.of("f", "backing")), "xxxstored")
		})
		harness.Equal(c, client.Ask("load 3 6"), `"stored"`, "load after that")
		client.Wait()
	}},
}
