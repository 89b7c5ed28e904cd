package control

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// What the reference says of every name: who may do what with it. The names of
// explicit mappings have tests of their own.
var (
	rootNames = map[string]uint32{
		"status": 0o444, "maps": 0o444, "events": 0o444, "metrics": 0o444, "faults": 0o444, "ctl": 0o600, "files": unix.S_IFDIR | 0o555,
		// To remove an entry is munmap, for the owner and root.
		"mappings": unix.S_IFDIR | 0o755,
	}
	fileNames = map[string]uint32{
		"status": 0o444, "pages": 0o444, "map": 0o444, "backing": 0o444, "unsynced": 0o444, "memory": 0o600, "ctl": 0o600,
	}
)

// The keys of the status files, in their order. A file's are all there are.
var (
	mountKeys = []string{"version", "pid", "backing", "mountpoint", "mode", "page_size", "files", "mappings",
		"mapped_bytes", "unsynced_bytes", "sources", "reads", "writes", "stores", "faults", "msyncs", "uptime_seconds"}
	fileKeys = []string{"path", "inode", "mode", "size", "backing_size", "pages", "mapped_pages", "resident_pages",
		"dirty_pages", "writeback_pages", "copied_pages", "unsynced_bytes", "reads", "writes", "stores", "faults",
		"msyncs", "error"}
)

