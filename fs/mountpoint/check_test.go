package mountpoint

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCheckMount has every reason why mapfs refuses to mount, with the words
// that the user reads. DIR stands for a directory that holds:
//
//	data/   the backing directory, with a file f and a directory sub/
//	empty/  a mount point
//	full/   a mount point with a file in it
//	link    a symlink to data
func TestCheckMount(t *testing.T) {
	const fuseAdvice = "load the kernel module with 'modprobe fuse' (in Docker, run the container with '--device /dev/fuse --cap-add SYS_ADMIN')"
	tests := []struct {
		name                string
		backing, mountpoint string // below DIR
		opts                Request
		change              func(m *machine)
		want                string // "" is success
	}{
		{name: "good", backing: "data", mountpoint: "empty"},
		{name: "good by symlink", backing: "link", mountpoint: "empty"},
		{name: "not empty but allowed", backing: "data", mountpoint: "full", opts: Request{NonEmpty: true}},
		{name: "a name that begins alike", backing: "data", mountpoint: "data2"},

		{name: "backing missing", backing: "no", mountpoint: "empty",
			want: "backing directory DIR/no does not exist; create it, or check the path"},
		{name: "backing is a file", backing: "data/f", mountpoint: "empty",
			want: "backing path DIR/data/f is not a directory; name the directory to mirror"},
		{name: "backing below a file", backing: "data/f/g", mountpoint: "empty",
			want: "backing directory DIR/data/f/g: not a directory; a part of the path is a file"},
		{name: "mountpoint missing", backing: "data", mountpoint: "no",
			want: "mountpoint DIR/no does not exist; create it, or check the path"},
		{name: "mountpoint's parent missing", backing: "data", mountpoint: "no/no",
			want: "mountpoint DIR/no/no does not exist; create it, or check the path"},
		{name: "mountpoint is a file", backing: "data", mountpoint: "full/f",
			want: "mountpoint DIR/full/f is not a directory; mount on a directory"},
		{name: "mountpoint not empty", backing: "data", mountpoint: "full",
			want: "mountpoint DIR/full is not empty; choose an empty directory, or hide its files with '-o nonempty'"},

		{name: "equal", backing: "empty", mountpoint: "empty",
			want: "backing directory and mountpoint are the same directory, DIR/empty; mount on another one"},
		{name: "equal through a symlink", backing: "link", mountpoint: "data",
			want: "backing directory and mountpoint are the same directory, DIR/data; mount on another one"},
		{name: "mountpoint inside backing", backing: "data", mountpoint: "data/sub",
			want: "mountpoint DIR/data/sub lies inside the backing directory DIR/data; mount on a directory outside it"},
		{name: "mountpoint inside backing through a symlink", backing: "data", mountpoint: "link/sub",
			want: "mountpoint DIR/data/sub lies inside the backing directory DIR/data; mount on a directory outside it"},
		{name: "backing inside mountpoint", backing: "data/sub", mountpoint: "data",
			want: "backing directory DIR/data/sub lies inside the mountpoint DIR/data; mount on a directory that does not hold it"},

		{name: "already a mapfs", backing: "data", mountpoint: "empty", change: mountedAs("fuse.mapfs", "empty"),
			want: "mountpoint DIR/empty already is a mapfs mount; unmount it first with 'mapfs umount DIR/empty'"},
		{name: "already a mapfs, the name has blanks", backing: "data", mountpoint: "a b", change: mountedAs("fuse.mapfs", "a b"),
			want: "mountpoint DIR/a b already is a mapfs mount; unmount it first with 'mapfs umount DIR/a b'"},
		{name: "backing inside that mapfs", backing: "full/sub", mountpoint: "full", change: mountedAs("fuse.mapfs", "full"),
			want: "mountpoint DIR/full already is a mapfs mount; unmount it first with 'mapfs umount DIR/full'"},
		{name: "another filesystem", backing: "data", mountpoint: "empty", change: mountedAs("tmpfs", "empty")},

		{name: "no device", backing: "data", mountpoint: "empty",
			change: func(m *machine) { m.host.device = m.dir + "/fuse" },
			want:   "DIR/fuse: no such file or directory; " + fuseAdvice},
		{name: "no capability", backing: "data", mountpoint: "empty",
			change: func(m *machine) { m.host.mayMount = func() bool { return false } },
			want:   "this container may not mount; run it with '--cap-add SYS_ADMIN' (Docker)"},
		{name: "no helper", backing: "data", mountpoint: "empty",
			change: func(m *machine) {
				asUser(m)
				m.host.lookPath = func(string) (string, error) { return "", errors.New("not there") }
			},
			want: "fusermount3 is not in PATH; install the package fuse3 (on Debian and Ubuntu: apt-get install fuse3)"},

		{name: "root needs no helper", backing: "data", mountpoint: "empty",
			change: func(m *machine) {
				m.host.lookPath = func(string) (string, error) { return "", errors.New("not there") }
			}},

		{name: "allow_other", backing: "data", mountpoint: "empty", opts: Request{AllowOther: true, DefaultPermissions: true}},
		{name: "allow_other unchecked", backing: "data", mountpoint: "empty", opts: Request{AllowOther: true},
			want: "allow_other without default_permissions would give every user root's rights on BACKING; drop nodefault_permissions"},
		{name: "allow_other for a user", backing: "data", mountpoint: "empty", opts: Request{AllowOther: true}, change: asUser,
			want: "option allow_other is not permitted; ask root for a line 'user_allow_other' in DIR/fuse.conf"},
		{name: "allow_other for a user, permitted", backing: "data", mountpoint: "empty", opts: Request{AllowOther: true},
			change: withFuseConf("# a comment\n  user_allow_other  # and one more\n")},
		{name: "allow_other for a user, commented out", backing: "data", mountpoint: "empty", opts: Request{AllowOther: true},
			change: withFuseConf("#user_allow_other\nuser_allow_others\n"),
			want:   "option allow_other is not permitted; ask root for a line 'user_allow_other' in DIR/fuse.conf"},
		{name: "suid for root", backing: "data", mountpoint: "empty", opts: Request{SUID: true, Dev: true}},
		{name: "suid for a user", backing: "data", mountpoint: "empty", opts: Request{SUID: true}, change: asUser,
			want: "option suid needs root; leave it out"},
		{name: "dev for a user", backing: "data", mountpoint: "empty", opts: Request{Dev: true}, change: asUser,
			want: "option dev needs root; leave it out"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := trueTempDir(t)
			for _, name := range []string{"data/sub", "data2", "empty", "full/sub", "a b"} {
				if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			writeFile(t, dir+"/data/f", "")
			writeFile(t, dir+"/full/f", "")
			writeFile(t, dir+"/device", "")
			if err := os.Symlink("data", dir+"/link"); err != nil {
				t.Fatal(err)
			}
			m := machine{TB: t, dir: dir, host: mountHost{
				euid:       0,
				mountTable: mountInfo,
				device:     dir + "/device",
				fuseConf:   dir + "/fuse.conf",
				mayMount:   func() bool { return true },
				lookPath:   func(name string) (string, error) { return "/usr/bin/" + name, nil },
			}}
			if test.change != nil {
				test.change(&m)
			}
			opts := test.opts
			opts.Backing = filepath.Join(dir, test.backing)
			opts.Mountpoint = filepath.Join(dir, test.mountpoint)

			var got string
			if err := m.host.check(&opts); err != nil {
				got = strings.ReplaceAll(err.Error(), dir, "DIR")
			}
			if got != test.want {
				t.Errorf("check:\ngot  %q\nwant %q", got, test.want)
			}
			if strings.Contains(got, "\n") {
				t.Error("the error has more than one line")
			}
		})
	}
}

