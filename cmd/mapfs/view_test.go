//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// fakeTree is a directory that looks like a mount with a control tree.
type fakeTree struct {
	*fakeSystem
	t   *testing.T
	dir string // the mount point
	// commands are those that were given, as "CTL TEXT", CTL as a path in
	// the control tree.
	commands []string
	answer   string
	refusal  error
}

func newFakeTree(t *testing.T) *fakeTree {
	t.Helper()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeTree{fakeSystem: newFakeSystem(), t: t, dir: filepath.Join(top, "mnt"), answer: "ok\n"}
	f.mountpoints = func() ([]string, error) { return []string{"/elsewhere", f.dir}, nil }
	f.controlName = func(mountpoint string) (string, error) {
		if mountpoint != f.dir {
			t.Errorf("asks %s for its control tree, want %s", mountpoint, f.dir)
		}
		return ".mapfs", nil
	}
	f.command = func(ctl, text string) (string, error) {
		f.commands = append(f.commands, strings.TrimPrefix(ctl, f.dir+"/.mapfs/")+" "+text)
		return f.answer, f.refusal
	}
	f.write(".mapfs/status", "version test\npage_size 4096\nfiles 2\n")
	f.write(".mapfs/ctl", "")
	f.write(".mapfs/maps", `7f0000000000-7f0000040000 rw-s 00000000 08:01 12 f
7f0000100000-7f0000140000 rw-s 00000000 08:01 13 "sub/a b"
7f0000200000-7f0000201000 r--p 00001000 08:01 12 f mine
`)
	f.write(".mapfs/events", `2026-11-22T21:40:00.000001Z 1 open f flags=O_RDWR
2026-11-22T21:40:00.000002Z 2 write f offset=0 length=16384 pid=7
2026-11-22T21:40:00.000003Z 3 write "sub/a b" offset=0 length=5 pid=8
2026-11-22T21:40:00.000004Z 4 lost - n=17
2026-11-22T21:40:00.000005Z 5 msync f flags=sync offset=0 length=16384 pages=4 errno=0
`)
	f.file("f", "path f\nmode shared\nsize 40000\npages 10\nunsynced_bytes 16384\nreads 3\nwrites 4\nmsyncs 0\nerror none\n",
		"0-3 RDU\n4-4 R\n5-8 -\n9-9 T\n")
	f.file("sub/a b", "path \"sub/a b\"\nmode shared\nsize 5\n", "0-0 RT\n")
	f.file("empty", "path empty\nmode shared\nsize 0\n", "")
	f.write(".mapfs/mappings/mine/status", "addr 7f0000200000\nlength 4096\nflags private\n")
	f.write(".mapfs/mappings/mine/pages", "0-0 RC\n")
	return f
}

func (f *fakeTree) write(name, text string) {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// file makes a file of the mount and its directory in the control tree.
func (f *fakeTree) file(name, status, pages string) {
	f.t.Helper()
	f.write(name, "")
	for file, text := range map[string]string{"status": status, "pages": pages, "ctl": ""} {
		f.write(".mapfs/files/"+name+"/"+file, text)
	}
}

// runIn runs mapfs with "MNT" in its arguments for the mount point, and puts
// that back into what it says.
func (f *fakeTree) runIn(args ...string) outcome {
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "MNT", f.dir)
	}
	got := f.run(args...)
	got.stdout = strings.ReplaceAll(got.stdout, f.dir, "MNT")
	got.stderr = strings.ReplaceAll(got.stderr, f.dir, "MNT")
	return got
}

