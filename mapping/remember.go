package mapping

import (
	"sync"

	"golang.org/x/sys/unix"

	"mapfs/mapping/dirty"
)

// maxRemembered is how many closed files' records are kept at a time. A file that
// would be one more is written back before it is closed.
const maxRemembered = 1 << 16

// rememberedFiles are the page records of files that are closed and still have
// unsynced bytes: closing a file writes nothing back, so a power cut would take
// them all the same.
type rememberedFiles struct {
	mu    sync.Mutex
	files map[ID]rememberedFile
}

// rememberedFile is what is left of a closed file.
type rememberedFile struct {
	record *dirty.Record
	size   int64
	born   unix.StatxTimestamp // tells the inode from a later one with its number
}

// birth returns when the inode of fd was made, or nothing where the filesystem
// does not say (statx(2)).
func birth(fd int) unix.StatxTimestamp {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st); err != nil {
		return unix.StatxTimestamp{}
	}
	return st.Btime
}

// full reports whether no more files can be remembered.
func (r *rememberedFiles) full() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.files) >= maxRemembered
}

// add remembers a file that is about to be closed.
func (r *rememberedFiles) add(id ID, f rememberedFile) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.files == nil {
		r.files = make(map[ID]rememberedFile)
	}
	r.files[id] = f
}

// take returns the record of the inode that fd is open on, which is remembered
// no longer, or an empty one.
func (r *rememberedFiles) take(id ID, fd int) *dirty.Record {
	r.mu.Lock()
	f, found := r.files[id]
	delete(r.files, id)
	r.mu.Unlock()
	if !found || f.born != birth(fd) {
		return new(dirty.Record)
	}
	return f.record
}

// record returns the record of a closed file, empty if none is remembered.
func (r *rememberedFiles) record(id ID) *dirty.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, found := r.files[id]; found {
		return f.record
	}
	return new(dirty.Record)
}

// clear forgets all files.
func (r *rememberedFiles) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files = nil
}

// forget drops what is remembered of a file that is gone.
func (r *rememberedFiles) forget(id ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.files, id)
}

// unsyncedBytes counts the unsynced bytes of all closed files.
func (r *rememberedFiles) unsyncedBytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var total int64
	for _, f := range r.files {
		total += f.record.UnsyncedBytes(f.size)
	}
	return total
}

// SyncClosed writes back what closed files have left unsynced. sync must write
// back whole filesystems (syncfs(2)): the files are not open. If it fails, they
// stay unsynced.
func (t *Table) SyncClosed(sync func() error) error {
	r := &t.remembered
	r.mu.Lock()
	before := r.files
	r.files = nil
	r.mu.Unlock()
	err := sync()
	if err == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, f := range before {
		if _, again := r.files[id]; !again {
			if r.files == nil {
				r.files = make(map[ID]rememberedFile)
			}
			r.files[id] = f
		}
	}
	return err
}
