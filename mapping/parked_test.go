package mapping

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/mapping/dirty"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// reopen opens a file of the table again, as a client would that comes later.
func reopen(t testing.TB, table *Table, path string) *File {
	t.Helper()
	f, err := table.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// descriptors counts the open descriptors of this process that lead below dir.
func descriptors(t testing.TB, dir string) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && filepath.Dir(to) == dir {
			n++
		}
	}
	return n
}

// TestFilesBeyondTheDescriptors: many changed files keep in memory what was stored,
// though only a few of them may stay open: private ones, and staged ones that only a sync
// writes back.
func TestFilesBeyondTheDescriptors(t *testing.T) {
	for _, cfg := range []Config{{Mode: Private}, {Mode: Staged, OnlyOnSync: true}} {
		t.Run(cfg.Mode.String(), func(t *testing.T) { testBeyondDescriptors(t, cfg) })
	}
}

func testBeyondDescriptors(t *testing.T, cfg Config) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		const files, idle = 60, 4
		cfg.MaxIdle = idle
		table := newTestTable(t, cfg, nil)
		name := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
		model := make([][]byte, files)
		was := make([][]byte, files)
		for i := range files {
			was[i] = filetest.Pattern(i*997%int(3*paging.PageSize), byte(i))
			model[i] = append([]byte(nil), was[i]...)
			if err := os.WriteFile(name(i), was[i], 0o600); err != nil {
				t.Fatal(err)
			}
		}
		random := rand.New(rand.NewPCG(1, 2))
		for round := range 6 {
			for i := range files {
				f := reopen(t, table, name(i))
				wantLoaded(t, f, model[i])
				switch random.IntN(3) {
				case 0:
					off := random.IntN(int(3 * paging.PageSize))
					p := filetest.Pattern(1+random.IntN(int(paging.PageSize)), byte(round))
					mustWrite(t, f, p, int64(off))
					if grown := off + len(p) - len(model[i]); grown > 0 {
						model[i] = append(model[i], make([]byte, grown)...)
					}
					copy(model[i][off:], p)
				case 1:
					size := random.IntN(int(3 * paging.PageSize))
					if err := f.Truncate(int64(size)); err != nil {
						t.Fatal(err)
					}
					if size <= len(model[i]) {
						model[i] = model[i][:size:size]
					} else {
						model[i] = append(model[i], make([]byte, size-len(model[i]))...)
					}
				}
				f.Release(true)
				// The janitor holds them for a moment when it passes by.
				n := descriptors(t, dir)
				for end := time.Now().Add(time.Second); n > idle+1 && time.Now().Before(end); n = descriptors(t, dir) {
					time.Sleep(time.Millisecond)
				}
				if n > idle+1 {
					t.Fatalf("%d files are open, MaxIdle is %d", n, idle)
				}
			}
		}
		if table.Parked() < files-idle-files/3 {
			t.Errorf("only %d files are parked: this shows little", table.Parked())
		}
		for i := range files {
			var st unix.Stat_t
			if err := unix.Stat(name(i), &st); err != nil {
				t.Fatal(err)
			}
			if table.StatHeld(&st, unix.AT_FDCWD, name(i)); st.Size != int64(len(model[i])) {
				t.Errorf("file %d: StatHeld says %d bytes, want %d", i, st.Size, len(model[i]))
			}
			f := reopen(t, table, name(i))
			wantLoaded(t, f, model[i])
			f.Release(true)
			if got, err := os.ReadFile(name(i)); err != nil || filetest.SameBytes(got, was[i]) != nil {
				t.Errorf("the backing file %d has changed: %v", i, err)
			}
		}
		wantCopiedCount(t, table)
		// One half is synced, the other given up.
		for i := range files / 2 * cfg.syncs() {
			f := reopen(t, table, name(i))
			seen := f.Failures()
			if err := f.Sync(&seen, false); err != nil {
				t.Fatal(err)
			}
			f.Release(true)
			was[i] = model[i]
		}
		table.Revert()
		if n, bytes := table.Parked(), table.CopiedBytes(); n != 0 || bytes != 0 {
			t.Errorf("%d files are parked after Revert, %d bytes copied", n, bytes)
		}
		for i := range files {
			f := reopen(t, table, name(i))
			wantLoaded(t, f, was[i])
			f.Release(true)
			if got, err := os.ReadFile(name(i)); err != nil || filetest.SameBytes(got, was[i]) != nil {
				t.Errorf("the backing file %d: %v", i, err)
			}
		}
	})
}