func TestFindTarget(t *testing.T) {
	f := newFakeTree(t)
	// A file whose name is one in the control tree.
	f.file("sub/ctl", "path sub/ctl\n", "")
	if err := os.Symlink("../mnt/f", filepath.Join(f.dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("mnt", f.dir+"-link"); err != nil {
		t.Fatal(err)
	}
	mount := target{kind: targetMount, dir: ""}
	file := func(name string) target { return target{kind: targetFile, dir: "/files/" + name, name: name} }
	mapping := target{kind: targetMapping, dir: "/mappings/mine", name: "mine"}
	tests := []struct {
		path string
		want target // dir relative to the control tree
	}{
		{"MNT", mount},
		{"MNT/", mount},
		{"MNT/sub", mount},
		{"MNT/sub/..", mount},
		{"MNT-link", mount},
		{"MNT-link/sub/../f", file("f")},
		{"MNT/f", file("f")},
		{"MNT/link", file("f")},
		{"MNT/sub/a b", file("sub/a b")},
		{"MNT/sub/ctl", file("sub/ctl")},
		{"MNT/.mapfs", mount},
		{"MNT/.mapfs/events", mount},
		{"MNT/.mapfs/files", mount},
		{"MNT/.mapfs/files/sub", mount},
		{"MNT/.mapfs/files/f", file("f")},
		{"MNT/.mapfs/files/f/pages", file("f")},
		{"MNT/.mapfs/files/sub/a b/status", file("sub/a b")},
		{"MNT/.mapfs/files/sub/ctl", file("sub/ctl")},
		{"MNT/.mapfs/files/sub/ctl/ctl", file("sub/ctl")},
		{"MNT/.mapfs/mappings", mount},
		{"MNT/.mapfs/mappings/mine", mapping},
		{"MNT/.mapfs/mappings/mine/pages", mapping},
	}
	for _, test := range tests {
		got, err := findTarget(f.system, strings.ReplaceAll(test.path, "MNT", f.dir))
		test.want.mountpoint, test.want.control = f.dir, f.dir+"/.mapfs"
		test.want.dir = test.want.control + test.want.dir
		if err != nil || got != test.want {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", test.path, got, err, test.want)
		}
	}
	t.Chdir(filepath.Join(f.dir, "sub"))
	if got, err := findTarget(f.system, "a b"); err != nil || got.name != "sub/a b" {
		t.Errorf("a relative path: got %+v, %v", got, err)
	}
}

func TestFindTargetErrors(t *testing.T) {
	noTree := func(err error) func(f *fakeTree) {
		return func(f *fakeTree) { f.controlName = func(string) (string, error) { return "", err } }
	}
	tests := []struct {
		args   string
		change func(f *fakeTree)
		want   string
	}{
		{args: "status MNT/..", want: "MNT/.. is on no mapfs mount"},
		{args: "status MNT", change: func(f *fakeTree) {
			f.mountpoints = func() ([]string, error) { return []string{f.dir[:len(f.dir)-1]}, nil }
		}, want: "MNT is on no mapfs mount"},
		{args: "status MNT", change: noTree(errNoMapfs), want: "MNT is on no mapfs mount"},
		{args: "status /proc/self/status", change: func(f *fakeTree) {
			f.mountpoints = func() ([]string, error) { return []string{"/"}, nil }
		}, want: "/proc/self/status is on no mapfs mount"}, // mounted inside of it
		{args: "maps MNT/f", change: noTree(syscall.ENODATA),
			want: "MNT/f: the mount on MNT has no control tree (-o control=none)"},
		{args: "events MNT/f", change: func(f *fakeTree) {
			f.controlName = func(m string) (string, error) { return "", &os.PathError{Op: "stat", Path: m, Err: syscall.ENOTCONN} }
		}, want: "MNT/f: the mount is dead, its daemon has ended; clear it away with 'mapfs umount MNT'"},
		{args: "status MNT", change: func(f *fakeTree) {
			f.controlName = func(m string) (string, error) {
				return "", &os.PathError{Op: "stat", Path: m, Err: syscall.ECONNABORTED}
			}
		}, want: "MNT: the mount is dead, its daemon has ended; clear it away with 'mapfs umount MNT'"},
		{args: "status MNT/no", want: "MNT/no: no such file or directory"},
		{args: "status MNT/no\x01", want: `"MNT/no\x01": no such file or directory`},
		{args: "status MNT/f/x", want: "MNT/f/x: not a directory"},
		{args: "pages MNT/sub", want: "MNT/sub is a directory; name a regular file"},
		{args: "msync MNT", want: "MNT is a directory; name a regular file"},
		{args: "watch MNT/.mapfs", want: "MNT/.mapfs is a directory; name a regular file"},
		{args: "status MNT/fifo", change: func(f *fakeTree) {
			if err := syscall.Mkfifo(filepath.Join(f.dir, "fifo"), 0o600); err != nil {
				f.t.Fatal(err)
			}
		}, want: "MNT/fifo is neither a regular file nor a directory"},
		{args: "status MNT/bare", change: func(f *fakeTree) { f.write("bare", "") }, want: "MNT/bare: no such file any more"},
		{args: "status MNT", change: func(f *fakeTree) {
			f.controlName = func(string) (string, error) { return "gone", nil }
		}, want: "MNT: the mount is gone, nothing is mounted there any more"},
	}
	for _, test := range tests {
		f := newFakeTree(t)
		if test.change != nil {
			test.change(f)
		}
		want := outcome{code: exitFailed, stderr: "mapfs: " + test.want + "\n"}
		if got := f.runIn(strings.Fields(test.args)...); got != want {
			t.Errorf("mapfs %s:\ngot  %+v\nwant %+v", test.args, got, want)
		}
	}
}

func TestViewerUsage(t *testing.T) {
	tests := []struct{ args, want string }{
		{"status a b", `unexpected argument "b" after PATH`},
		{"maps a b", `unexpected argument "b" after PATH`},
		{"events a b", `unexpected argument "b" after PATH`},
		{"events --frob", "unknown flag: --frob"},
		{"pages", "name a FILE in a mapfs mount"},
		{"pages a b", `unexpected argument "b" after FILE`},
		{"watch", "name a FILE in a mapfs mount"},
		{"msync", "name a FILE in a mapfs mount"},
		{"msync --offset x f", `invalid argument "x" for "--offset" flag: not a number of bytes, like 4096, 64k or 1G`},
		{"msync --length 9999999T f", `invalid argument "9999999T" for "--length" flag: more bytes than a file can have`},
		{"ctl", "name a PATH in a mapfs mount and the COMMAND"},
		{"ctl f", "name a PATH in a mapfs mount and the COMMAND"},
		{"ctl f msync offset=0", `unexpected argument "offset=0"; a COMMAND of several words is one argument, in quotes`},
		{"ctl f \"\"", "COMMAND must not be empty"},
		{"status \"\"", "PATH must not be empty"},
		{"pages \"\"", "FILE must not be empty"},
	}
	for _, test := range tests {
		var args []string
		for _, word := range strings.Fields(test.args) {
			if unquoted, err := strconv.Unquote(word); err == nil {
				word = unquoted
			}
			args = append(args, word)
		}
		want := outcome{code: exitUsage, stderr: "mapfs: " + test.want + "; see 'mapfs --help'\n"}
		if got := newFakeSystem().run(args...); got != want {
			t.Errorf("mapfs %s:\ngot  %+v\nwant %+v", test.args, got, want)
		}
	}
}

func TestLongestPrefix(t *testing.T) {
	mountpoints := []string{"/", "/mnt", "/mnt/a/b", "/mnt/a"}
	tests := []struct{ path, mountpoint, inside string }{
		{"/", "/", ""},
		{"/etc/x", "/", "etc/x"},
		{"/mnt", "/mnt", ""},
		{"/mntx", "/", "mntx"},
		{"/mnt/ab", "/mnt", "ab"},
		{"/mnt/a/c", "/mnt/a", "c"},
		{"/mnt/a/b/c/d", "/mnt/a/b", "c/d"},
	}
	for _, test := range tests {
		mountpoint, inside, found := longestPrefix(mountpoints, test.path)
		if mountpoint != test.mountpoint || inside != test.inside || !found {
			t.Errorf("%s: got %q, %q, %t", test.path, mountpoint, inside, found)
		}
	}
	if _, _, found := longestPrefix(mountpoints[1:], "/etc"); found {
		t.Error("/etc: found a mount")
	}
}
