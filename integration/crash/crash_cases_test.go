package crash

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// TestCrashMappings cuts the power while clients hold mappings and locks.
func TestCrashMappings(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir, "history")
		harness.InDir(t, m.Dir, "printf 0123456789 > f; printf x > other; sync f other .")
		mapped := harness.StartClient(t, "mmap", m.Path("f"), "shared", "10")
		mapped.Hear("mapped")
		open := harness.StartClient(t, "fd", m.Path("f"), "rw")
		open.Hear("open")
		harness.Expect(t, open.Ask("flock ex"), "ok", "a lock")
		harness.Expect(t, mapped.Ask("store 2 AB"), "2", "a store")
		_, what, _ := strings.Cut(strings.TrimSpace(pending(t, m)), " ")
		harness.Expect(t, what, "store f 0 10 needs fsync f", "pending has what the kernel had of the mapping")
		harness.Expect(t, harness.Run(t, "cat", m.Path(".mapfs", "durable", "f")), "0123456789", "durable")
		// What is stored now arrives with the sync of another file.
		harness.Expect(t, mapped.Ask("store 4 C"), "1", "a store")
		harness.InDir(t, m.Dir, "printf y > other; sync other")
		text := harness.Run(t, "cat", m.Path(".mapfs", "pending"))
		if n := strings.Count(text, "store f"); n != 2 {
			t.Errorf("%d stores are pending after the sync of another file, want 2:\n%s", n, text)
		}
		harness.Expect(t, mapped.Ask("store 6 D"), "1", "a store that the kernel keeps")
		answer := powercut(t, m, "")
		if !strings.Contains(answer, "3 of 3 pending operations lost") {
			t.Errorf("the answer is %q", answer)
		}
		harness.Expect(t, harness.Run(t, "cat", m.Path("f")), "0123456789", "f after the cut")
		for _, ask := range []string{"pread 0 4", "pwrite 0 x", "fsync", "size", "truncate 0"} {
			harness.Expect(t, open.Ask("%s", ask), "error: EIO", ask+" of what was open")
		}
		mapped.Say("load 0 4")
		if err := mapped.WaitErr(); err == nil || !strings.Contains(err.Error(), "bus error") && !strings.Contains(err.Error(), "exit status 2") {
			t.Errorf("a load from the mapping after the cut: %v", err)
		}
		// Who opens it now has nothing of that.
		fresh := harness.StartClient(t, "fd", m.Path("f"), "rw")
		fresh.Hear("open")
		harness.Expect(t, fresh.Ask("pread 0 10"), `"0123456789"`, "a new read")
		harness.Expect(t, fresh.Ask("pwrite 0 new"), "3", "a new write")
		harness.Expect(t, fresh.Ask("fsync"), "ok", "a new sync")
		open.Wait()
		fresh.Wait()
		m.Unmount()
		harness.Expect(t, harness.Run(t, "cat", filepath.Join(dir, "f")), "new3456789", "BACKING")
	})
}

// TestCrashOpenWithoutName has files that are open and have no name any more, and a file
// that is renamed over while it is open.
func TestCrashOpenWithoutName(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir, "history")
		harness.InDir(t, m.Dir, "printf old > f; sync f .")
		over := harness.StartClient(t, "fd", m.Path("f"), "rw")
		over.Hear("open")
		temp := harness.StartClient(t, "fd", m.Path("temp"), "creat|rw")
		temp.Hear("open")
		harness.Expect(t, temp.Ask("write hello"), "5", "write")
		harness.InDir(t, m.Dir, "rm temp; printf new > t; sync t; mv t f")
		harness.Expect(t, harness.InDir(t, m.Dir, "ls"), "f\n", "the names")
		harness.Expect(t, over.Ask("pread 0 9"), `"old"`, "what was renamed over")
		harness.Expect(t, over.Ask("pwrite 3 er"), "2", "a write to it")
		harness.Expect(t, temp.Ask("pread 0 9"), `"hello"`, "what was removed")
		harness.InDir(t, m.Dir, "sync .")
		// Now nothing can bring the two back, and nothing of them is pending.
		harness.Expect(t, pending(t, m), "", "pending")
		if _, err := os.Lstat(filepath.Join(dir, ".mapfs")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the stash is still there: %v", err)
		}
		harness.Expect(t, over.Ask("pread 0 9"), `"older"`, "what was renamed over, and synced")
		harness.Expect(t, temp.Ask("pwrite 5 .."), "2", "a write to what was removed")
		harness.Expect(t, temp.Ask("fsync"), "ok", "a sync of it")
		harness.Expect(t, temp.Ask("pread 0 9"), `"hello.."`, "what was removed")
		harness.Expect(t, pending(t, m), "", "pending")
		over.Wait()
		temp.Wait()
		m.Unmount()
		harness.Expect(t, harness.InDir(t, dir, "ls -A | grep -v lost+found; cat f"), "f\nnew", "BACKING")
	})
}