// TestCheckMountRelative checks the paths that the rest of the package works
// with: absolute, without a symlink, whatever the user typed.
func TestCheckMountRelative(t *testing.T) {
	dir := trueTempDir(t)
	for _, name := range []string{"data/sub", "empty", "elsewhere/deep"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"link": "data/", "to-empty": "elsewhere/deep/../../empty", "deep": "elsewhere/deep"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	host := thisHost()
	host.euid = 0
	host.device = filepath.Join(dir, "device")
	host.mayMount = func() bool { return true }
	host.lookPath = func(string) (string, error) { return "", nil }
	writeFile(t, host.device, "")

	tests := []struct{ backing, mountpoint, wantBacking, wantMountpoint string }{
		{"data", "empty", "data", "empty"},
		{"./data/", "./empty//", "data", "empty"},
		{"link", "to-empty", "data", "empty"},
		{"link/sub", "empty/.", "data/sub", "empty"},
		// The kernel follows the link before the "..".
		{"data", "deep/../deep", "data", "elsewhere/deep"},
		{"deep/..", "empty", "elsewhere", "empty"},
	}
	for _, test := range tests {
		opts := Request{Backing: test.backing, Mountpoint: test.mountpoint}
		if err := host.check(&opts); err != nil {
			t.Errorf("check(%s, %s): %v", test.backing, test.mountpoint, err)
			continue
		}
		if want := filepath.Join(dir, test.wantBacking); opts.Backing != want {
			t.Errorf("backing %q: got %s, want %s", test.backing, opts.Backing, want)
		}
		if want := filepath.Join(dir, test.wantMountpoint); opts.Mountpoint != want {
			t.Errorf("mountpoint %q: got %s, want %s", test.mountpoint, opts.Mountpoint, want)
		}
	}

	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	if err := host.check(&Request{Backing: "data", Mountpoint: "loop"}); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link to itself: got %v, want ELOOP", err)
	}
}

