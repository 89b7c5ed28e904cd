package mapping

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/mapping/sys"
)

// Mode says where stores to a file go.
type Mode uint8

// The modes.
const (
	// Shared is MAP_SHARED: a store is in the file's page cache at once, and
	// write-back takes it to the device.
	Shared Mode = iota
	// Private is MAP_PRIVATE: the first store to a page copies it. The file never
	// changes; its size in the engine does.
	Private
	// Staged is MAP_PRIVATE whose changed pages are written to the file by
	// write-back, and only then.
	Staged
)

var modeNames = [...]string{"shared", "private", "staged"}

// String returns the mode's name.
func (m Mode) String() string { return modeNames[m] }

// ParseMode returns the mode with the given name.
func ParseMode(name string) (Mode, error) {
	for i, known := range modeNames {
		if name == known {
			return Mode(i), nil
		}
	}
	return 0, fmt.Errorf("%q is none of shared, private, staged", name)
}

// Mode returns the file's mode.
func (f *File) Mode() Mode {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.modeLocked()
}

// modeLocked is Mode; one of the file's locks must be held.
func (f *File) modeLocked() Mode {
	if f.copies == nil {
		return Shared
	}
	return f.copies.mode
}

// SetMode changes the file's mode. While the file has unsynced bytes, or a size
// that is not the backing file's, it is EBUSY: they would be lost, or would
// change what the file is for others. A file that cannot be read is EACCES in the
// modes that copy.
func (f *File) SetMode(m Mode) error {
	f.growMu.Lock()
	defer f.growMu.Unlock()
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if m == f.modeLocked() {
		return nil
	}
	if f.copies != nil {
		f.checkHeld() // others can have cut all of it away
	}
	if f.held.Load() || f.record.UnsyncedPages() > 0 {
		return os.NewSyscallError("mode", syscall.EBUSY)
	}
	if m != Shared && !f.readable {
		return os.NewSyscallError("mode", syscall.EACCES)
	}
	var st unix.Stat_t
	if err := sys.Fstat(f.fd, &st); err != nil {
		return err
	}
	f.dropMappingLocked()
	f.forgetCtime()
	if f.copies != nil {
		f.mtime.Store(0) // of stores that are gone
	}
	f.adoptSize(st.Size)
	f.setModeLocked(m)
	f.table.modes.set(f.id, m, birth(f.fd))
	f.relockLocked()
	return nil
}

// setModeLocked makes the mode m; the file has nothing that belongs to the old
// one. All of the file's locks must be held, or nobody know the file yet.
func (f *File) setModeLocked(m Mode) {
	f.copies = nil
	if m != Shared {
		f.copies = &copies{mode: m}
	}
	f.mayWrite.Store(f.mayWriteLocked())
}

// fileModes are the modes of the files that have another one than the rest,
// open or not.
type fileModes struct {
	normal Mode

	mu    sync.Mutex
	files map[ID]fileMode
}

// fileMode is the mode of one file.
type fileMode struct {
	mode Mode
	born unix.StatxTimestamp // tells the inode from a later one with its number
}

// set notes the mode of a file.
func (t *fileModes) set(id ID, m Mode, born unix.StatxTimestamp) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.files == nil {
		t.files = make(map[ID]fileMode)
	}
	t.files[id] = fileMode{m, born}
}

// of returns the mode of the inode that fd is open on.
func (t *fileModes) of(id ID, fd int) Mode {
	t.mu.Lock()
	m, found := t.files[id]
	t.mu.Unlock()
	if !found || m.born != birth(fd) {
		return t.normal
	}
	return m.mode
}

// forget drops what is known of an inode that is gone.
func (t *fileModes) forget(id ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.files, id)
}

// Mode returns the mode of files that have none of their own.
func (t *Table) Mode() Mode { return t.modes.normal }

// ModeOf returns the mode that the inode fd is open on has, or will have when it
// is opened.
func (t *Table) ModeOf(id ID, fd int) Mode { return t.modes.of(id, fd) }
