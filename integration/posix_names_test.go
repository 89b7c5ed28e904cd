package integration

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// nameChecks are about looking names up and making them.
var nameChecks = []check{
	{name: "lookup_absent", run: func(c *checkT) {
		c.absent(c.path("nothing"))
		_, err := unix.Open(c.path("nothing"), unix.O_RDONLY, 0)
		c.errno(err, unix.ENOENT, "open")
		c.errno(unix.Unlink(c.path("nothing")), unix.ENOENT, "unlink")
		c.errno(unix.Rmdir(c.path("nothing")), unix.ENOENT, "rmdir")
		c.errno(unix.Chmod(c.path("nothing"), 0o600), unix.ENOENT, "chmod")
		c.errno(unix.Mkdir(c.path("nothing", "sub"), 0o700), unix.ENOENT, "mkdir below")
		c.errno(unix.Unlink(""), unix.ENOENT, "the empty name")
	}},
	{name: "absent_then_made", run: func(c *checkT) {
		// A negative entry may be cached: it must not outlive the creation.
		for i := range 50 {
			name := c.path(fmt.Sprint("f", i))
			c.absent(name)
			c.write(name, "x")
			c.holds(name, "x")
			c.ok(unix.Unlink(name), "unlink")
			c.absent(name)
		}
	}},
	{name: "name_too_long", run: func(c *checkT) {
		long := c.path(strings.Repeat("n", 256))
		c.errno(unix.Access(long, unix.F_OK), unix.ENAMETOOLONG, "access")
		_, err := unix.Open(long, unix.O_CREAT|unix.O_WRONLY, 0o644)
		c.errno(err, unix.ENAMETOOLONG, "create")
		c.errno(unix.Mkdir(long, 0o755), unix.ENAMETOOLONG, "mkdir")
		c.errno(unix.Symlink("x", long), unix.ENAMETOOLONG, "symlink")
		c.write(c.path("f"), "")
		c.errno(unix.Rename(c.path("f"), long), unix.ENAMETOOLONG, "rename")
		c.errno(unix.Link(c.path("f"), long), unix.ENAMETOOLONG, "link")
	}},
	{name: "names_of_any_bytes", run: func(c *checkT) {
		names := []string{
			strings.Repeat("n", 255), strings.Repeat("ä", 127), "\xff\xfe\x80", "new\nline", "tab\t",
			" ", "\\", "*", "-rf", "...", ".hidden", "%s%n", "\x01\x7f", "a\u0301", "\u00e1", "A", "a",
		}
		for _, name := range names {
			c.write(c.path(name), name)
		}
		for _, name := range names {
			c.holds(c.path(name), name)
		}
		entries, err := os.ReadDir(c.dir)
		c.ok(err, "readdir")
		equal(c, len(entries), len(names), "entries")
		for _, name := range names {
			c.ok(unix.Unlink(c.path(name)), "unlink %q", name)
		}
	}},
	{name: "dot_and_dotdot", run: func(c *checkT) {
		c.mkdir(c.path("d"))
		equal(c, c.lstat(c.dir+"/d/.").Ino, c.lstat(c.path("d")).Ino, "inode of .")
		equal(c, c.lstat(c.dir+"/d/..").Ino, c.lstat(c.dir).Ino, "inode of ..")
		c.errno(unix.Rmdir(c.dir+"/d/."), unix.EINVAL, "rmdir .")
		c.errno(unix.Rmdir(c.dir+"/d/.."), unix.ENOTEMPTY, "rmdir ..")
		c.errno(unix.Mkdir(c.dir+"/d/.", 0o755), unix.EEXIST, "mkdir .")
	}},
	{name: "not_a_directory", run: func(c *checkT) {
		c.write(c.path("f"), "")
		below := c.dir + "/f/x"
		c.errno(unix.Access(below, unix.F_OK), unix.ENOTDIR, "access")
		_, err := unix.Open(below, unix.O_CREAT|unix.O_WRONLY, 0o644)
		c.errno(err, unix.ENOTDIR, "create")
		_, err = unix.Open(c.path("f"), unix.O_DIRECTORY, 0)
		c.errno(err, unix.ENOTDIR, "open as a directory")
		c.errno(unix.Rmdir(c.path("f")), unix.ENOTDIR, "rmdir")
		c.errno(unix.Access(c.dir+"/f/", unix.F_OK), unix.ENOTDIR, "slash behind a file")
	}},
	{name: "is_a_directory", run: func(c *checkT) {
		c.mkdir(c.path("d"))
		for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_CREAT | unix.O_RDONLY} {
			_, err := unix.Open(c.path("d"), flags, 0o644)
			c.errno(err, unix.EISDIR, "open with %#x", flags)
		}
		c.errno(unix.Unlink(c.path("d")), unix.EISDIR, "unlink")
		c.errno(unix.Truncate(c.path("d"), 0), unix.EISDIR, "truncate")
		fd := c.open(c.path("d"), unix.O_RDONLY, 0)
		_, err := unix.Read(fd, make([]byte, 1))
		c.errno(err, unix.EISDIR, "read")
	}},
	{name: "create_exclusive", run: func(c *checkT) {
		c.open(c.path("f"), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
		_, err := unix.Open(c.path("f"), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
		c.errno(err, unix.EEXIST, "create again")
		c.ok(unix.Symlink("elsewhere", c.path("s")), "symlink")
		_, err = unix.Open(c.path("s"), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
		c.errno(err, unix.EEXIST, "create on a dangling symlink")
		c.absent(c.path("elsewhere"))
		c.errno(unix.Mkdir(c.path("f"), 0o755), unix.EEXIST, "mkdir")
		c.errno(unix.Symlink("x", c.path("f")), unix.EEXIST, "symlink")
		c.errno(unix.Mkfifo(c.path("f"), 0o644), unix.EEXIST, "mkfifo")
	}},
	{name: "create_truncate", run: func(c *checkT) {
		c.write(c.path("f"), "long content")
		before := c.lstat(c.path("f"))
		fd := c.open(c.path("f"), unix.O_CREAT|unix.O_TRUNC|unix.O_RDWR, 0o600)
		equal(c, c.fstat(fd).Size, int64(0), "size")
		equal(c, c.lstat(c.path("f")).Ino, before.Ino, "inode")
		equal(c, c.lstat(c.path("f")).Mode, before.Mode, "mode of a file that was there")
		c.open(c.path("f"), unix.O_TRUNC|unix.O_RDWR, 0)
	}},
	{name: "create_through_dangling_symlink", run: func(c *checkT) {
		c.ok(unix.Symlink("target", c.path("s")), "symlink")
		c.write(c.path("s"), "by the link")
		c.holds(c.path("target"), "by the link")
	}},
	{name: "deep_tree", run: func(c *checkT) {
		// Deeper than PATH_MAX, reachable step by step only.
		name := strings.Repeat("d", 200)
		const depth = 30
		c.ok(os.Chdir(c.dir), "chdir")
		for i := range depth {
			c.ok(unix.Mkdir(name, 0o755), "mkdir at depth %d", i)
			c.ok(unix.Chdir(name), "chdir at depth %d", i)
		}
		c.write("deep", "down")
		c.holds("deep", "down")
		fd := c.open("deep", unix.O_RDWR, 0)
		c.ok(unix.Ftruncate(fd, 2), "ftruncate")
		c.ok(unix.Rename("deep", "deeper"), "rename")
		c.ok(unix.Link("deeper", "link"), "link")
		c.ok(unix.Symlink("deeper", "sym"), "symlink")
		c.holds("sym", "do")
		c.ok(unix.Chmod("link", 0o600), "chmod")
		equal(c, c.fstat(fd).Mode&0o777, uint32(0o600), "mode by the handle")
		_, err := os.ReadDir(".")
		c.ok(err, "readdir")
		c.ok(os.Chdir("/"), "chdir back")
	}},
	{name: "inode_numbers", run: func(c *checkT) {
		c.write(c.path("f"), "")
		c.mkdir(c.path("d"))
		c.ok(unix.Symlink("f", c.path("s")), "symlink")
		c.ok(unix.Mkfifo(c.path("p"), 0o644), "mkfifo")
		seen := map[uint64]string{}
		for _, name := range []string{"f", "d", "s", "p"} {
			ino := c.lstat(c.path(name)).Ino
			equal(c, ino, c.lstat(c.native()+"/"+name).Ino, "inode of %s", name)
			equal(c, seen[ino], "", "another name of inode %d", ino)
			seen[ino] = name
		}
		for _, entry := range c.entries(c.dir) {
			if entry.name != "." && entry.name != ".." {
				equal(c, entry.ino, c.lstat(c.path(entry.name)).Ino, "d_ino of %s", entry.name)
			}
		}
	}},
	{name: "statfs", run: func(c *checkT) {
		var got, want unix.Statfs_t
		c.ok(unix.Statfs(c.dir, &got), "statfs")
		c.ok(unix.Statfs(c.native(), &want), "statfs of the native directory")
		equal(c, got.Blocks, want.Blocks, "blocks")
		equal(c, got.Bsize, want.Bsize, "block size")
		equal(c, got.Frsize, want.Frsize, "fragment size")
		equal(c, got.Files, want.Files, "inodes")
		equal(c, got.Namelen, want.Namelen, "longest name")
		fd := c.open(c.dir, unix.O_RDONLY, 0)
		c.ok(unix.Fstatfs(fd, &got), "fstatfs")
		equal(c, got.Blocks, want.Blocks, "blocks by fstatfs")
	}},
}