func TestOccupied(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{nil, "already is a mapfs mount"},
		{&os.PathError{Op: "stat", Path: "/m", Err: syscall.EACCES}, "already is a mapfs mount"},
		{&os.PathError{Op: "stat", Path: "/m", Err: syscall.ENOTCONN}, "has a dead mapfs mount; clean it up"},
		{&os.PathError{Op: "stat", Path: "/m", Err: os.ErrDeadlineExceeded}, "has a mapfs mount that does not answer"},
	} {
		if got := occupied("/m", test.err).Error(); !strings.Contains(got, "mountpoint /m "+test.want) {
			t.Errorf("stat gave %v: got %q, want %q in it", test.err, got, test.want)
		}
	}
}

func TestUnmountNotMapfs(t *testing.T) {
	dir := trueTempDir(t)
	for _, path := range []string{dir, dir + "/missing", "/", "/proc"} {
		for _, lazy := range []bool{false, true} {
			if err := Unmount(path, lazy); !errors.Is(err, ErrNotMapfs) {
				t.Errorf("Unmount(%s, %v): got %v, want %v", path, lazy, err, ErrNotMapfs)
			}
		}
		if _, err := FindDaemon(path); !errors.Is(err, ErrNotMapfs) {
			t.Errorf("FindDaemon(%s): got %v, want %v", path, err, ErrNotMapfs)
		}
	}
}

func TestHelperError(t *testing.T) {
	tests := []struct {
		output string
		want   error
	}{
		{"fusermount3: failed to unmount /tmp/m: Device or resource busy\n", syscall.EBUSY},
		{"fusermount3: failed to unmount /tmp/m: Operation not permitted\n", syscall.EPERM},
		{"fusermount3: failed to unmount /a: b: Invalid argument\n", syscall.EINVAL},
	}
	for _, test := range tests {
		if got := helperError(test.output); !errors.Is(got, test.want) {
			t.Errorf("helperError(%q): got %v, want %v", test.output, got, test.want)
		}
	}
	if got, want := helperError("one\ntwo\n").Error(), "one; two"; got != want {
		t.Errorf("other words: got %q, want %q", got, want)
	}
	if got, want := helperError("").Error(), "fusermount3 failed"; got != want {
		t.Errorf("no words: got %q, want %q", got, want)
	}
}