// treeChecks are about the names of the tree, and what cannot be done to them.
var treeChecks = []treeCheck{
	{name: "names_of_the_root", run: func(c *treeT) {
		c.namesAre(c.tree(), rootNames)
		st := c.Lstat(c.tree())
		harness.Equal(c, st.Mode, unix.S_IFDIR|0o555, "mode of the tree")
		harness.Equal(c, st.Uid, 0, "owner of the tree")
	}},
	{name: "names_of_a_file", run: func(c *treeT) {
		c.Write(c.Path("f"), strings.Repeat("x", pages(1)+5))
		c.Ok(os.Chown(c.Path("f"), harness.Alice, harness.AliceGroup), "chown")
		c.namesAre(c.of("f"), fileNames)
		harness.Equal(c, c.Lstat(c.of("f", "memory")).Size, int64(pages(2)), "size of memory")
		harness.Equal(c, c.Lstat(c.of("f", "backing")).Size, int64(pages(1)+5), "size of backing")
		c.Write(c.Path("empty"), "")
		c.namesAre(c.of("empty"), fileNames)
	}},
	{name: "names_below_files", run: func(c *treeT) {
		// Directories and regular files are mirrored, and nothing else.
		names := c.MakeOneOfEach(c.Dir)
		slices.Sort(names)
		c.Write(c.Path("dir", "inside"), "x")
		harness.Equal(c, fmt.Sprint(c.list(c.of("."))), "[dir file regular]", "entries of the mirror")
		harness.Equal(c, fmt.Sprint(c.list(c.of("dir"))), "[inside]", "entries of the directory in it")
		for _, name := range []string{"symlink", "fifo", "socket", "absent", ".mapfs"} {
			c.Absent(c.of(name))
		}
		c.Absent(c.of("file", "absent"))
		c.Absent(c.tree("absent"))
		// In the root alone the name means the tree.
		c.Mkdir(c.Path("dir", ".mapfs"))
		c.Write(c.Path("dir", ".mapfs", "f"), "plain")
		c.Holds(c.Path("dir", ".mapfs", "f"), "plain")
		harness.Equal(c, c.value(c.of("dir/.mapfs/f", "status"), "size"), "5", "size")
		// An inode is its own; a directory shows the mode of what it mirrors.
		c.Ok(unix.Chmod(c.Path("dir"), 0o751), "chmod")
		harness.Equal(c, c.Lstat(c.of("dir")).Mode, unix.S_IFDIR|0o551, "mode of a mirrored directory")
		seen := make(map[uint64]string)
		for _, path := range []string{c.Path("file"), c.Path("dir"), c.of("file"), c.of("dir"), c.of("file", "status"),
			c.of("file", "pages"), c.of("regular", "status"), c.tree(), c.tree("status"), c.tree("files")} {
			ino := c.Lstat(path).Ino
			if other, twice := seen[ino]; twice {
				c.Fatalf("%s and %s have the inode number %d", path, other, ino)
			}
			seen[ino] = path
		}
	}},
	{name: "keys_of_status", run: func(c *treeT) {
		c.Write(c.Path("f"), "five!")
		harness.Equal(c, fmt.Sprint(keys(c.text(c.of("f", "status")))), fmt.Sprint(fileKeys), "keys of a file")
		// The mount's may be joined by more.
		got := keys(c.text(c.tree("status")))
		var known []string
		for _, key := range got {
			if slices.Contains(mountKeys, key) {
				known = append(known, key)
			}
		}
		harness.Equal(c, fmt.Sprint(known), fmt.Sprint(mountKeys), "keys of the mount")
		for key, want := range map[string]string{
			"mountpoint": filepath.Dir(c.Dir), "backing": filepath.Dir(c.Backing), "mode": "shared",
			"page_size": fmt.Sprint(os.Getpagesize()),
		} {
			harness.Equal(c, c.value(c.tree("status"), key), want, "%s of the mount", key)
		}
		for _, source := range []string{"cachestat", "mincore", "pagemap", "kpageflags"} {
			works := slices.Contains(strings.Split(c.value(c.tree("status"), "sources"), ","), source)
			why := c.value(c.tree("status"), "source_"+source)
			harness.Equal(c, works, why == "ok", "%s among the sources, with source_%s %q", source, source, why)
		}
		for key, want := range map[string]string{
			"path": filepath.Base(c.Dir) + "/f", "mode": "shared", "size": "5", "backing_size": "5", "pages": "1",
			"copied_pages": "0", "unsynced_bytes": "5", "writes": "1", "stores": "0", "error": "none",
			"inode": fmt.Sprint(c.Lstat(c.Path("f")).Ino),
		} {
			harness.Equal(c, c.value(c.of("f", "status"), key), want, "%s of the file", key)
		}
	}},
	{name: "nothing_in_the_tree_can_be_changed", run: func(c *treeT) {
		c.Mkdir(c.Path("d"))
		c.Write(c.Path("d", "f"), "kept")
		for _, dir := range []string{c.tree(), c.tree("files"), c.of("d"), c.of("d/f")} {
			in := func(name string) string { return filepath.Join(dir, name) }
			c.Errno(unix.Mkdir(in("new"), 0o755), unix.EPERM, "mkdir in %s", dir)
			c.Errno(unix.Mknod(in("new"), unix.S_IFREG|0o644, 0), unix.EPERM, "mknod in %s", dir)
			c.Errno(unix.Symlink("x", in("new")), unix.EPERM, "symlink in %s", dir)
			c.Errno(unix.Link(c.Path("d", "f"), in("new")), unix.EPERM, "link in %s", dir)
			_, err := unix.Open(in("new"), unix.O_CREAT|unix.O_WRONLY, 0o644)
			c.Errno(err, unix.EPERM, "create in %s", dir)
			c.Errno(unix.Rename(c.Path("d", "f"), in("new")), unix.EPERM, "rename into %s", dir)
			c.Errno(unix.Rename(dir, c.Path("new")), unix.EPERM, "rename of %s", dir)
			c.Errno(unix.Rmdir(dir), unix.EPERM, "rmdir of %s", dir)
			c.Errno(unix.Chmod(dir, 0o777), unix.EPERM, "chmod of %s", dir)
			c.Errno(unix.Chown(dir, harness.Alice, harness.AliceGroup), unix.EPERM, "chown of %s", dir)
			c.Errno(unix.Setxattr(dir, "user.x", nil, 0), unix.EPERM, "setxattr of %s", dir)
		}
		for name := range fileNames {
			leaf := c.of("d/f", name)
			c.Errno(unix.Unlink(leaf), unix.EPERM, "unlink of %s", name)
			c.Errno(unix.Rename(leaf, c.Path("new")), unix.EPERM, "rename of %s", name)
			c.Errno(unix.Chmod(leaf, 0o666), unix.EPERM, "chmod of %s", name)
			c.Errno(unix.Link(leaf, c.Path("new")), unix.EPERM, "link of %s", name)
			if name == "ctl" {
				continue
			}
			fd, err := unix.Open(leaf, unix.O_WRONLY, 0)
			if err == nil { // root may open what nobody can write
				_, err = unix.Write(fd, []byte("x"))
				unix.Close(fd)
			}
			if err == nil {
				c.Fatalf("%s could be written to", name)
			}
		}
		// Not even by force. What is mirrored must survive that.
		_, err := harness.RunErr("rm", "-rf", c.tree())
		if err == nil {
			c.Fatalf("rm -rf of the tree says that it succeeded")
		}
		c.Holds(c.Path("d", "f"), "kept")
		harness.Equal(c, c.text(c.of("d/f", "backing")), "kept", "backing")
		c.Absent(c.Path("new"))
	}},
	{name: "xattrs", run: func(c *treeT) {
		c.Write(c.Path("f"), strings.Repeat("x", pages(2)))
		for _, path := range []string{filepath.Dir(c.Dir), c.Dir, c.Path("f"), c.tree(), c.of("f", "status")} {
			harness.Equal(c, c.xattr(path, "user.mapfs.control"), ".mapfs", "name of the tree, by %s", path)
		}
		harness.Equal(c, c.xattr(c.Path("f"), "user.mapfs.unsynced_bytes"), fmt.Sprint(pages(2)), "unsynced bytes")
		// The kernel writes pages back when it likes, perhaps between the two looks.
		dirty := func() (attr, status string) {
			return c.xattr(c.Path("f"), "user.mapfs.dirty_pages"), c.value(c.of("f", "status"), "dirty_pages")
		}
		attr, status := dirty()
		for try := 0; attr != status && try < 3; try++ {
			attr, status = dirty()
		}
		harness.Equal(c, attr, status, "dirty pages")
		_, err := unix.Getxattr(c.Dir, "user.mapfs.unsynced_bytes", make([]byte, 64))
		c.Errno(err, unix.ENODATA, "unsynced bytes of a directory")
		n, err := unix.Listxattr(c.Path("f"), make([]byte, 64))
		c.Ok(err, "listxattr")
		harness.Equal(c, n, 0, "bytes of the list of attributes")
		_, err = unix.Getxattr(c.Below("f"), "user.mapfs.control", make([]byte, 64))
		c.Errno(err, unix.ENODATA, "the attribute in BACKING")
		c.Errno(unix.Setxattr(c.Path("f"), "user.mapfs.control", []byte("x"), 0), unix.EPERM, "setxattr")
		c.Errno(unix.Removexattr(c.Path("f"), "user.mapfs.dirty_pages"), unix.EPERM, "removexattr")
	}},
}