// TestCrashKilled kills the daemon: BACKING has the durable bytes and the names of the
// moment, and the next mount clears up.
func TestCrashKilled(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir, "history")
		harness.InDir(t, m.Dir, "printf old > f; printf x > gone; sync f gone .; printf new > f; printf t > t; rm gone")
		m.Kill()
		harness.Expect(t, harness.InDir(t, dir, "cat f; echo; ls | grep -v lost+found; ls .mapfs"), "old\nf\nt\nremoved-1\n", "BACKING")
		m = harness.Mount(t, dir) // whatever its options
		harness.Expect(t, harness.InDir(t, m.Dir, "cat f; ls -A | grep -v lost+found"), "oldf\nt\n", "the next mount")
		if log := m.Logged(); !strings.Contains(log, "removed what clients of an earlier mount had removed") {
			t.Errorf("the log does not tell of it: %s", log)
		}
		m.Unmount()
		if _, err := os.Lstat(filepath.Join(dir, ".mapfs")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the stash is left: %v", err)
		}
		// What only looks like it is somebody's.
		harness.InDir(t, dir, "mkdir .mapfs; echo > .mapfs/removed-1; echo > .mapfs/mine")
		_, err := harness.RunErr(harness.Binary, "-f", dir, harness.TempDir(t))
		if err == nil || !strings.Contains(err.Error(), "which is the control tree's name") {
			t.Errorf("a mount over somebody's directory: %v", err)
		}
		harness.Expect(t, harness.InDir(t, dir, "ls .mapfs; rm -r .mapfs"), "mine\nremoved-1\n", "somebody's directory")
	})
}

// TestCrashFullDirectory fills the directory for the history: the writer gets ENOSPC, and
// nothing is lost.
func TestCrashFullDirectory(t *testing.T) {
	harness.RequireFUSE(t)
	small := harness.TempDir(t)
	harness.MountFor(t, small, "-t", "tmpfs", "-o", "size=4m", "tmpfs", small)
	dir := harness.Ext4Dir(t)
	m := harness.Mount(t, dir, "history", "history_dir="+small, "history_memory=1M")
	out := harness.InDir(t, m.Dir, "! dd if=/dev/zero of=f bs=64k count=1000 2>&1; stat -c %s f")
	if !strings.Contains(out, "No space left on device") {
		t.Fatalf("dd says %q", out)
	}
	size := strings.TrimSpace(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])
	if size < "1" || size == "65536000" {
		t.Fatalf("f has %s bytes", size)
	}
	harness.InDir(t, m.Dir, "sync f .")
	harness.Expect(t, pending(t, m), "", "pending after a sync")
	harness.InDir(t, m.Dir, "printf more > g; sync g .")
	powercut(t, m, "")
	harness.Expect(t, harness.InDir(t, m.Dir, "stat -c %s f; cat g"), size+"\nmore", "after a power cut")
}