func TestReadMountTable(t *testing.T) {
	name := filepath.Join(t.TempDir(), "mountinfo")
	writeFile(t, name, `21 26 0:20 / /proc rw,relatime - proc proc rw
26 1 254:0 / / rw,relatime - ext4 /dev/vda rw
42 26 0:38 / /mnt/a\040b\134c\011\012 rw shared:1 master:2 - fuse.mapfs /b rw,user_id=1000,group_id=0
43 42 0:39 / /mnt/a\040b\134c\011\012 rw - tmpfs tmpfs rw
`)
	table, err := readMountTable(name)
	if err != nil {
		t.Fatal(err)
	}
	want := mountTable{
		{20, "/proc", "proc", ""},
		{0, "/", "ext4", ""},
		{38, "/mnt/a b\\c\t\n", "fuse.mapfs", "1000"},
		{39, "/mnt/a b\\c\t\n", "tmpfs", ""},
	}
	if !slices.Equal(table, want) {
		t.Errorf("got %+v, want %+v", table, want)
	}
	if entry, ok := table.at(want[3].path); !ok || entry.fstype != "tmpfs" {
		t.Errorf("at a path with two mounts: got %+v, want the later one", entry)
	}
	if entry, ok := table.at("/mnt"); ok {
		t.Errorf("at a path without a mount: got %+v", entry)
	}

	writeFile(t, name, "nonsense\n")
	if _, err := readMountTable(name); err == nil {
		t.Error("a malformed line: got no error")
	}
	if _, err := readMountTable(mountInfo); err != nil {
		t.Errorf("this machine's own: %v", err)
	}
}

