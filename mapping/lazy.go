package mapping

import (
	"time"

	"mapfs/mapping/paging"
)

// Mapping a file for one small read is dear: mmap(2), a page fault, and at the end
// munmap(2), which interrupts the other processors. So is the first touch of one page
// of a mapping. A pread(2) of a few pages into a warm buffer is not. So while nobody
// looks at the mappings, the first read of a page goes by pread, and the second by the
// mapping, which from then on is the faster way.

const (
	// lazySize is from how many bytes on a read goes by the mapping at once: there
	// the faults are shared by many pages, and the copy costs more than they do.
	lazySize = 32 << 10
	// promptMappings is how many files a second are mapped with their first read all
	// the same. Who reads a file now and then finds it mapped, in /proc/PID/maps too;
	// who walks over a tree does not pay for it.
	promptMappings = 32
)

// mapNowWait bounds how long MapNow waits for files that others keep locked.
const mapNowWait = 200 * time.Millisecond

// MapNow ends Config.MapLazily: somebody is going to look at the mappings. Every file
// that was read is mapped now, and from now on with the first read. A file that is
// busy for longer, as behind a device that does not answer, is mapped when it can be.
func (t *Table) MapNow() {
	if !t.lazy.CompareAndSwap(true, false) {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, f := range t.Files() {
			if f.readUnmapped.Load() && f.Size() > 0 {
				f.rlock(f.Size(), forReading)
				f.mu.RUnlock()
			}
			f.Unref()
		}
	}()
	select {
	case <-done:
	case <-time.After(mapNowWait):
	}
}

// mayMap reports whether a file may be mapped with its first read.
func (t *Table) mayMap() bool {
	for now := time.Now().Unix(); ; {
		// The second, and how many there were in it.
		v := t.prompt.Load()
		next := v + 1
		if v/promptMappings < now {
			next = now * promptMappings
		} else if v%promptMappings == promptMappings-1 {
			return false
		}
		if t.prompt.CompareAndSwap(v, next) {
			return true
		}
	}
}

// readsLazily reports whether a read of g is to go by pread, and notes that g is read.
func (f *File) readsLazily(g paging.Range) bool {
	if !f.table.lazy.Load() || g.Empty() || g.Off >= f.size.Load() {
		return false
	}
	f.mu.RLock()
	mapped := f.mem != nil
	f.mu.RUnlock()
	if mapped && g.Len() >= lazySize {
		return false
	}
	if !mapped && !f.readUnmapped.Load() && f.table.mayMap() {
		return false
	}
	if !mapped && g.Len() >= lazySize && (g.Off > 0 || g.End < f.size.Load()) {
		return false // more is to come
	}
	return f.record.See(g)
}

// sendUnmapped sends the bytes of g that the file has by way of pread(2). done is false,
// and nothing was sent, in the modes that copy.
func (f *File) sendUnmapped(out Outlet, g paging.Range, quiet bool) (sent, done bool, err error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.copies != nil {
		return false, false, nil
	}
	if !f.readUnmapped.Load() {
		f.readUnmapped.Store(true)
	}
	sent, err = f.bounceTo(out, g, quiet)
	return sent, true, err
}
