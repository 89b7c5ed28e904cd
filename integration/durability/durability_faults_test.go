package durability

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// setFault sets a fault and returns its number.
func setFault(t *testing.T, m *harness.Mounted, fault string) string {
	t.Helper()
	return strings.TrimSpace(harness.Run(t, harness.Binary, "ctl", m.Dir, "fault "+fault))
}

// faultHits returns how often a fault has hit.
func faultHits(t *testing.T, m *harness.Mounted, number string) string {
	t.Helper()
	text := harness.Run(t, "cat", m.Path(".mapfs", "faults"))
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, number+" ") {
			_, hits, _ := strings.Cut(strings.TrimSpace(line), "hits=")
			return hits
		}
	}
	t.Fatalf("there is no fault %s in %q", number, text)
	return ""
}

// TestFaultOps has each kind of operation fail, as a shell sees it, and succeed after
// the fault is removed.
func TestFaultOps(t *testing.T) {
	ops := []struct{ op, path, script string }{
		{"read", "d/f", "cat d/f > /dev/null"},
		{"write", "d/f", "echo x | dd of=d/f conv=notrunc status=none"},
		{"open", "d/f", "cat d/f > /dev/null"},
		{"create", "d/new", "touch d/new"},
		{"fsync", "d/f", "echo y | dd of=d/f conv=notrunc,fsync status=none"},
		{"fsync", "d", "sync d"},
		{"fdatasync", "d/f", "echo y | dd of=d/f conv=notrunc,fdatasync status=none"},
		{"msync", "d/f", "echo msync > .mapfs/files/d/f/ctl"},
		{"truncate", "d/f", "truncate -s 2 d/f"},
		{"truncate", "d/f", ": > d/f"},
		{"fallocate", "d/f", "fallocate -l 10 d/f"},
		{"rename", "d/f", "mv -T d/f d/moved"},
		{"rename", "d/f", "mv -T d/moved d/f"},
		{"link", "d/other", "ln d/f d/other"},
		{"unlink", "d/other", "rm d/other"},
		{"mkdir", "d/sub", "mkdir d/sub"},
		{"any", "d/f", "cat d/f > /dev/null"},
	}
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir, "attr_timeout=0", "entry_timeout=0")
		harness.InDir(t, m.Dir, "mkdir d; echo hello > d/f")
		for _, c := range ops {
			script := func() (string, error) {
				out, err := exec.Command("timeout", "60", "bash", "-c", "cd "+m.Dir+" && "+c.script).CombinedOutput()
				return string(out), err
			}
			wrong := setFault(t, m, fmt.Sprintf("op=%s path=%s errno=EIO", c.op, "*/elsewhere"))
			number := setFault(t, m, fmt.Sprintf("op=%s path=%s errno=EDQUOT", c.op, c.path))
			if out, err := script(); err == nil || !strings.Contains(out, "quota exceeded") {
				t.Errorf("%s: %q gave %q, %v", c.op, c.script, out, err)
			}
			if hits := faultHits(t, m, number); hits == "0" {
				t.Errorf("%s: %q is no hit", c.op, c.script)
			}
			harness.Run(t, harness.Binary, "ctl", m.Dir, "fault remove="+number)
			if out, err := script(); err != nil {
				t.Errorf("%s: %q without the fault gave %q, %v", c.op, c.script, out, err)
			}
			if hits := faultHits(t, m, wrong); hits != "0" {
				t.Errorf("%s: a fault of another path has %s hits", c.op, hits)
			}
		}
	})
}

// TestFaultStore: a store of a client's mapping fails when it arrives, and the client's
// msync says so, whichever of the two is asked for.
func TestFaultStore(t *testing.T) {
	m := harness.Mount(t, harness.Ext4Dir(t))
	harness.MakeFile(t, m.Path("f"), "hello")
	for _, op := range []string{"store", "msync", "fdatasync"} {
		number := setFault(t, m, "op="+op+" path=f nth=1 errno=EIO")
		p := harness.StartClient(t, "mmap", m.Path("f"), "shared", "4096")
		p.Hear("mapped")
		p.Ask("store 0 HELLO")
		if answer := p.Ask("msync sync"); !strings.Contains(answer, "EIO") {
			t.Errorf("op=%s: the first msync answers %q", op, answer)
		}
		p.Ask("store 0 hello")
		if answer := p.Ask("msync sync"); answer != "ok" {
			t.Errorf("op=%s: the second msync answers %q", op, answer)
		}
		p.Kill()
		if hits := faultHits(t, m, number); hits != "1" {
			t.Errorf("op=%s has %s hits", op, hits)
		}
	}
}