// TestHolders builds a small proc(5): processes are directories of links.
func TestHolders(t *testing.T) {
	proc := t.TempDir()
	process := func(pid, comm string, links map[string]string, maps string) {
		dir := filepath.Join(proc, pid)
		if err := os.MkdirAll(filepath.Join(dir, "fd"), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir+"/comm", comm+"\n")
		writeFile(t, dir+"/maps", maps)
		for name, target := range links {
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	process("1", "init", map[string]string{"cwd": "/", "root": "/", "exe": "/sbin/init"}, "")
	process("2", "bash", map[string]string{"cwd": "/mnt/m/a b", "root": "/", "fd/0": "/mnt/m/x"}, "")
	process("3", "at-top", map[string]string{"cwd": "/mnt/m"}, "")
	process("4", "chrooted", map[string]string{"cwd": "/", "root": "/mnt/m/root"}, "")
	process("5", "program", map[string]string{"cwd": "/", "exe": "/mnt/m/bin/program"}, "")
	process("6", "tail", map[string]string{"cwd": "/", "fd/0": "/dev/null", "fd/3": "/mnt/m/log (deleted)"}, "")
	process("7", "mapper", map[string]string{"cwd": "/"},
		"7f00-7f10 r-xp 00000000 fe:00 1    /lib/libc.so\n7f10-7f20 rw-s 00000000 00:26 12   /mnt/m/new\\012line\n")
	process("8", "neighbour", map[string]string{"cwd": "/mnt/m2", "fd/0": "/mnt", "fd/1": "socket:[12]"}, "")
	if err := os.Mkdir(filepath.Join(proc, "sys"), 0o755); err != nil {
		t.Fatal(err)
	}

	got := holdersIn(proc, "/mnt/m")
	slices.SortFunc(got, func(a, b Holder) int { return a.PID - b.PID })
	want := []Holder{
		{2, "bash", "working directory /mnt/m/a b"},
		{3, "at-top", "working directory /mnt/m"},
		{4, "chrooted", "root directory /mnt/m/root"},
		{5, "program", "runs /mnt/m/bin/program"},
		{6, "tail", "open file /mnt/m/log (deleted)"},
		{7, "mapper", "mapped file /mnt/m/new\nline"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got, want := want[0].String(), "bash (pid 2, working directory /mnt/m/a b)"; got != want {
		t.Errorf("String: got %q, want %q", got, want)
	}
	if got, want := (Holder{What: "the mount on /mnt/m/sub"}).String(), "the mount on /mnt/m/sub"; got != want {
		t.Errorf("String: got %q, want %q", got, want)
	}
}

// TestHoldersOfThisProcess runs the scan on the real /proc.
func TestHoldersOfThisProcess(t *testing.T) {
	dir := trueTempDir(t)
	t.Chdir(dir)
	holders := Holders(dir)
	if len(holders) != 1 || holders[0].PID != os.Getpid() || holders[0].What != "working directory "+dir {
		t.Errorf("got %v, want this process alone, by its working directory", holders)
	}
}

func TestServerOf(t *testing.T) {
	proc := t.TempDir()
	process := func(pid, device, fdinfo string) {
		for _, name := range []string{"fd", "fdinfo"} {
			if err := os.MkdirAll(filepath.Join(proc, pid, name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(device, filepath.Join(proc, pid, "fd", "5")); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(proc, pid, "fdinfo", "5"), "pos:\t0\nflags:\t0100002\nmnt_id:\t23\nino:\t89\n"+fdinfo)
	}
	process("10", "/dev/fuse", "fuse_connection:\t38\n")
	process("11", "/dev/fuse", "fuse_connection:\t3\n")
	process("12", "/dev/fuse", "") // as an older kernel
	process("13", "/tmp/forged", "fuse_connection:\t40\n")
	for connection, want := range map[uint32]int{38: 10, 3: 11, 8: 0, 40: 0} {
		if got := serverOf(proc, connection); got != want {
			t.Errorf("connection %d: got process %d, want %d", connection, got, want)
		}
	}
}

func TestWithin(t *testing.T) {
	if err := within(time.Minute, "/", func(string) error { return syscall.EIO }); err != syscall.EIO {
		t.Errorf("an answer: got %v, want %v", err, syscall.EIO)
	}
	stuck := make(chan struct{})
	defer close(stuck)
	err := within(time.Millisecond, "/", func(string) error { <-stuck; return nil })
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("no answer: got %v, want %v", err, os.ErrDeadlineExceeded)
	}
}

// TestDaemonWait watches the end of a process like umount watches a daemon's:
// before its parent has taken notice, and after.
func TestDaemonWait(t *testing.T) {
	for _, reaped := range []bool{false, true} {
		for script, want := range map[string]string{
			"exit 0":           "",
			"exit 3":           "ended with exit code 3",
			"kill -KILL $$":    "was ended by a signal (killed)",
			"sleep 0.3":        "",
			"sleep 0.3; wrong": "ended with exit code 127",
		} {
			cmd := exec.Command("sh", "-c", script)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
			if err != nil {
				t.Fatal(err)
			}
			daemon := &Daemon{PID: cmd.Process.Pid, pidfd: os.NewFile(uintptr(fd), "pidfd")}
			if reaped {
				_ = cmd.Wait() // the script's own failure
			}
			err = daemon.Wait(t.Context())
			switch {
			case reaped && err == nil:
				// A kernel before 6.15 cannot tell.
			case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("%s, reaped %v: got %v, want %q", script, reaped, err, want)
			}
			if !reaped {
				_ = cmd.Wait()
			}
			if err := daemon.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestDaemonWaitCancelled(t *testing.T) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	daemon := &Daemon{PID: os.Getpid(), pidfd: os.NewFile(uintptr(fd), "pidfd")}
	defer daemon.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := daemon.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// machine is what a case of TestCheckMount may change before the check.
type machine struct {
	testing.TB
	host mountHost
	dir  string
}

// asUser makes the caller somebody without privilege.
func asUser(m *machine) { m.host.euid = 1000 }

// mountedAs pretends that a filesystem is mounted on DIR/name.
func mountedAs(fstype, name string) func(*machine) {
	return func(m *machine) {
		m.host.mountTable = m.dir + "/mountinfo"
		escaped := strings.ReplaceAll(m.dir+"/"+name, " ", `\040`)
		writeFile(m, m.host.mountTable, "42 26 0:38 / "+escaped+" rw - "+fstype+" src rw\n")
	}
}

// withFuseConf is asUser on a machine with this fuse.conf.
func withFuseConf(text string) func(*machine) {
	return func(m *machine) {
		asUser(m)
		writeFile(m, m.host.fuseConf, text)
	}
}

func writeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// trueTempDir is TempDir without a symlink in its path.
func trueTempDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
