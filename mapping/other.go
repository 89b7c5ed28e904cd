package mapping

import (
	"golang.org/x/sys/unix"

	"mapfs/mapping/dirty"
	"mapfs/mapping/paging"
)

// The engine's part in mappings that others make of a file it has open: their stores and
// faults belong into its record and its counters.

// NoteStore notes that the bytes of g were stored to through the explicit mapping
// of the given name. The bytes after the end of the file are not the file's. Of a
// file that copies, record, size and times are those of the copies.
func (f *File) NoteStore(g paging.Range, name string) {
	f.mu.RLock()
	copies := f.copies != nil
	size := f.size.Load()
	if g.End > size && !copies {
		if now, err := f.refreshSizeLocked(); err == nil {
			size = now
		}
	}
	if in := g.Intersect(paging.Range{Off: 0, End: size}); !in.Empty() && !copies {
		f.record.Set(in, dirty.Written|dirty.UnsyncedStore)
	}
	f.mu.RUnlock()
	if !copies {
		f.stored()
	}
	f.counters.Stores.add(f.table, EventStore)
	f.observe(Event{Kind: EventStore, Mapping: name, Off: g.Off, Length: g.Len()})
}

// CountFault counts a fault of a load or store through another mapping.
func (f *File) CountFault() { f.counters.Faults.add(f.table, EventFault) }

// OtherMapping is a mapping of a file that the engine did not make.
type OtherMapping struct {
	Name             string
	Mem              []byte // the part of it that is meant
	Shared, Writable bool   // MAP_SHARED; the file was open for writing
}

// MsyncOther is msync(2) of another mapping, which has the bytes g of the file. Of a file
// that copies the record is about the copies, which this does not write.
func (f *File) MsyncOther(m OtherMapping, g paging.Range, flags int) error {
	var st unix.Stat_t
	if err := f.Stat(&st); err != nil { // the time of the last store belongs to what is written back
		return err
	}
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	event := Event{Mapping: m.Name, Off: g.Off, Length: g.Len(), Flags: flags}
	if flags&unix.MS_SYNC != 0 && m.Shared && m.Writable && !f.copying() {
		event.Pages = f.record.BeginSync(g)
		err := f.redirtyFailed()
		if err == nil {
			err = f.sys.Msync(m.Mem, flags)
		}
		f.endSync(err, event)
		if err != nil && !isInvalidateBusy(flags, err) {
			f.fail(err)
		}
		return err
	}
	err := f.sys.Msync(m.Mem, flags)
	if err == nil && flags&unix.MS_ASYNC != 0 && m.Shared {
		err = f.startWriteBack(g)
	}
	event.Kind, event.Err = EventMsync, err
	f.counters.Msyncs.add(f.table, EventMsync)
	f.observe(event)
	return err
}
