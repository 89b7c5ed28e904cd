package posix

import (
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// TestPassthroughStores: what a client stores to its mapping is there for all at once,
// without msync: for another client's mapping, for read(2), and in BACKING.
func TestPassthroughStores(t *testing.T) {
	need.Root(t)
	harness.EachFS(t, func(t *testing.T, top string) {
		dir := harness.SubDir(t, top, "data")
		m := harness.Mount(t, dir, "passthrough")
		harness.InDir(t, m.Dir, "truncate -s 16384 f")
		one := harness.StartClient(t, "mmap", m.Path("f"), "shared", "16384")
		one.Hear("mapped")
		two := harness.StartClient(t, "mmap", m.Path("f"), "shared", "16384")
		two.Hear("mapped")
		harness.Expect(t, one.Ask("store 5000 hello"), "5", "store")
		harness.Expect(t, two.Ask("load 5000 5"), `"hello"`, "the other client's mapping")
		for _, where := range []string{m.Dir, dir} {
			harness.Expect(t, harness.InDir(t, where, "dd if=f bs=1 skip=5000 count=5 status=none"), "hello", "read(2) in "+where)
		}
		harness.InDir(t, dir, "printf world | dd of=f bs=1 seek=5000 conv=notrunc status=none")
		harness.Expect(t, two.Ask("load 5000 5"), `"world"`, "a write to BACKING")
		harness.Expect(t, harness.InDir(t, m.Dir, "sed -n 's/^passthrough //p' .mapfs/status"), "on\n", "the status")
	})
}

// TestPassthroughUnsynced: what is unsynced is what the kernel calls dirty, and nobody
// guesses why.
func TestPassthroughUnsynced(t *testing.T) {
	need.Root(t)
	dir := harness.SubDir(t, harness.Ext4Dir(t), "data")
	m := harness.Mount(t, dir, "passthrough")
	out := harness.InDir(t, m.Dir, `exec 3>f; printf %8192s x >&3; cat .mapfs/files/f/unsynced; sync f; cat .mapfs/files/f/unsynced | wc -c
		printf y >&3; sed -n 's/^unsynced_bytes //p' .mapfs/status; sync f; sed -n 's/^unsynced_bytes //p' .mapfs/status; exec 3>&-`)
	harness.Expect(t, out, "0 8192 unknown\n0\n1\n0\n", "unsynced, before and after a sync")
	out = harness.InDir(t, m.Dir, "echo z >>f; timeout 0.3 cat .mapfs/events | cut -d' ' -f3 | tail -n 2")
	harness.Expect(t, out, "open\nclose\n", "events of what the kernel writes by itself")
}

// TestPassthroughSetID: no write by a user leaves a set-id bit behind, though the kernel
// writes with the daemon's rights.
func TestPassthroughSetID(t *testing.T) {
	need.Root(t)
	harness.EachFS(t, func(t *testing.T, top string) {
		m := harness.Mount(t, harness.SubDir(t, top, "data"), "passthrough", "allow_other")
		harness.InDir(t, m.Dir, "echo data >f; chmod 6777 f")
		harness.Run(t, "setpriv", "--reuid=12341", "--regid=22341", "--clear-groups", "sh", "-c", "echo more >>"+m.Path("f"))
		harness.Expect(t, harness.InDir(t, m.Dir, "stat -c %a f"), "777\n", "mode after a user's write")

		// Root may set the bits while it writes itself, as cp -p does.
		harness.Expect(t, harness.InDir(t, m.Dir, "exec 3>g; echo x >&3; chmod 4755 g; stat -c %a g; exec 3>&-"), "4755\n", "mode set by who writes")

		harness.InDir(t, m.Dir, "echo data >h; chmod 666 h")
		holder := harness.As(exec.Command("sh", "-c", "exec 3>>"+m.Path("h")+"; echo open; read _"), 12341, 22341)
		in, err := holder.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		said, err := holder.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := said.Read(make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if _, err := harness.RunErr("chmod", "u+s", m.Path("h")); err == nil || !strings.Contains(err.Error(), "busy") {
			t.Errorf("chmod u+s of what a user can write to: %v, want it busy", err)
		}
		in.Close()
		if err := holder.Wait(); err != nil {
			var exit interface{ ExitCode() int }
			if !errors.As(err, &exit) {
				t.Fatal(err)
			}
		}
		// The close has returned, and the daemon may hear of it only now.
		harness.Expect(t, harness.InDir(t, m.Dir, "chmod u+s h; stat -c %a h"), "4666\n", "mode after the user's close")
	})
}

// TestPassthroughCannot: on a filesystem that lies over another one the daemon serves the
// files, and says so.
func TestPassthroughCannot(t *testing.T) {
	need.Root(t)
	top := harness.TmpfsDir(t)
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		harness.SubDir(t, top, name)
	}
	harness.Run(t, "mount", "-t", "overlay", "overlay", "-o", "lowerdir="+top+"/lower,upperdir="+top+"/upper,workdir="+top+"/work", top+"/merged")
	t.Cleanup(func() {
		if err := unix.Unmount(top+"/merged", unix.MNT_DETACH); err != nil && err != syscall.EINVAL {
			t.Error(err)
		}
	})
	m := harness.Mount(t, harness.SubDir(t, top+"/merged", "data"), "passthrough")
	out := harness.InDir(t, m.Dir, "echo data >f; cat f; sed -n 's/^passthrough //p' .mapfs/status; grep -c '^writes 1' .mapfs/files/f/status")
	harness.Expect(t, out, "data\nthe filesystem of BACKING lies over another one itself\n1\n", "files of an overlay")
	m.Unmount()
}