// TestCrashMany has many pending operations.
func TestCrashMany(t *testing.T) {
	files, writes := lessIfSlow(5_000), lessIfSlow(90_000)
	dir := harness.Ext4Dir(t)
	m := harness.Mount(t, dir, "history", "history_memory=1M")
	if _, err := harness.RunCmd(harness.ClientCmd("many", m.Dir, fmt.Sprint(files), fmt.Sprint(writes)), 5*time.Minute); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	text := harness.Run(t, "cat", m.Path(".mapfs", "pending"))
	if n := strings.Count(text, "\n"); n != 2*files+writes+1 {
		t.Errorf("%d operations are pending, want %d", n, 2*files+writes+1)
	}
	listed := time.Since(begin)
	begin = time.Now()
	harness.RunFor(t, time.Minute, "sh", "-c", `echo powercut > "$0"/.mapfs/ctl`, m.Dir)
	cut := time.Since(begin)
	if left, err := os.ReadDir(m.Dir); err != nil || len(left) > 1 {
		t.Errorf("%d entries are left, %v", len(left), err)
	}
	if most := 20 * time.Second; listed > most || cut > most {
		t.Errorf("the list took %v, the power cut %v", listed, cut)
	}
	t.Logf("the list took %v, the power cut %v", listed, cut)
}

func init() {
	harness.AddVerb("many", func(args []string) error {
		for i := range harness.Atoi64(args[1]) {
			if err := os.WriteFile(fmt.Sprintf("%s/%d", args[0], i), []byte("x"), 0o600); err != nil {
				return err
			}
		}
		f, err := os.Create(args[0] + "/f")
		if err != nil {
			return err
		}
		defer f.Close()
		for i := range harness.Atoi64(args[2]) {
			if _, err := f.WriteAt([]byte("0123456789"), i*16); err != nil {
				return err
			}
		}
		return nil
	})
	harness.AddVerb("durablereader", durableReader)
}

// TestCrashFaults cuts the power at an operation, and has syncs fail.
func TestCrashFaults(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir, "history")
		harness.InDir(t, m.Dir, "printf old > f; sync f .")
		fault := func(text string) string {
			return strings.TrimSpace(harness.Run(t, harness.Binary, "ctl", m.Dir, "fault "+text))
		}
		fault("op=fsync path=t nth=1 powercut=before")
		out := harness.InDir(t, m.Dir, "printf new > t; ! sync t 2>&1; ls; cat f")
		if !strings.Contains(out, "Input/output error") || !strings.HasSuffix(out, "f\nold") {
			t.Errorf("a power cut before an fsync: %q", out)
		}
		fault("op=fsync path=t nth=1 powercut=after")
		harness.InDir(t, m.Dir, "printf new > t; sync .; sync t || true")
		harness.Expect(t, harness.InDir(t, m.Dir, "cat t"), "new", "t after a power cut after its fsync")
		number := fault("op=rename path=t powercut=after")
		harness.InDir(t, m.Dir, "mv t f")
		harness.Expect(t, harness.InDir(t, m.Dir, "cat f t"), "oldnew", "after a power cut after a rename")
		harness.Run(t, harness.Binary, "ctl", m.Dir, "fault remove="+number)

		// A sync that fails leaves pending what was pending, and only that which is
		// written later is durable.
		for then, after := range map[string]string{"keep": "", "clean": "write f 0 3 needs fsync f", "revert": ""} {
			harness.InDir(t, m.Dir, "printf old > f; sync f .")
			fault("op=fsync path=f nth=1 errno=EIO then=" + then)
			harness.InDir(t, m.Dir, "printf NEW | dd of=f conv=notrunc status=none; ! sync f 2>/dev/null; sync f")
			_, what, _ := strings.Cut(strings.TrimSpace(pending(t, m)), " ")
			harness.Expect(t, what, after, "pending after a sync that failed and one that did not, then="+then)
			want := "old"
			if then == "keep" {
				want = "NEW"
			}
			harness.Expect(t, harness.Run(t, "cat", m.Path(".mapfs", "durable", "f")), want, "durable, then="+then)
			powercut(t, m, "")
			harness.Expect(t, harness.Run(t, "cat", m.Path("f")), want, "f after a power cut, then="+then)
		}
	})
}

