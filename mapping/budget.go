package mapping

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// makeRoom waits until length more bytes may be copied: while the copies of all
// files are over the limit, the file that has held some for longest is written
// back. The error is that of the write-back, or ENOMEM when only private copies
// are left, which go nowhere. None of a file's locks may be held.
func (t *Table) makeRoom(length int64) error {
	need := (length + PageSize - 1) / PageSize
	for {
		copied := t.copied.Load()
		if copied == 0 || copied+need <= t.maxCopied && t.holding.Load() <= int64(t.maxIdle) {
			return nil
		}
		f := t.longestHeld()
		if f == nil {
			if copied+need > t.maxCopied {
				return os.NewSyscallError("mmap", syscall.ENOMEM)
			}
			if t.parkOldest() {
				continue
			}
			return nil // private files that are all open
		}
		seen := f.Failures()
		err := f.Sync(&seen, true)
		f.Unref()
		if err != nil {
			return err
		}
	}
}

// longestHeld returns the staged file that has held copies for longest, with a
// reference, or nil. It then counts as the one that has held them least.
func (t *Table) longestHeld() *File {
	t.mu.Lock()
	defer t.mu.Unlock()
	for e := t.held.Front(); e != nil; e = e.Next() {
		f := e.Value.(*File)
		if f.heldMode != Staged {
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