// syncs is 1 in the mode in which a sync writes anything, else 0.
func (cfg *Config) syncs() int {
	if cfg.Mode == Staged {
		return 1
	}
	return 0
}

// TestOnlyOnSync: with OnlyOnSync the limit of dirty pages is an error for the writer, and
// nothing reaches the file by itself.
func TestOnlyOnSync(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		table := newTestTable(t, Config{Mode: Staged, OnlyOnSync: true, DirtyLimit: 8 * paging.PageSize}, nil)
		path := filepath.Join(dir, "f")
		f, err := table.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Release(true)
		page := filetest.Pattern(int(paging.PageSize), 1)
		n := int64(0)
		for ; err == nil && n < 100; n++ {
			_, err = f.WriteAt(page, n*paging.PageSize, Origin{})
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("after %d pages of 8: %v", n, err)
		}
		table.CloseIdle(100)
		if st, err := os.Stat(path); err != nil || st.Size() != 0 {
			t.Errorf("the file has %d bytes, and nobody synced it; %v", st.Size(), err)
		}
		seen := f.Failures()
		if err := f.Sync(&seen, false); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(page, 0, Origin{}); err != nil {
			t.Errorf("after the sync: %v", err)
		}
	})
}

// wantLoaded checks what the engine reads of the whole file.
func wantLoaded(t testing.TB, f *File, want []byte) {
	t.Helper()
	got := make([]byte, len(want)+int(paging.PageSize))
	n, err := f.ReadAt(got, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := filetest.SameBytes(got[:n], want); err != nil {
		t.Fatal(err)
	}
}

// wantCopiedCount checks the count of copied pages against the records.
func wantCopiedCount(t testing.TB, table *Table) {
	t.Helper()
	want := int64(0)
	for _, f := range table.Files() {
		want += f.copies.count.Load()
		f.Unref()
	}
	table.mu.Lock()
	for _, p := range table.parked {
		want += p.copied
	}
	table.mu.Unlock()
	if got := table.copied.Taken(); got != want {
		t.Errorf("%d pages are counted as copied, want %d", got, want)
	}
}

// parkOne leaves a private file parked: one page of pattern, of which the first byte
// is changed.
func parkOne(t testing.TB, dir string, sys *sys.System) (table *Table, path string, content []byte) {
	t.Helper()
	table, path = newTestTable(t, Config{Mode: Private}, sys), filepath.Join(dir, "f")
	content = filetest.Pattern(int(2*paging.PageSize), 1)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f := reopen(t, table, path)
	mustWrite(t, f, []byte("X"), 0)
	content[0] = 'X'
	f.Release(true)
	table.CloseIdle(1)
	if table.Parked() != 1 || table.Count() != 0 || descriptors(t, dir) != 0 {
		t.Fatalf("parked %d, open %d", table.Parked(), table.Count())
	}
	return table, path, content
}

// TestParkedIsLookedAt: the states of a parked file's pages are told as before.
func TestParkedIsLookedAt(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		table, path, _ := parkOne(t, dir, nil)
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := sys.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		var flags []pagestate.Flags
		table.Inspect(IDOf(&st), &pagestate.Sources{}, fd, st.Size, 0, 2, func(run pagestate.Run) bool {
			flags = append(flags, run.Flags&(pagestate.Copied|pagestate.Unsynced|pagestate.Tail))
			return true
		})
		if len(flags) != 2 || flags[0] != pagestate.Copied|pagestate.Unsynced || flags[1] != pagestate.Tail {
			t.Errorf("page flags %v", flags)
		}
		table.Unsynced(IDOf(&st), st.Size, func(g paging.Range, cause dirty.Cause) bool {
			if g != (paging.Range{Off: 0, End: paging.PageSize}) || cause != dirty.Write {
				t.Errorf("unsynced %v %s", g, cause)
			}
			return true
		})
		if got := table.UnsyncedBytes(); got != paging.PageSize {
			t.Errorf("%d bytes are unsynced, want %d", got, paging.PageSize)
		}
	})
}

