package mapping

import (
	"golang.org/x/sys/unix"

	"mapfs/mapping/dirty"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// Pass says that clients read, write and map the file past the engine from now on
// (FUSE_PASSTHROUGH). What is unsynced is then what the kernel calls dirty, and the engine
// asks it whenever somebody wants to know.
func (f *File) Pass() {
	if !f.passed.Swap(true) {
		f.table.passed.Store(true)
	}
}

// Passed reports whether clients have used the file past the engine.
func (f *File) Passed() bool { return f.passed.Load() }

// askKernel brings the record up to what the kernel says is dirty. It does nothing for a
// file that clients use by way of the engine.
func (f *File) askKernel() {
	if !f.passed.Load() {
		return
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	var st unix.Stat_t
	if f.fd < 0 || unix.Fstat(f.fd, &st) != nil {
		return
	}
	_, pages := paging.Range{Off: 0, End: st.Size}.Pages()
	clean := int64(0)
	settle := func(end int64) {
		if g := (paging.Range{Off: clean * paging.PageSize, End: end * paging.PageSize}); !g.Empty() {
			f.record.Clear(g, dirty.Unsynced)
		}
	}
	pagestate.EachDirty(f.fd, 0, pages, func(r pagestate.Run) {
		settle(r.First)
		f.record.Set(paging.Range{Off: r.First * paging.PageSize, End: r.End * paging.PageSize}, dirty.UnsyncedWrite)
		clean = r.End
	})
	settle(pages)
}

// askKernelOfAll is askKernel of every file that clients use past the engine.
func (t *Table) askKernelOfAll() {
	if !t.passed.Load() {
		return
	}
	for _, f := range t.filesThat((*File).Passed) {
		f.askKernel()
		f.Unref()
	}
}