// TestCrashRanges makes parts of a file durable, or gives them up.
func TestCrashRanges(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir, "history")
		fill := func(c string) {
			harness.InDir(t, m.Dir, "head -c 12288 /dev/zero | tr '\\0' "+c+" | dd of=f conv=notrunc bs=12288 status=none")
		}
		ctl := func(command string) { harness.Run(t, harness.Binary, "ctl", m.Path("f"), command) }
		runs := func(file string) string {
			return harness.InDir(t, m.Dir, `fold -w 4096 "`+file+`" | cut -c 1 | tr -d '\n'`)
		}
		fill("a")
		harness.InDir(t, m.Dir, "sync f .")
		fill("b")
		ctl("msync offset=4096 length=4096")
		harness.Expect(t, runs(".mapfs/durable/f"), "aba", "durable")
		harness.Expect(t, runs(".mapfs/files/f/durable"), "aba", "durable of the file")
		ctl("msync offset=8192 flags=async")
		ctl("msync offset=0 length=4096 flags=invalidate")
		harness.Expect(t, runs("f"), "abb", "the file")
		harness.Expect(t, harness.Run(t, "cat", m.Path(".mapfs", "files", "f", "unsynced")), "8192 4096 write\n", "unsynced")
		_, what, _ := strings.Cut(strings.TrimSpace(pending(t, m)), " ")
		harness.Expect(t, what, "write f 8192 4096 needs fsync f", "pending")
		powercut(t, m, "")
		harness.Expect(t, runs("f"), "aba", "the file after a power cut")
		fill("c")
		ctl("msync flags=invalidate")
		harness.Expect(t, runs("f"), "aba", "the file when all is given up")
		harness.Expect(t, pending(t, m), "", "pending when all is given up")
	})
}

// TestCrashUnsynced compares what unsynced and pages say with what is durable: a byte that
// differs is in a range, and where there is no range nothing differs.
func TestCrashUnsynced(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir, "history")
		harness.InDir(t, m.Dir, "head -c 40960 /dev/zero | tr '\\0' a > f; sync f .")
		for i, script := range []string{
			"printf xyz | dd of=f bs=1 seek=5000 conv=notrunc status=none",
			"printf xyz | dd of=f bs=1 seek=20000 conv=notrunc status=none; echo 'msync offset=4096 length=4096' > .mapfs/files/f/ctl",
			"truncate -s 30000 f", "truncate -s 50000 f", "sync f", "printf end >> f", "sync f", "printf x > f", "sync f",
		} {
			harness.InDir(t, m.Dir, script)
			now, err := os.ReadFile(m.Path("f"))
			if err != nil {
				t.Fatal(err)
			}
			durable, err := os.ReadFile(m.Path(".mapfs", "files", "f", "durable"))
			if err != nil {
				t.Fatal(err)
			}
			unsynced := make([]bool, len(now))
			for line := range strings.Lines(harness.Run(t, "cat", m.Path(".mapfs", "files", "f", "unsynced"))) {
				var off, length int
				if _, err := fmt.Sscan(line, &off, &length); err != nil {
					t.Fatal(err)
				}
				for at := off; at < off+length; at++ {
					unsynced[at] = true
				}
			}
			some := bytes.Contains(bytesOf(unsynced), []byte{1})
			for at, c := range now {
				// A new size shows at the last page; what it adds is zero.
				if was := byteAt(durable, at); !unsynced[at] && was != c {
					t.Errorf("script %d: byte %d differs from what is durable and is not unsynced", i, at)
					break
				}
			}
			if same := bytes.Equal(now, durable); same == some {
				t.Errorf("script %d: %d bytes, %d durable, same %v, unsynced %v", i, len(now), len(durable), same, some)
			}
			pages := harness.Run(t, "cat", m.Path(".mapfs", "files", "f", "pages"))
			if strings.Contains(pages, "U") != some {
				t.Errorf("script %d: pages are\n%s and nothing is unsynced", i, pages)
			}
			if (pending(t, m) != "") != some {
				t.Errorf("script %d: pending is %q, unsynced %v", i, pending(t, m), some)
			}
		}
	})
}

// byteAt returns a byte, and zero past the end.
func byteAt(p []byte, at int) byte {
	if at < len(p) {
		return p[at]
	}
	return 0
}