// TestParkedIsNotAStranger: a later inode with the number of a parked one has its own
// bytes and size.
func TestParkedIsNotAStranger(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		table, path, content := parkOne(t, dir, nil)
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		// As if the number had been used again: what is parked was born earlier.
		table.mu.Lock()
		p := table.parked[IDOf(&st)]
		p.born.Sec--
		p.ctime.Sec--
		table.mu.Unlock()
		before := st
		if table.StatHeld(&st, unix.AT_FDCWD, path); st != before {
			t.Errorf("StatHeld changed what stat(2) says of a stranger from %+v to %+v", before, st)
		}
		f := reopen(t, table, path)
		defer f.Release(false)
		content[0] = filetest.Pattern(1, 1)[0]
		wantLoaded(t, f, content)
		if table.Parked() != 0 || table.copied.Taken() != 0 {
			t.Errorf("%d files are parked, %d pages copied", table.Parked(), table.copied.Taken())
		}
	})
}

// TestParkedIsLostWithItsName: the last name's removal ends it.
func TestParkedIsLostWithItsName(t *testing.T) {
	table, path, _ := parkOne(t, t.TempDir(), nil)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	table.Forget(IDOf(&st), false)
	if table.Parked() != 1 {
		t.Error("gone with the kernel's forgetting")
	}
	table.Forget(IDOf(&st), true)
	if table.Parked() != 0 || table.copied.Taken() != 0 {
		t.Errorf("%d files are parked, %d pages copied", table.Parked(), table.copied.Taken())
	}
}

// TestParkedSurvivesAFailure: an open that finds no memory leaves everything as it was.
func TestParkedSurvivesAFailure(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		sys := sys.New()
		real, failing := sys.Mmap, false
		sys.Mmap = func(fd int, length int64, prot, flags int) ([]byte, error) {
			if failing {
				return nil, os.NewSyscallError("mmap", syscall.ENOMEM)
			}
			return real(fd, length, prot, flags)
		}
		table, path, content := parkOne(t, dir, sys)
		failing = true
		if f, err := table.OpenFile(path, os.O_RDWR, 0); err == nil {
			f.Release(false)
			t.Fatal("opened without memory")
		}
		if descriptors(t, dir) != 0 || table.Parked() != 1 {
			t.Errorf("%d descriptors, %d parked", descriptors(t, dir), table.Parked())
		}
		failing = false
		f := reopen(t, table, path)
		defer f.Release(false)
		wantLoaded(t, f, content)
		wantCopiedCount(t, table)
	})
}

// TestParkedIsCutByOthers: a truncation of the backing file takes copies with it, as it
// does of a file that is open.
func TestParkedIsCutByOthers(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		table, path, content := parkOne(t, dir, nil)
		if err := os.Truncate(path, 100); err != nil {
			t.Fatal(err)
		}
		f := reopen(t, table, path)
		wantLoaded(t, f, content[:100])
		f.Release(true)
		table.CloseIdle(1)
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		f = reopen(t, table, path)
		wantLoaded(t, f, nil)
		wantCopiedCount(t, table)
		f.Release(false)
	})
}
