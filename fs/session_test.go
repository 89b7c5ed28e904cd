package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
	"mapfs/internal/need"
	"mapfs/mapping"
)

// unmounted returns a session on a fresh backing directory that is mounted
// nowhere: enough for everything that does not talk to the kernel.
func unmounted(t *testing.T) *Session {
	t.Helper()
	s, err := New(Options{Backing: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// lookTest looks up a path below the root, one name at a time, as the kernel
// does, and returns its node.
func lookTest(t *testing.T, s *Session, names ...string) *Node {
	t.Helper()
	id := fuse.NodeID(fuse.RootID)
	var n *Node
	for _, name := range names {
		p, err := s.entry(id, name)
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Fstatat(p.dir.fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
		n = s.nodes.look(&st, link{id, name})
		s.leave(p)
		id = n.id
	}
	return n
}

// backing returns a path in the session's backing directory.
func (s *Session) backing(names ...string) string {
	return filepath.Join(append([]string{s.opts.Backing}, names...)...)
}

func TestCheckName(t *testing.T) {
	long := string(make([]byte, 256))
	for name, want := range map[string]error{
		"": syscall.EINVAL, ".": syscall.EINVAL, "..": syscall.EINVAL,
		"a/b": syscall.EINVAL, "/": syscall.EINVAL, "../x": syscall.EINVAL, "a\x00b": syscall.EINVAL,
		"...": nil, "a b": nil, "new\nline": nil, "\xff\xfe": nil, ".hidden": nil,
	} {
		if got := CheckName(name); got != want {
			t.Errorf("CheckName(%q) = %v, want %v", name, got, want)
		}
	}
	b := []byte(long)
	for i := range b {
		b[i] = 'n'
	}
	if err := CheckName(string(b)); err != syscall.ENAMETOOLONG {
		t.Errorf("a name of 256 bytes: %v", err)
	}
	if err := CheckName(string(b[:255])); err != nil {
		t.Errorf("a name of 255 bytes: %v", err)
	}
}

func TestNodesShareHardLinks(t *testing.T) {
	s := unmounted(t)
	if err := os.WriteFile(s.backing("a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(s.backing("a"), s.backing("b")); err != nil {
		t.Fatal(err)
	}
	a, b := lookTest(t, s, "a"), lookTest(t, s, "b")
	if a != b {
		t.Fatal("two nodes for one inode")
	}
	if a.lookups != 2 {
		t.Errorf("%d lookups are counted, want 2", a.lookups)
	}
	// Either name leads to it, also when the newer one is gone.
	if err := os.Remove(s.backing("b")); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	p, err := s.locate(a, &st)
	if err != nil || p.name != "a" {
		t.Fatalf("located at %q, %v", p.name, err)
	}
	s.leave(p)
	if s.nodes.forget(a.id, 1) != nil {
		t.Error("forgotten while a lookup is left")
	}
	if s.nodes.forget(a.id, 1) != a || s.nodes.get(a.id) != nil {
		t.Error("not forgotten with the last lookup")
	}
}

// TestStrangerIsStale: a name that means another inode now is never taken for
// the old one.
func TestStrangerIsStale(t *testing.T) {
	s := unmounted(t)
	write := func(name, text string) {
		t.Helper()
		// By another inode, which keeps the old number from being reused.
		if err := os.WriteFile(s.backing(name+".new"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(s.backing(name+".new"), s.backing(name)); err != nil {
			t.Fatal(err)
		}
	}
	write("f", "old")
	n := lookTest(t, s, "f")
	write("f", "new")
	var st unix.Stat_t
	if _, err := s.locate(n, &st); err != syscall.ESTALE {
		t.Errorf("locate: %v, want ESTALE", err)
	}
	if _, err := s.acquire(n, accessRead); wire.ErrnoOf(err) != syscall.ESTALE {
		t.Errorf("acquire: %v, want ESTALE", err)
	}

	for _, d := range []string{"d", "d/e"} {
		if err := os.Mkdir(s.backing(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	e := lookTest(t, s, "d", "e")
	if err := os.Rename(s.backing("d"), s.backing("d.old")); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"d", "d/e"} {
		if err := os.Mkdir(s.backing(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.dirs.forget(e.id)
	s.dirs.forget(e.newest.dir)
	if _, err := s.dir(e); wire.ErrnoOf(err) != syscall.ESTALE {
		t.Errorf("dir: %v, want ESTALE", err)
	}
}

// TestNothingOutsideIsReachable: a directory that becomes a symbolic link out of
// the backing directory between the lookup and the use.
func TestNothingOutsideIsReachable(t *testing.T) {
	s := unmounted(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.backing("d"), 0o700); err != nil {
		t.Fatal(err)
	}
	d := lookTest(t, s, "d")
	s.dirs.forget(d.id)
	if err := os.Remove(s.backing("d")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, s.backing("d")); err != nil {
		t.Fatal(err)
	}
	if p, err := s.entry(d.id, "secret"); wire.ErrnoOf(err) != syscall.ESTALE {
		t.Errorf("entered %v through a symbolic link: %v, want ESTALE", p, err)
	}
	if err := os.Symlink(filepath.Join(outside, "secret"), s.backing("l")); err != nil {
		t.Fatal(err)
	}
	l := lookTest(t, s, "l")
	if l.kind != unix.S_IFLNK {
		t.Fatalf("kind %o", l.kind)
	}
	var st unix.Stat_t
	fd, err := s.openNode(l, &st)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if !l.is(&st) {
		t.Error("the link was followed")
	}
}

// TestDeepDirectories: a tree deeper than PATH_MAX, with descriptors for a few of
// its directories only.
func TestDeepDirectories(t *testing.T) {
	s := unmounted(t)
	s.dirs.max = 3
	const depth = 600
	name := string(slices.Repeat([]byte("n"), 20))
	at, err := unix.Open(s.opts.Backing, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	id := fuse.NodeID(fuse.RootID)
	var deepest *Node
	for range depth {
		if err := unix.Mkdirat(at, name, 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(at)
		at = next
		var st unix.Stat_t
		if err := unix.Fstat(at, &st); err != nil {
			t.Fatal(err)
		}
		deepest = s.nodes.look(&st, link{id, name})
		id = deepest.id
	}
	unix.Close(at)
	for range 3 {
		d, err := s.dir(deepest)
		if err != nil {
			t.Fatal(err)
		}
		s.dirs.put(d)
		if len(s.dirs.dirs) > s.dirs.max {
			t.Fatalf("%d descriptors are open, the cap is %d", len(s.dirs.dirs), s.dirs.max)
		}
		s.dirs.forget(deepest.id)
	}
}

func TestDirCacheUnderContention(t *testing.T) {
	s := unmounted(t)
	s.dirs.max = 4
	var nodes []*Node
	for i := range 20 {
		if err := os.Mkdir(s.backing(fmt.Sprint(i)), 0o700); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, lookTest(t, s, fmt.Sprint(i)))
	}
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for i := range 500 {
				n := nodes[(i*7+w)%len(nodes)]
				d, err := s.dir(n)
				if err != nil {
					t.Error(err)
					return
				}
				var st unix.Stat_t
				if err := unix.Fstat(d.fd, &st); err != nil || !n.is(&st) {
					t.Errorf("the descriptor of another directory: %v", err)
				}
				s.dirs.put(d)
				if i%50 == 0 {
					s.dirs.forget(n.id)
				}
			}
		})
	}
	workers.Wait()
}

func TestInodeNumbers(t *testing.T) {
	var d deviceTable
	d.init(7)
	if got := d.inode(mapping.ID{Dev: 7, Ino: 42}); got != 42 {
		t.Errorf("on the root's device: %d, want the backing's own 42", got)
	}
	a, b := d.inode(mapping.ID{Dev: 8, Ino: 42}), d.inode(mapping.ID{Dev: 9, Ino: 42})
	if a == b || a == 42 || b == 42 {
		t.Errorf("three devices, inode 42 on each: 42, %d, %d", a, b)
	}
	if again := d.inode(mapping.ID{Dev: 8, Ino: 42}); again != a {
		t.Errorf("was %d and is %d", a, again)
	}
}

// TestReaddirCookies reads a directory in pieces of every size, from every
// cookie, and sees every entry once.
func TestReaddirCookies(t *testing.T) {
	s := unmounted(t)
	want := []string{".", ".."}
	for i := range 100 {
		name := fmt.Sprintf("%0*d", 1+i*2, i)
		want = append(want, name)
		if err := os.WriteFile(s.backing(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	for _, size := range []int{280, 512, 4096, 64 << 10} {
		fd, err := unix.Open(s.opts.Backing, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		d := &dirHandle{fd: fd, dev: s.devices.root}
		var got []string
		var cookies []int64
		for off := int64(0); ; {
			out, err := d.read(make([]byte, 0, size), off, &s.devices, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(out) == 0 {
				break
			}
			names, next := decodeDirents(t, out)
			got = append(got, names...)
			for range names {
				cookies = append(cookies, off)
			}
			off = next
		}
		inOrder := slices.Clone(got)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("in pieces of %d bytes: %d entries, want %d", size, len(got), len(want))
		}
		// seekdir(3): from any cookie the rest is as it was.
		for i := len(cookies) - 1; i >= 0; i -= 13 {
			out, err := d.read(make([]byte, 0, 280), cookies[i], &s.devices, nil)
			if err != nil {
				t.Fatal(err)
			}
			first := slices.Index(cookies, cookies[i])
			if names, _ := decodeDirents(t, out); len(names) == 0 || names[0] != inOrder[first] {
				t.Errorf("after a seek to %d: %v, want %q first", cookies[i], names, inOrder[first])
			}
		}
		unix.Close(fd)
	}
}

// TestDirHandleClosedElsewhere: who closes a directory need not be who has read it last.
// That the one comes after the other is seen by the kernel alone, so the race detector
// has to find a lock.
func TestDirHandleClosedElsewhere(t *testing.T) {
	s := unmounted(t)
	out, err := s.openDir(s.Root(), &fuse.Header{}, true, false)
	if err != nil {
		t.Fatal(err)
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		d := s.handles.get(fuse.HandleID(out.Fh)).dir
		d.mu.Lock()
		defer d.mu.Unlock()
		if _, err := d.read(make([]byte, 0, 4096), 0, &s.devices, nil); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(50 * time.Millisecond) // a wait for the reader would be such a lock
	s.closeHandle(fuse.HandleID(out.Fh)).close()
	reader.Wait()
}

// decodeDirents takes struct fuse_dirents apart.
func decodeDirents(t *testing.T, b []byte) (names []string, next int64) {
	t.Helper()
	for len(b) > 0 {
		h := (*wire.Dirent)(unsafe.Pointer(&b[0]))
		size := int(unsafe.Sizeof(*h))
		names = append(names, string(b[size:size+int(h.Namelen)]))
		next = int64(h.Off)
		b = b[size+(int(h.Namelen)+7)&^7:]
	}
	return names, next
}

// TestCreateAsClient: what a client creates is the client's, by the rules of the
// backing filesystem, and the daemon is itself again afterwards.
func TestCreateAsClient(t *testing.T) {
	need.Root(t)
	s := unmounted(t)
	if err := os.Chmod(s.opts.Backing, 0o700); err != nil { // closed to the client: the kernel has decided
		t.Fatal(err)
	}
	shared := s.backing("shared")
	if err := os.Mkdir(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chown(shared, 0, 4242); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(shared, 0o2777); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path     string
		uid, gid uint32
	}{{s.backing("mine"), 1234, 5678}, {filepath.Join(shared, "ours"), 1234, 4242}} {
		h := &fuse.Header{Uid: 1234, Gid: 5678}
		if err := s.as(&wire.Worker{}, h, func() error { return unix.Mkdir(c.path, 0o755) }); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(c.path, &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid != c.uid || st.Gid != c.gid {
			t.Errorf("%s belongs to %d:%d, want %d:%d", c.path, st.Uid, st.Gid, c.uid, c.gid)
		}
	}
	if err := os.WriteFile(s.backing("daemon"), nil, 0o600); err != nil {
		t.Errorf("the daemon has lost its rights: %v", err)
	}
}

func TestSetTime(t *testing.T) {
	far := time.Date(2400, 1, 2, 3, 4, 5, 6, time.UTC) // nanoseconds since 1970 do not fit
	for _, c := range []struct {
		valid, now bool
		t          time.Time
		want       unix.Timespec
	}{
		{false, false, far, unix.Timespec{Nsec: unix.UTIME_OMIT}},
		{true, true, far, unix.Timespec{Nsec: unix.UTIME_NOW}},
		{true, false, far, unix.Timespec{Sec: far.Unix(), Nsec: 6}},
		{true, false, time.Unix(-1, 5), unix.Timespec{Sec: -1, Nsec: 5}},
	} {
		if got := setTime(c.valid, c.now, c.t); got != c.want {
			t.Errorf("setTime(%v, %v, %v) = %v, want %v", c.valid, c.now, c.t, got, c.want)
		}
	}
}

func TestUnixMode(t *testing.T) {
	for _, want := range []uint32{
		unix.S_IFREG | 0o644, unix.S_IFDIR | 0o1777, unix.S_IFLNK | 0o777, unix.S_IFIFO | 0o600,
		unix.S_IFSOCK | 0o666, unix.S_IFBLK | 0o660, unix.S_IFCHR | 0o620, unix.S_IFREG | 0o6755,
	} {
		path := fmt.Sprintf("%o", want)
		if got := unixMode(goMode(want)); got != want {
			t.Errorf("%s became %o", path, got)
		}
	}
}

// goMode is the library's mode for the bits of mode(7).
func goMode(bits uint32) os.FileMode {
	mode := os.FileMode(bits & 0o777)
	mode |= map[uint32]os.FileMode{
		unix.S_IFDIR: os.ModeDir, unix.S_IFLNK: os.ModeSymlink, unix.S_IFIFO: os.ModeNamedPipe,
		unix.S_IFSOCK: os.ModeSocket, unix.S_IFBLK: os.ModeDevice, unix.S_IFCHR: os.ModeDevice | os.ModeCharDevice,
	}[bits&unix.S_IFMT]
	if bits&unix.S_ISUID != 0 {
		mode |= os.ModeSetuid
	}
	if bits&unix.S_ISGID != 0 {
		mode |= os.ModeSetgid
	}
	if bits&unix.S_ISVTX != 0 {
		mode |= os.ModeSticky
	}
	return mode
}