// TestFaultShortAndSlow: fewer bytes, and later.
func TestFaultShortAndSlow(t *testing.T) {
	dir := harness.Ext4Dir(t)
	harness.MakeFile(t, filepath.Join(dir, "unread"), "hello")
	m := harness.Mount(t, dir)
	harness.MakeFile(t, m.Path("f"), "hello")
	p := harness.StartClient(t, "fd", m.Path("f"), "rw")
	p.Hear("open")
	write := setFault(t, m, "op=write path=f short=3 count=1")
	if got := p.Ask("pwrite 0 HELLO"); got != "3" {
		t.Errorf("a short write returns %s", got)
	}
	harness.Expect(t, harness.Run(t, "cat", m.Path("f")), "HELlo", "after a short write")
	read := setFault(t, m, "op=read path=unread short=2 count=1")
	harness.Expect(t, harness.Run(t, "cat", m.Path("unread")), "he", "a short read")
	harness.Expect(t, harness.Run(t, "cat", m.Path("unread")), "hello", "the next read")
	for _, number := range []string{write, read} {
		if hits := faultHits(t, m, number); hits != "1" {
			t.Errorf("fault %s has %s hits", number, hits)
		}
	}
	setFault(t, m, "op=fsync path=f delay=300ms count=1")
	start := time.Now()
	p.Ask("fsync")
	if took := time.Since(start); took < 300*time.Millisecond {
		t.Errorf("an fsync that is delayed by 300ms took %v", took)
	}
}

// TestFaultThen: what a failed write-back leaves. The second fsync always succeeds; what
// the file has in memory then, and what BACKING has, is up to the filesystem.
func TestFaultThen(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir, "mode=staged")
		for then, want := range map[string]struct{ memory, device string }{
			"keep":   {"new", "new"},
			"clean":  {"new", "old"},
			"revert": {"old", "old"},
		} {
			file := m.Path(then)
			harness.MakeFile(t, file, "old")
			harness.Run(t, "sync", file)
			number := setFault(t, m, "op=fsync path="+then+" nth=1 errno=EIO then="+then)
			p := harness.StartClient(t, "fd", file, "rw")
			p.Hear("open")
			p.Ask("pwrite 0 new")
			if got := p.Ask("fsync"); !strings.Contains(got, "EIO") {
				t.Errorf("%s: the first fsync answers %q", then, got)
			}
			if got := p.Ask("fsync"); got != "ok" {
				t.Errorf("%s: the second fsync answers %q", then, got)
			}
			harness.Expect(t, harness.Run(t, "cat", m.Path(".mapfs", "files", then, "unsynced")), "", then+": unsynced")
			time.Sleep(50 * time.Millisecond) // the kernel is told of a revert just after
			harness.Expect(t, harness.Run(t, "cat", file), want.memory, then+": in memory")
			device, err := os.ReadFile(filepath.Join(dir, then))
			if err != nil || string(device) != want.device {
				t.Errorf("%s: BACKING has %q, %v; want %q", then, device, err, want.device)
			}
			p.Kill()
			if hits := faultHits(t, m, number); hits != "1" {
				t.Errorf("%s has %s hits", then, hits)
			}
		}
	})
}

// TestFaultSQLite: the third sync of a log fails, and just that; SQLite says so, and what
// it has committed before and after is there when the daemon is killed.
func TestFaultSQLite(t *testing.T) {
	need.Tool(t, "sqlite3")
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir, "mode=staged")
		db := m.Path("a.db")
		sql := func(script string) (string, error) {
			return harness.RunErr("sqlite3", db, "PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=FULL; "+script)
		}
		if _, err := sql("PRAGMA journal_mode=WAL; CREATE TABLE t(i);"); err != nil {
			t.Fatal(err)
		}
		keep := harness.StartProc(t, exec.Command("sqlite3", db)) // else the log goes with the last connection
		defer keep.Kill()
		keep.Say("SELECT count(*) FROM t;")
		keep.Hear("0")
		number := setFault(t, m, `op=fdatasync path="*-wal" nth=3 errno=EIO`)
		var committed []string
		for i := range 6 {
			_, err := sql(fmt.Sprintf("INSERT INTO t VALUES(%d);", i))
			switch {
			case err == nil:
				committed = append(committed, fmt.Sprint(i))
			case !strings.Contains(err.Error(), "disk I/O error"):
				t.Errorf("commit %d: %v", i, err)
			}
		}
		if hits := faultHits(t, m, number); hits != "1" || len(committed) != 5 {
			t.Errorf("%s hits, and %d of 6 commits succeeded; want 1 and 5", hits, len(committed))
		}
		m.Kill()
		got := strings.Fields(harness.Run(t, "sqlite3", filepath.Join(dir, "a.db"), "SELECT i FROM t ORDER BY i;"))
		if strings.Join(got, " ") != strings.Join(committed, " ") {
			t.Errorf("after the kill there is %v, and %v were committed", got, committed)
		}
	})
}