func bytesOf(flags []bool) []byte {
	b := make([]byte, len(flags))
	for i, f := range flags {
		if f {
			b[i] = 1
		}
	}
	return b
}

// TestCrashDurableReaders reads durable while the mount changes: every file there is as it
// was at some sync.
func TestCrashDurableReaders(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir, "history")
		harness.InDir(t, m.Dir, "mkdir d; head -c 8192 /dev/zero | tr '\\0' a > d/f; sync d/f d .")
		stop := make(chan struct{})
		var rounds atomic.Int64
		var wait sync.WaitGroup
		wait.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				c := string(rune('a' + i%26))
				harness.RunErr("sh", "-ec", `cd "$0"; head -c 8192 /dev/zero | tr '\0' `+c+` > d/t; sync d/t; mv d/t d/f; mkdir e; rmdir e; sync d`, m.Dir)
				rounds.Add(1)
			}
		})
		reader := harness.StartClient(t, "durablereader", m.Path(".mapfs", "durable"))
		reader.Hear("mapped")
		time.Sleep(1500 * time.Millisecond)
		close(stop)
		wait.Wait()
		reader.Wait()
		if rounds.Load() < 3 {
			t.Errorf("only %d rounds", rounds.Load())
		}
		harness.InDir(t, m.Dir, "sync .; diff -r --exclude=.mapfs . .mapfs/durable")
	})
}

// durableReader reads d/f again and again until its input ends.
func durableReader(args []string) error {
	name := args[0] + "/d/f"
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(int(file.Fd()), 0, 8192, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	fmt.Println("mapped")
	if mem[0] == 0 {
		return errors.New("the mapping is empty")
	}
	ended := make(chan struct{})
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		close(ended)
	}()
	for {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if len(data) != 8192 || bytes.Count(data, data[:1]) != 8192 {
			return fmt.Errorf("%d bytes, %d of them %q", len(data), bytes.Count(data, data[:1]), data[:1])
		}
		if _, err := os.ReadDir(args[0]); err != nil {
			return err
		}
		select {
		case <-ended:
			_, err := os.OpenFile(name, os.O_RDWR, 0)
			if !errors.Is(err, syscall.EROFS) {
				return fmt.Errorf("open for writing: %w", err)
			}
			return nil
		default:
		}
	}
}

// TestCrashRun runs scripts, a right one and a wrong one.
func TestCrashRun(t *testing.T) {
	harness.RequireFUSE(t)
	backing, scripts := harness.Ext4Dir(t), harness.TempDir(t)
	harness.MakeFile(t, filepath.Join(scripts, "wrong"), "printf new > t\nmv t f\n")
	harness.MakeFile(t, filepath.Join(scripts, "right"), "printf new > t\nsync t\nmv t f\nsync .\n")
	for _, c := range []struct {
		args []string
		code int
		out  string // in what it says
	}{
		{[]string{"--fail-pending", backing, "--", "sh", filepath.Join(scripts, "wrong")}, 3, "rename t f needs fsync ."},
		{[]string{"--fail-pending", backing, "--", "sh", filepath.Join(scripts, "right")}, 0, ""},
		{[]string{"--fail-pending", "-o", "history=ext4", backing, "--", "sh", "-c", "printf x > t; sync t"}, 0, ""},
		{[]string{backing, "--", "sh", filepath.Join(scripts, "wrong")}, 0, ""},
		{[]string{backing, "--", "sh", "-c", `test "$MAPFS_DIR" = "$PWD" && exit 7`}, 7, ""},
		{[]string{"--fail-pending", backing, "--", "sh", "-c", "echo > t; exit 5"}, 5, ""},
		{[]string{backing, "--", "sh", "-c", "kill -TERM $$"}, 143, ""},
		{[]string{backing, "--", "no-such-program"}, 127, "no-such-program"},
		{[]string{"--fail-pending", "-o", "writeback", backing, "--", "true"}, 2, "excludes writeback"},
		{[]string{backing, "true"}, 2, "COMMAND after --"},
		{[]string{backing, "--"}, 2, "name the COMMAND"},
		{[]string{"/nonexistent", "--", "true"}, 1, "/nonexistent"},
	} {
		_, err := harness.RunErr(harness.Binary, append([]string{"run"}, c.args...)...)
		said := ""
		if err != nil {
			said = err.Error()
		}
		if code := harness.ExitCode(err); code != c.code || !strings.Contains(said, c.out) {
			t.Errorf("run %q: exit code %d, want %d: %s", c.args, code, c.code, said)
		}
	}
	harness.Expect(t, harness.InDir(t, backing, "cat f"), "new", "BACKING")
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "mapfs-run-*")); err != nil || len(left) > 0 {
		t.Errorf("directories are left: %v, %v", left, err)
	}
}

