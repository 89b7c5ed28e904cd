package posix

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// nameChecks are about looking names up and making them.
var nameChecks = []check{
	{name: "lookup_absent", run: func(c *checkT) {
		c.Absent(c.Path("nothing"))
		_, err := unix.Open(c.Path("nothing"), unix.O_RDONLY, 0)
		c.Errno(err, unix.ENOENT, "open")
		c.Errno(unix.Unlink(c.Path("nothing")), unix.ENOENT, "unlink")
		c.Errno(unix.Rmdir(c.Path("nothing")), unix.ENOENT, "rmdir")
		c.Errno(unix.Chmod(c.Path("nothing"), 0o600), unix.ENOENT, "chmod")
		c.Errno(unix.Mkdir(c.Path("nothing", "sub"), 0o700), unix.ENOENT, "mkdir below")
		c.Errno(unix.Unlink(""), unix.ENOENT, "the empty name")
	}},
	{name: "absent_then_made", run: func(c *checkT) {
		// A negative entry may be cached: it must not outlive the creation.
		for i := range 50 {
			name := c.Path(fmt.Sprint("f", i))
			c.Absent(name)
			c.Write(name, "x")
			c.Holds(name, "x")
			c.Ok(unix.Unlink(name), "unlink")
			c.Absent(name)
		}
	}},
	{name: "name_too_long", run: func(c *checkT) {
		long := c.Path(strings.Repeat("n", 256))
		c.Errno(unix.Access(long, unix.F_OK), unix.ENAMETOOLONG, "access")
		_, err := unix.Open(long, unix.O_CREAT|unix.O_WRONLY, 0o644)
		c.Errno(err, unix.ENAMETOOLONG, "create")
		c.Errno(unix.Mkdir(long, 0o755), unix.ENAMETOOLONG, "mkdir")
		c.Errno(unix.Symlink("x", long), unix.ENAMETOOLONG, "symlink")
		c.Write(c.Path("f"), "")
		c.Errno(unix.Rename(c.Path("f"), long), unix.ENAMETOOLONG, "rename")
		c.Errno(unix.Link(c.Path("f"), long), unix.ENAMETOOLONG, "link")
	}},
	{name: "names_of_any_bytes", run: func(c *checkT) {
		names := []string{
			strings.Repeat("n", 255), strings.Repeat("ä", 127), "\xff\xfe\x80", "new\nline", "tab\t",
			" ", "\\", "*", "-rf", "...", ".hidden", "%s%n", "\x01\x7f", "a\u0301", "\u00e1", "A", "a",
		}
		for _, name := range names {
			c.Write(c.Path(name), name)
		}
		for _, name := range names {
			c.Holds(c.Path(name), name)
		}
		entries, err := os.ReadDir(c.Dir)
		c.Ok(err, "readdir")
		harness.Equal(c, len(entries), len(names), "entries")
		for _, name := range names {
			c.Ok(unix.Unlink(c.Path(name)), "unlink %q", name)
		}
	}},
	{name: "dot_and_dotdot", run: func(c *checkT) {
		c.Mkdir(c.Path("d"))
		harness.Equal(c, c.Lstat(c.Dir+"/d/.").Ino, c.Lstat(c.Path("d")).Ino, "inode of .")
		harness.Equal(c, c.Lstat(c.Dir+"/d/..").Ino, c.Lstat(c.Dir).Ino, "inode of ..")
		c.Errno(unix.Rmdir(c.Dir+"/d/."), unix.EINVAL, "rmdir .")
		c.Errno(unix.Rmdir(c.Dir+"/d/.."), unix.ENOTEMPTY, "rmdir ..")
		c.Errno(unix.Mkdir(c.Dir+"/d/.", 0o755), unix.EEXIST, "mkdir .")
	}},
	{name: "not_a_directory", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		below := c.Dir + "/f/x"
		c.Errno(unix.Access(below, unix.F_OK), unix.ENOTDIR, "access")
		_, err := unix.Open(below, unix.O_CREAT|unix.O_WRONLY, 0o644)
		c.Errno(err, unix.ENOTDIR, "create")
		_, err = unix.Open(c.Path("f"), unix.O_DIRECTORY, 0)
		c.Errno(err, unix.ENOTDIR, "open as a directory")
		c.Errno(unix.Rmdir(c.Path("f")), unix.ENOTDIR, "rmdir")
		c.Errno(unix.Access(c.Dir+"/f/", unix.F_OK), unix.ENOTDIR, "slash behind a file")
	}},
	{name: "is_a_directory", run: func(c *checkT) {
		c.Mkdir(c.Path("d"))
		for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_CREAT | unix.O_RDONLY} {
			_, err := unix.Open(c.Path("d"), flags, 0o644)
			c.Errno(err, unix.EISDIR, "open with %#x", flags)
		}
		c.Errno(unix.Unlink(c.Path("d")), unix.EISDIR, "unlink")
		c.Errno(unix.Truncate(c.Path("d"), 0), unix.EISDIR, "truncate")
		fd := c.Open(c.Path("d"), unix.O_RDONLY, 0)
		_, err := unix.Read(fd, make([]byte, 1))
		c.Errno(err, unix.EISDIR, "read")
	}},
	{name: "create_exclusive", run: func(c *checkT) {
		c.Open(c.Path("f"), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
		_, err := unix.Open(c.Path("f"), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
		c.Errno(err, unix.EEXIST, "create again")
		c.Ok(unix.Symlink("elsewhere", c.Path("s")), "symlink")
		_, err = unix.Open(c.Path("s"), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
		c.Errno(err, unix.EEXIST, "create on a dangling symlink")
		c.Absent(c.Path("elsewhere"))
		c.Errno(unix.Mkdir(c.Path("f"), 0o755), unix.EEXIST, "mkdir")
		c.Errno(unix.Symlink("x", c.Path("f")), unix.EEXIST, "symlink")
		c.Errno(unix.Mkfifo(c.Path("f"), 0o644), unix.EEXIST, "mkfifo")
	}},
	{name: "create_truncate", run: func(c *checkT) {
		c.Write(c.Path("f"), "long content")
		before := c.Lstat(c.Path("f"))
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_TRUNC|unix.O_RDWR, 0o600)
		harness.Equal(c, c.Fstat(fd).Size, int64(0), "size")
		harness.Equal(c, c.Lstat(c.Path("f")).Ino, before.Ino, "inode")
		harness.Equal(c, c.Lstat(c.Path("f")).Mode, before.Mode, "mode of a file that was there")
		c.Open(c.Path("f"), unix.O_TRUNC|unix.O_RDWR, 0)
	}},
	{name: "create_through_dangling_symlink", run: func(c *checkT) {
		c.Ok(unix.Symlink("target", c.Path("s")), "symlink")
		c.Write(c.Path("s"), "by the link")
		c.Holds(c.Path("target"), "by the link")
	}},
	{name: "deep_tree", run: func(c *checkT) {
		// Deeper than PATH_MAX, reachable step by step only.
		name := strings.Repeat("d", 200)
		const depth = 30
		c.Ok(os.Chdir(c.Dir), "chdir")
		for i := range depth {
			c.Ok(unix.Mkdir(name, 0o755), "mkdir at depth %d", i)
			c.Ok(unix.Chdir(name), "chdir at depth %d", i)
		}
		c.Write("deep", "down")
		c.Holds("deep", "down")
		fd := c.Open("deep", unix.O_RDWR, 0)
		c.Ok(unix.Ftruncate(fd, 2), "ftruncate")
		c.Ok(unix.Rename("deep", "deeper"), "rename")
		c.Ok(unix.Link("deeper", "link"), "link")
		c.Ok(unix.Symlink("deeper", "sym"), "symlink")
		c.Holds("sym", "do")
		c.Ok(unix.Chmod("link", 0o600), "chmod")
		harness.Equal(c, c.Fstat(fd).Mode&0o777, uint32(0o600), "mode by the handle")
		_, err := os.ReadDir(".")
		c.Ok(err, "readdir")
		c.Ok(os.Chdir("/"), "chdir back")
	}},
	{name: "inode_numbers", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Mkdir(c.Path("d"))
		c.Ok(unix.Symlink("f", c.Path("s")), "symlink")
		c.Ok(unix.Mkfifo(c.Path("p"), 0o644), "mkfifo")
		seen := map[uint64]string{}
		for _, name := range []string{"f", "d", "s", "p"} {
			ino := c.Lstat(c.Path(name)).Ino
			harness.Equal(c, ino, c.Lstat(c.Native()+"/"+name).Ino, "inode of %s", name)
			harness.Equal(c, seen[ino], "", "another name of inode %d", ino)
			seen[ino] = name
		}
		for _, entry := range c.entries(c.Dir) {
			if entry.name != "." && entry.name != ".." {
				harness.Equal(c, entry.ino, c.Lstat(c.Path(entry.name)).Ino, "d_ino of %s", entry.name)
			}
		}
	}},
	{name: "statfs", run: func(c *checkT) {
		var got, want unix.Statfs_t
		c.Ok(unix.Statfs(c.Dir, &got), "statfs")
		c.Ok(unix.Statfs(c.Native(), &want), "statfs of the native directory")
		harness.Equal(c, got.Blocks, want.Blocks, "blocks")
		harness.Equal(c, got.Bsize, want.Bsize, "block size")
		harness.Equal(c, got.Frsize, want.Frsize, "fragment size")
		harness.Equal(c, got.Files, want.Files, "inodes")
		harness.Equal(c, got.Namelen, want.Namelen, "longest name")
		fd := c.Open(c.Dir, unix.O_RDONLY, 0)
		c.Ok(unix.Fstatfs(fd, &got), "fstatfs")
		harness.Equal(c, got.Blocks, want.Blocks, "blocks by fstatfs")
	}},
}