// xattr is the value of an extended attribute.
func (c *treeT) xattr(path, name string) string {
	b := make([]byte, 256)
	n, err := unix.Getxattr(path, name, b)
	c.Ok(err, "%s of %s", name, path)
	return string(b[:n])
}

// keys lists the keys of a status text.
func keys(text string) (keys []string) {
	for line := range strings.Lines(text) {
		key, _, _ := strings.Cut(line, " ")
		keys = append(keys, key)
	}
	return keys
}

// list returns the names in a directory, sorted.
func (c *treeT) list(dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	c.Ok(err, "list %s", dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// namesAre fails the check unless dir has exactly these entries of these modes,
// which belong to the daemon's user and have a size that is true or 0.
func (c *treeT) namesAre(dir string, want map[string]uint32) {
	for _, name := range c.list(dir) {
		if _, known := want[name]; !known {
			c.Fatalf("%s has an entry %q, which the reference does not know", dir, name)
		}
	}
	for name, mode := range want {
		path := filepath.Join(dir, name)
		if !slices.Contains(c.list(dir), name) {
			c.Fatalf("%s is not listed", path)
		}
		st := c.Lstat(path)
		if mode&unix.S_IFMT == 0 {
			mode |= unix.S_IFREG
		}
		harness.Equal(c, st.Mode, mode, "mode of %s", path)
		harness.Equal(c, st.Uid, uint32(os.Geteuid()), "owner of %s", path)
		if mode&unix.S_IFMT == unix.S_IFREG && name != "events" && st.Size != 0 {
			harness.Equal(c, st.Size, int64(len(c.text(path))), "size of %s", path)
		}
	}
}

// TestControlIsHidden lets programs that walk directories loose on a mount: none
// of them comes upon the control tree.
func TestControlIsHidden(t *testing.T) {
	m := harness.Mount(t, harness.TempDir(t))
	sh := func(script string) string {
		t.Helper()
		return harness.Run(t, "sh", "-ec", script, "sh", m.Dir, harness.TempDir(t))
	}
	sh(`mkdir "$1/d"; echo x >"$1/d/f"; echo y >"$1/.dot"; cat "$1/.mapfs/status" "$1/.mapfs/files/d/f/status"`)
	for _, c := range []struct{ name, script, want string }{
		{"ls", `ls -A "$1"`, ".dot\nd\n"},
		{"find", `cd "$1"; find . | sort`, ".\n./.dot\n./d\n./d/f\n"},
		{"cp -a", `cp -a "$1" "$2/copy"; cd "$2/copy"; find . | sort`, ".\n./.dot\n./d\n./d/f\n"},
		{"tar", `tar -C "$1" -c . | tar -t | sort`, "./\n./.dot\n./d/\n./d/f\n"},
		{"du", `cd "$1"; du -a . | cut -f2 | sort`, ".\n./.dot\n./d\n./d/f\n"},
		{"glob", `cd "$1"; echo .[!.]* *`, ".dot d\n"},
		{"grep -r", `cd "$1"; grep -rl . . | sort`, "./.dot\n./d/f\n"},
		{"rm -rf", `cd "$1"; rm -rf ./* .[!.]*; ls -A .`, ""},
		{"still there", `cat "$1/.mapfs/status" | head -n 1 | cut -d' ' -f1`, "version\n"},
	} {
		if got := sh(c.script); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	m.Unmount()
	if entries, err := os.ReadDir(m.Backing); err != nil || len(entries) != 0 {
		t.Errorf("left in BACKING: %v %v", entries, err)
	}
}

// TestControlNameIsReserved tries to put something else where the tree is.
func TestControlNameIsReserved(t *testing.T) {
	m := harness.Mount(t, harness.TempDir(t))
	for _, c := range []struct{ script, want string }{
		{`mkdir .mapfs`, "File exists"},
		{`touch f; ln f .mapfs`, "File exists|not permitted"},
		{`ln -sT x .mapfs`, "File exists|not permitted"},
		{`mkfifo .mapfs`, "File exists"},
		{`echo x >.mapfs`, "directory"},
		{`mv -T f .mapfs`, "directory|not permitted"},
		{`mkdir d; mv -T d .mapfs`, "not permitted|not empty|File exists"},
		{`mv -T .mapfs d`, "not permitted"},
		{`rm .mapfs`, "directory|not permitted"},
		{`rmdir .mapfs`, "not permitted|not empty"},
		{`chmod 777 .mapfs`, "not permitted"},
	} {
		// LC_ALL: the messages are what tells a refusal from another failure.
		cmd := exec.Command("sh", "-c", `cd "$1" && export LC_ALL=C && `+c.script, "sh", m.Dir)
		_, err := harness.RunCmd(cmd, harness.ClientTimeout)
		if err == nil {
			t.Errorf("%s: succeeded", c.script)
		} else if !containsOneOf(err.Error(), strings.Split(c.want, "|")) {
			t.Errorf("%s: got %v, want %s", c.script, err, c.want)
		}
	}
	if got := harness.Run(t, "cat", m.Path(".mapfs", "files", "f", "status")); !strings.HasPrefix(got, "path f\n") {
		t.Errorf("the tree afterwards: %q", got)
	}
	m.Unmount()
	if _, err := os.Lstat(filepath.Join(m.Backing, ".mapfs")); !os.IsNotExist(err) {
		t.Errorf(".mapfs in BACKING: %v", err)
	}
}

func containsOneOf(text string, parts []string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
}