// TestCrashPendingVerb checks what the verb prints.
func TestCrashPendingVerb(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir, "history")
		harness.InDir(t, m.Dir, "printf x > 'a, b'; mkdir d; sync .; printf y > d/f; mv d/f g; chmod 600 g; ln 'a, b' d/l")
		var ops []struct {
			Number                      uint64
			Operation, Path, To, Detail string
			Offset, Length              *int64
			PID                         int64
			Needs                       []string
		}
		text := harness.Run(t, harness.Binary, "pending", "--json", m.Dir)
		if err := json.Unmarshal([]byte(text), &ops); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		var got []string
		for _, op := range ops {
			line := fmt.Sprintf("%s %q %q %q %q", op.Operation, op.Path, op.To, op.Detail, op.Needs)
			if op.Offset != nil && op.Length != nil {
				line += fmt.Sprintf(" %d+%d pid %v", *op.Offset, *op.Length, op.PID > 0)
			}
			got = append(got, line)
		}
		harness.Expect(t, strings.Join(got, "\n"), `write "a, b" "" "" ["a, b"] 0+1 pid true
create "d/f" "" "" ["d"]
write "d/f" "" "" ["d/f"] 0+1 pid true
rename "d/f" "g" "" ["d" "."]
chmod "g" "" "0600" ["g"]
link "d/l" "" "" ["d"]`, "pending --json")
		harness.Expect(t, harness.Run(t, "sh", "-c", `"$1" pending "$2" | wc -l`, "sh", harness.Binary, m.Path("g")), "2\n", "operations of g")
		_, err := harness.RunErr(harness.Binary, "pending", "--fail", m.Path("d", "l"))
		if harness.ExitCode(err) != 3 || !strings.Contains(err.Error(), "1 operation is pending") {
			t.Errorf("--fail: %v", err)
		}
		harness.InDir(t, m.Dir, "sync g d . 'a, b'")
		harness.Expect(t, harness.Run(t, harness.Binary, "pending", "--fail", m.Dir), "", "nothing")
		harness.Expect(t, harness.Run(t, harness.Binary, "pending", "--json", m.Dir), "[]\n", "nothing, as JSON")
	})
}

// TestCrashOtherFilesystem has another filesystem mounted in BACKING: it can be read and not
// changed.
func TestCrashOtherFilesystem(t *testing.T) {
	dir := harness.Ext4Dir(t)
	inner := harness.SubDir(t, dir, "inner")
	harness.MountFor(t, inner, "-t", "tmpfs", "-o", "size=4m", "tmpfs", inner)
	harness.MakeFile(t, filepath.Join(inner, "f"), "hello")
	m := harness.Mount(t, dir, "history")
	harness.Expect(t, harness.Run(t, "cat", m.Path("inner", "f")), "hello", "a file there")
	for _, script := range []string{"echo > inner/f", "echo > inner/g", "rm inner/f", "mkdir inner/d", "chmod 600 inner/f", "mv inner/f inner/g"} {
		_, err := harness.RunErr("sh", "-ec", `cd "$0"; `+script, m.Dir)
		if err == nil || !strings.Contains(err.Error(), "Read-only file system") {
			t.Errorf("%s: %v", script, err)
		}
	}
	harness.Expect(t, pending(t, m), "", "pending")
	m.Unmount()
}
