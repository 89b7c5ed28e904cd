package mapping

import (
	"golang.org/x/sys/unix"
)

// Inspect calls emit for runs of the pages [first, end) of an inode that the table
// does not hold open, until emit returns false. fd is a descriptor of it, size its
// length. Nothing of the file is changed or loaded by it.
func (t *Table) Inspect(id ID, k *KernelSources, fd int, size, first, end int64, emit func(PageRun) bool) {
	if p := t.parkedAs(id, fd); p != nil {
		inspect(k, fd, p.sizeNow(size), first, end, nil, &copyView{k: k}, p.record, emit)
		return
	}
	inspect(k, fd, size, first, end, nil, nil, t.remembered.record(id), emit)
}

// Inspect calls emit for runs of the file's pages [first, end), until emit
// returns false; pages past the end of the file are left out. Looking changes
// nothing: what is not mapped stays so.
func (f *File) Inspect(k *KernelSources, first, end int64, emit func(PageRun) bool) error {
	var st unix.Stat_t
	if err := f.Stat(&st); err != nil {
		return err
	}
	// The lock keeps mapping and descriptor; reads and writes go on.
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.RLock()
	fd, mem := f.fd, f.mem
	var view *copyView
	if f.copies != nil {
		view = &copyView{k: k, mem: mem[:min(f.copies.fileEnd, int64(len(mem)))], locked: len(f.locked) > 0}
		mem = nil // its page frames are not the file's
	}
	f.mu.RUnlock()
	inspect(k, fd, st.Size, first, end, mem, view, f.record, emit)
	return nil
}

// inspect merges what the kernel says with the record. view is nil for files that
// do not copy.
func inspect(k *KernelSources, fd int, size, first, end int64, mem []byte, view *copyView, record *pageRecord, emit func(PageRun) bool) {
	_, count := Range{0, size}.Pages()
	end = min(end, count)
	if first >= end {
		return
	}
	joiner := runJoiner{emit: emit}
	k.pages(fd, mem, first, end, func(kernel PageRun) bool {
		more := true
		record.runs(kernel.First, kernel.End, func(own PageRun, states pageState) bool {
			view.runs(own, states, func(run PageRun) bool {
				run.Flags |= kernel.Flags
				if states&pageUnsynced != 0 {
					run.Flags |= PageUnsynced
				}
				if run.End == count {
					more = joiner.add(PageRun{run.First, run.End - 1, run.Flags}) &&
						joiner.add(PageRun{run.End - 1, run.End, run.Flags | PageTail})
				} else {
					more = joiner.add(run)
				}
				return more
			})
			return more
		})
		return more
	})
	joiner.flush()
}

// Unsynced calls emit for every range of bytes that a power cut now would take,
// until emit returns false. Ranges are whole pages, the last cut off at the end
// of the file.
func (f *File) Unsynced(emit func(Range, Cause) bool) { f.record.unsyncedRanges(f.size.Load(), emit) }

// Unsynced is [File.Unsynced] of an inode that the table need not hold open. size
// is its length.
func (t *Table) Unsynced(id ID, size int64, emit func(Range, Cause) bool) {
	f, p := t.find(id)
	switch {
	case f != nil:
		defer f.Unref()
		f.Unsynced(emit)
		return
	case p != nil:
		p.record.unsyncedRanges(size, emit)
		return
	}
	t.remembered.record(id).unsyncedRanges(size, emit)
}

// UnsyncedBytes returns how many bytes a power cut now would take.
func (f *File) UnsyncedBytes() int64 { return f.record.unsyncedBytes(f.size.Load()) }

// Mapped returns where the file is mapped and how many bytes, or 0 and 0, and the
// permissions as /proc/PID/maps shows them.
func (f *File) Mapped() (addr uintptr, length int64, perms string) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	switch {
	case f.mem == nil:
		return 0, 0, ""
	case f.copies != nil:
		perms = "rw-p"
	case f.writable:
		perms = "rw-s"
	default:
		perms = "r--s"
	}
	return addressOf(f.mem), int64(len(f.mem)), perms
}

// BackingSize returns the length of the backing file, which is not [File.Size] in
// the modes that copy.
func (f *File) BackingSize() (int64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var st unix.Stat_t
	err := fstat(f.fd, &st)
	return st.Size, err
}

// Failure returns the error of the newest write-back if that failed, else nil.
func (f *File) Failure() error {
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	if !f.failed {
		return nil
	}
	return f.failure
}

// ReadMemory loads len(p) bytes of the mapping from off into p: whole pages, so
// the bytes between the end of the file and the end of its last page can be
// seen. It maps the file if it is not mapped yet, and returns fewer bytes only at
// the end of the last page.
func (f *File) ReadMemory(p []byte, off int64) (int, error) {
	var st unix.Stat_t
	if err := f.Stat(&st); err != nil {
		return 0, err
	}
	end, ok := PageUp(st.Size)
	g, fits := RangeOf(off, int64(len(p)))
	if !ok || !fits {
		return 0, nil
	}
	g = g.Intersect(Range{0, end})
	p = p[:g.Len()]
	if len(p) == 0 {
		return 0, nil
	}
	mem := f.rlock(g.End, forReading)
	defer f.mu.RUnlock()
	present := g.End <= int64(len(mem))
	if f.copies != nil {
		present = present && f.presentCopiesLocked(mem, g)
	} else {
		present = present && (!f.fillsHoles || resident(mem[PageDown(g.Off):g.End]))
	}
	if present {
		fault := load(p, mem[g.Off:g.End])
		if fault == 0 {
			return len(p), nil
		}
		f.faulted(mem, fault)
	}
	// Not to be seen through a mapping: the file's bytes, and zeros after them.
	f.beforeRead(true)
	n, err := f.readPast(p, g.Off)
	if err != nil {
		return 0, err
	}
	clear(p[n:])
	return len(p), nil
}
