package integration

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
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
var oddPathChecks = []check{
	{name: "odd_names", run: func(c *checkT) {
		events := c.open(c.tree("events"), unix.O_RDONLY|unix.O_NONBLOCK, 0)
		c.mkdir(c.path("d d"))
		for _, dir := range []string{"", "d d/"} {
			for name, quoted := range oddNames {
				c.drain(events)
				path := filepath.Base(c.dir) + "/" + dir + name
				shown := path
				if quoted || dir != "" {
					shown = strconv.Quote(path)
				}
				c.write(c.path(dir+name), "x")
				equal(c, c.value(c.of(dir+name, "status"), "path"), shown, "path in status")
				equal(c, c.text(c.of(dir+name, "backing")), "x", "backing of %q", name)
				equal(c, c.text(c.of(dir+name, "unsynced")), "0 1 write\n", "unsynced of %q", name)
				c.obeys(c.of(dir+name, "ctl"), "msync")
				equal(c, c.text(c.of(dir+name, "memory"))[:1], "x", "memory of %q", name)
				equal(c, len(c.mapsOf(shown)), 1, "lines in maps of %s", shown)
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
			equal(c, len(names), want, "names in the mirror")
		}
	}},
	{name: "names_after_a_rename", run: func(c *checkT) {
		events := c.open(c.tree("events"), unix.O_RDONLY|unix.O_NONBLOCK, 0)
		base := filepath.Base(c.dir)
		c.write(c.path("old"), "x")
		fd := c.open(c.path("old"), unix.O_RDWR, 0)
		status := c.open(c.of("old", "status"), unix.O_RDONLY, 0)
		c.ok(unix.Rename(c.path("old"), c.path("new")), "rename")
		c.drain(events)
		_, err := unix.Pwrite(fd, []byte("y"), 0)
		c.ok(err, "pwrite")
		equal(c, c.value(c.of("new", "status"), "path"), base+"/new", "path in status")
		c.absent(c.of("old"))
		if told := c.drain(events); !strings.Contains(told, " write "+base+"/new ") {
			c.Fatalf("the event of a renamed file's write:\n%s", told)
		}
		b := make([]byte, 1000)
		n, err := unix.Read(status, b)
		c.ok(err, "read of the status opened before")
		if !strings.HasPrefix(string(b[:n]), "path "+base+"/old\n") {
			c.Fatalf("the status opened before: %q", b[:n])
		}
		// Also when a directory above is renamed.
		c.mkdir(c.path("d"))
		c.ok(unix.Rename(c.path("new"), c.path("d", "f")), "rename")
		c.ok(unix.Rename(c.path("d"), c.path("e")), "rename of the directory")
		equal(c, c.value(c.of("e/f", "status"), "path"), base+"/e/f", "path in status")
		c.text(c.of("e/f", "memory"))
		equal(c, len(c.mapsOf(base+"/e/f")), 1, "lines in maps")
		_, err = unix.Pwrite(fd, []byte("z"), 0)
		c.ok(err, "pwrite")
		if told := c.drain(events); !strings.Contains(told, " write "+base+"/e/f ") {
			c.Fatalf("the event of a write below a renamed directory:\n%s", told)
		}
	}},
	{name: "names_of_hard_links", run: func(c *checkT) {
		c.write(c.path("one"), "x")
		c.ok(unix.Link(c.path("one"), c.path("two")), "link")
		for _, name := range []string{"one", "two"} {
			equal(c, c.value(c.of(name, "status"), "unsynced_bytes"), "1", "unsynced_bytes of %s", name)
			equal(c, c.value(c.of(name, "status"), "inode"), strconv.FormatUint(c.lstat(c.path("one")).Ino, 10), "inode of %s", name)
		}
		c.ok(unix.Unlink(c.path("two")), "unlink")
		equal(c, c.value(c.of("one", "status"), "path"), filepath.Base(c.dir)+"/one", "path after the other is gone")
		c.absent(c.of("two"))
	}},
}

// drain reads from a non-blocking descriptor of events until there are no more.
func (c *checkT) drain(fd int) string {
	text, err := readAvailable(fd)
	c.ok(err, "drain")
	return text
}

// cacheChecks are about what the kernel has cached of a file.
var cacheChecks = []check{
	{name: "invalidate_reaches_a_client_that_has_the_file_mapped", mountOnly: true, run: func(c *checkT) {
		c.write(c.path("f"), "before"+strings.Repeat("x", pages(2)-6))
		client := startClient(c, "mmap", c.path("f"), "shared", strconv.Itoa(pages(2)))
		client.hear("mapped")
		equal(c, client.ask("load 0 6"), `"before"`, "load")
		c.ok(c.fsync("f"), "fsync")
		// fsync opened the file, which may have emptied the cache.
		equal(c, client.ask("load 0 6"), `"before"`, "load after fsync")
		// Behind the mount, so the kernel keeps what it has cached of it.
		f, err := os.OpenFile(c.below("f"), os.O_WRONLY, 0)
		c.ok(err, "open below")
		_, err = f.WriteAt([]byte("after!"), 0)
		c.ok(err, "write below")
		c.ok(f.Close(), "close below")
		equal(c, client.ask("load 0 6"), `"before"`, "load from the kernel's cache")
		equal(c, c.text(c.of("f", "backing"))[:6], "after!", "backing")
		equal(c, c.text(c.of("f", "memory"))[:6], "after!", "memory")

		c.obeys(c.of("f", "ctl"), "msync flags=invalidate")
		c.soon("the client's mapping to show the change", func() bool {
			return client.ask("load 0 6") == `"after!"`
		})
		client.wait()
	}},
	{name: "invalidate_keeps_a_clients_stores", run: func(c *checkT) {
		c.write(c.path("f"), strings.Repeat("x", pages(2)))
		client := startClient(c, "mmap", c.path("f"), "shared", strconv.Itoa(pages(2)))
		client.hear("mapped")
		equal(c, client.ask("store 3 stored"), "6", "store")
		c.obeys(c.of("f", "ctl"), "msync flags=sync,invalidate")
		equal(c, client.ask("load 3 6"), `"stored"`, "load")
		c.soon("the store to arrive", func() bool {
			return strings.HasPrefix(c.text(c.of("f", "backing")), "xxxstored")
		})
		equal(c, client.ask("load 3 6"), `"stored"`, "load after that")
		client.wait()
	}},
}
