package mapping

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/mapping/paging"
)

// makeRoom waits until length more bytes of a file may be copied: while the copies of
// all files are over the limit, or those of its owner over the owner's share, the file
// that has held some for longest is written back. The error is that of the write-back,
// or ENOMEM when only private copies are left, which go nowhere; ENOSPC with OnlyOnSync.
// None of a file's locks may be held.
func (t *Table) makeRoom(f *File, length int64) error {
	need := (length + paging.PageSize - 1) / paging.PageSize
	for {
		taken := t.copied.Taken()
		fits := taken == 0 || t.copied.Has(f.owner, need)
		if fits && t.holding.Load() <= int64(t.maxIdle) {
			return nil
		}
		// Who has his share writes back his own; where all is taken, anybody's will do.
		held := t.longestHeld(func(h *File) bool { return h.owner == f.owner })
		if held == nil && (fits || taken+need > t.copied.Limit()) {
			held = t.longestHeld(func(*File) bool { return true })
		}
		if held == nil {
			switch {
			case !fits && t.onlyOnSync:
				return os.NewSyscallError("write", syscall.ENOSPC)
			case !fits:
				return os.NewSyscallError("mmap", syscall.ENOMEM)
			case t.parkOldest():
				continue
			}
			return nil // private files that are all open
		}
		seen := held.Failures()
		err := held.Sync(&seen, true)
		if err == nil {
			err = held.evictAbandoned()
		}
		held.Unref()
		if err != nil {
			return err
		}
	}
}

// longestHeld returns the staged file that has held copies for longest, of those that
// suit, with a reference, or nil. It then counts as the one that has held them least.
func (t *Table) longestHeld(suits func(*File) bool) *File {
	if t.onlyOnSync {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for e := t.held.Front(); e != nil; e = e.Next() {
		f := e.Value.(*File)
		if f.heldMode != Staged || !suits(f) {
			continue
		}
		t.held.MoveToBack(e)
		t.refLocked(f)
		return f
	}
	return nil
}

// defaultDirtyLimit is a quarter of the memory that the process may use: the
// machine's, or that of its control group if that is less.
func defaultDirtyLimit() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 64 << 20
	}
	total := int64(info.Totalram) * int64(info.Unit)
	if text, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
			total = min(total, n)
		}
	}
	return total / 4
}
