package mapping

import (
	"golang.org/x/sys/unix"

	"mapfs/mapping/sys"
)

// Revert gives up everything that files have in memory only, parked ones and locked pages
// included: of each, the backing file shows again, as it is by now. The mappings are gone,
// and so is what was known of write-backs that failed.
func (t *Table) Revert() {
	t.mu.Lock()
	for id := range t.parked {
		t.dropParkedLocked(id)
	}
	t.mu.Unlock()
	t.remembered.clear()
	for _, f := range t.Files() {
		f.revert()
		t.release(f)
	}
}

// revert is Revert of one file, to which the caller has a reference.
func (f *File) revert() {
	f.growMu.Lock()
	defer f.growMu.Unlock()
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd < 0 {
		return
	}
	f.locked = nil
	f.pinned.Store(false)
	if f.copies != nil {
		f.forgetCtime()
		f.discardCopiesLocked()
	} else {
		f.dropMappingLocked()
	}
	f.record.Forget(0)
	f.mtime.Store(0)
	f.failed, f.failure = false, nil
	var st unix.Stat_t
	if sys.Fstat(f.fd, &st) == nil {
		f.size.Store(st.Size)
	}
	f.Changed()
}
