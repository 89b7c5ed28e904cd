package mapping

import (
	"container/list"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/mapping/dirty"
	"mapfs/mapping/guard"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// ID names an inode: the device it is on and its number there (stat(2)).
type ID struct{ Dev, Ino uint64 }

// IDOf returns the identity that stat(2) reported.
func IDOf(st *unix.Stat_t) ID { return ID{st.Dev, st.Ino} }

// File is one inode of the backing filesystem, held open, with the mapping that
// serves it. The inode number cannot be reused while a File stands for it.
//
// A File is got from [Table.Open] or [Table.Get] with a reference, which
// [File.Release] gives back.
type File struct {
	table *Table
	sys   *sys.System
	id    ID
	owner uint32 // the user who is charged for copied pages: the inode's when it was opened

	// These are guarded by table.mu.
	refs   int
	last   lastUse
	idleIn *list.List    // the list of idle files that has it, if idle
	idleAt *list.Element // its place there
	heldAt *list.Element // the place among the held files, if held
	// heldMode is the mode the file has while it is held.
	heldMode Mode
	ringAt   *list.Element // the place among the mapped files, if mapped

	sys.Traits // of the filesystem

	// mayWrite mirrors mayWriteLocked for those who hold table.mu.
	mayWrite atomic.Bool

	// held says that the engine's memory has bytes of the file, or a size, that
	// the backing file does not have.
	held atomic.Bool

	// size is the length of the file. It is exact: a File never grows the
	// backing file ahead of the bytes. It changes under growMu only.
	size atomic.Int64
	// used is set by every use of the mapping and cleared by the evictor that
	// passes by (the second chance of a clock).
	used atomic.Bool
	// readUnmapped says that bytes were read which a mapping would have been made for.
	readUnmapped atomic.Bool
	// passed says that clients use the file past the engine; see passed.go.
	passed atomic.Bool
	// unlike says that the inode may not look as last has it.
	unlike atomic.Bool
	// cutAt is when somebody else truncated the file, in nanoseconds since 1970; see cut.go.
	cutAt atomic.Int64
	// mtime is the time, in nanoseconds since 1970, of the newest store that
	// the kernel may not have put into the inode; 0 if none. A store into a
	// page that is dirty already changes no time stamps.
	mtime atomic.Int64

	atime    atimeState
	name     atomic.Pointer[string]
	record   *dirty.Record
	counters Counters

	// See the package comment for the order of these locks.
	growMu sync.Mutex
	syncMu sync.Mutex
	// failure is the sticky write-back error and failures counts them; failed
	// says that pages may be clean for the kernel though the device never got
	// them. All are guarded by syncMu, failures may be read without.
	failure  error
	failures atomic.Uint64
	failed   bool
	locked   []paging.Range // what mlock(2) keeps in memory; guarded by syncMu
	pinned   atomic.Bool    // locked is not empty

	mu       sync.RWMutex
	fd       int
	readable bool   // the descriptor allows reading, hence mapping
	writable bool   // the descriptor allows writing
	mem      []byte // the mapping, from the file's first byte; nil if there is none
	unmapped bool   // the filesystem or the file cannot be mapped: pread and pwrite serve
	// copies is nil in the mode Shared. It changes only while all three of the
	// locks above are held.
	copies *copies
}

// ID returns the identity of the inode.
func (f *File) ID() ID { return f.id }

// Size returns the length of the file in bytes as far as the engine knows: a
// change that came past it is seen at the next Stat or read past the end.
func (f *File) Size() int64 { return f.size.Load() }

// Name returns what SetName was told last, or "".
func (f *File) Name() string {
	if name := f.name.Load(); name != nil {
		return *name
	}
	return ""
}

// SetName says what to call the file in events.
func (f *File) SetName(name string) { f.name.Store(&name) }

// Observe tells the table's observer of an event of the file that happened
// outside the engine.
func (f *File) Observe(e Event) { f.observe(e) }

// access asks for a descriptor and a mapping that allow what follows.
type access int

const (
	forReading access = iota
	forWriting
)

// mappedLocked returns the mapping if it covers the first end bytes and allows the
// access. f.mu must be held.
func (f *File) mappedLocked(end int64, want access) []byte {
	reach := int64(len(f.mem))
	if f.copies != nil {
		reach = f.copies.reach(reach)
	}
	if reach < end || want == forWriting && !f.mayWriteLocked() {
		return nil
	}
	if !f.used.Load() {
		f.used.Store(true)
	}
	return f.mem
}

// rlock takes f.mu shared and returns the mapping, which is made or enlarged if
// it does not cover the first end bytes. It returns nil memory when the file
// cannot be mapped that far: the caller then uses the descriptor.
func (f *File) rlock(end int64, want access) []byte {
	f.mu.RLock()
	if mem := f.mappedLocked(end, want); mem != nil || end == 0 || f.unmapped || want == forWriting && !f.mayWriteLocked() {
		return mem
	}
	f.mu.RUnlock()
	f.remap(end)
	f.mu.RLock()
	return f.mappedLocked(end, want)
}

// remap maps the file so that its first end bytes are covered, in place of the
// mapping it has. When that is impossible the file stays as it is.
func (f *File) remap(end int64) {
	// The room is made first: no other file is evicted under this one's locks.
	room, ok := f.table.reserveMapping(max(end, f.size.Load()), end)
	if !ok {
		return
	}
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.copies != nil {
		if took, _ := f.mapCopiesLocked(end, room); !took {
			f.table.unreserveMapping(room)
		}
		return
	}
	var mem []byte
	if int64(len(f.mem)) < end {
		mem = f.mapLocked(end, room)
	}
	if mem == nil {
		f.table.unreserveMapping(room)
		return
	}
	f.dropMappingLocked()
	f.mem = mem
	f.relockLocked()
	f.table.addMapping(f, int64(len(mem)), room)
	f.observe(Event{Kind: EventMap, Addr: guard.AddressOf(mem), Length: int64(len(mem))})
}

// mapLocked makes a mapping of at least the first end bytes, of room bytes if it can, or
// returns nil. f.mu must be held exclusively.
func (f *File) mapLocked(end, room int64) []byte {
	if f.unmapped {
		return nil
	}
	if !f.readable {
		f.unmapped = true // mmap(2) needs read access, whatever the protection
		return nil
	}
	prot := unix.PROT_READ
	if f.writable {
		prot |= unix.PROT_WRITE
	}
	f.beforeRead(true)
	mem, err := f.sys.Mmap(f.fd, room, prot, unix.MAP_SHARED)
	if err == nil {
		return mem
	}
	switch {
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		f.unmapped = true
		f.table.warnUnmappable(err)
		return nil
	}
	// Past what the filesystem or the address space has room for: take just what is
	// needed.
	exact, ok := paging.PageUp(end)
	if !ok || exact >= room {
		return nil
	}
	if mem, err = f.sys.Mmap(f.fd, exact, prot, unix.MAP_SHARED); err != nil {
		return nil
	}
	return mem
}

// dropMappingLocked unmaps the file. f.syncMu and f.mu must be held, the latter
// exclusively.
func (f *File) dropMappingLocked() {
	if f.mem == nil {
		return
	}
	if err := f.sys.Munmap(f.mem); err != nil {
		// Only a bug can make munmap of a mapping of ours fail.
		panic(err)
	}
	f.table.removeMapping(f, int64(len(f.mem)))
	f.observe(Event{Kind: EventUnmap, Addr: guard.AddressOf(f.mem), Length: int64(len(f.mem))})
	f.mem = nil
	f.record.Unmapped()
	if f.copies != nil {
		f.copies.fileEnd = 0
		f.forgetHolesLocked(paging.WholeFile)
	}
}

// offerDescriptor takes over fd, another descriptor of the same inode, in place
// of the one f has if it allows more, and closes the one that is not kept.
func (f *File) offerDescriptor(fd int, readable, writable bool) error {
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.writable || !writable {
		return f.sys.Close(fd)
	}
	f.dropMappingLocked()
	old := f.fd
	f.fd, f.readable, f.writable, f.unmapped = fd, readable, writable, false
	f.mayWrite.Store(true)
	return f.sys.Close(old)
}

// Evict gives the mapping up, as when there are too many, if nobody uses it at the moment.
// It reports whether it did.
func (f *File) Evict() bool {
	if !f.syncMu.TryLock() {
		return false
	}
	defer f.syncMu.Unlock()
	if !f.mu.TryLock() {
		return false
	}
	defer f.mu.Unlock()
	if f.mem == nil || len(f.locked) > 0 || f.held.Load() {
		return false
	}
	f.dropMappingLocked()
	return true
}

// discard unmaps and closes a file that nobody can reach any more.
func (f *File) discard() {
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd < 0 {
		return // the table was closed before the last reference was given back
	}
	if f.copies != nil {
		f.forgetCtime()
		f.discardCopiesLocked()
	}
	f.dropMappingLocked()
	if err := f.sys.Close(f.fd); err != nil {
		f.table.log.Warn("close of a backing file", "error", err)
	}
	f.fd = -1
}

// WithDescriptor calls fn with the file's descriptor, which stays open until fn
// returns, or returns EBADF if the last reference is gone. fn must not close it,
// change the file's size or call f's methods.
func (f *File) WithDescriptor(fn func(fd int) error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.fd < 0 {
		return syscall.EBADF
	}
	return fn(f.fd)
}

// WithQuietDescriptor is WithDescriptor for who may read, and leaves the access time
// alone.
func (f *File) WithQuietDescriptor(fn func(fd int) error) error {
	return f.WithDescriptor(func(fd int) error {
		f.beforeRead(true)
		return fn(fd)
	})
}

// Writable reports whether the file can be written to: it is open for writing, or in the
// mode Private, in which what is written stays in memory.
func (f *File) Writable() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mayWriteLocked()
}

// mayWriteLocked is Writable; one of the file's locks must be held.
func (f *File) mayWriteLocked() bool { return f.writable || f.modeLocked() == Private }

// holdsForWriting reports whether the descriptor is open for writing.
func (f *File) holdsForWriting() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.writable
}

// Readable reports whether the file's descriptor allows reading.
func (f *File) Readable() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.readable
}

// Stat is fstat(2) of the backing file. Before that, the time of the last
// modification is set to that of the last store, if the kernel has not noticed
// it. A size that was changed by others is taken over. In the modes that copy,
// size and times are those of the copies, and the backing file is left alone.
func (f *File) Stat(st *unix.Stat_t) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.statLocked(st)
}

// statLocked is Stat; f.mu must be held.
func (f *File) statLocked(st *unix.Stat_t) error {
	// While somebody changes the size, what fstat says may be old by the time
	// it is stored; the one who changes it knows better.
	f.payATimeLocked()
	quiet := f.growMu.TryLock()
	err := sys.Fstat(f.fd, st)
	if quiet {
		if err == nil {
			f.adoptSize(st.Size)
		}
		f.growMu.Unlock()
	}
	if err != nil {
		return err
	}
	defer f.atimeIs(st)
	if f.copies != nil {
		f.statCopiesLocked(st)
		return nil
	}
	stored := f.mtime.Load()
	if stored == 0 || !f.mtime.CompareAndSwap(stored, 0) {
		return nil
	}
	if stored <= unix.TimespecToNsec(st.Mtim) {
		return nil // a page that was clean told the kernel, or a later write(2) did
	}
	if err := f.sys.SetMtime(f.fd, unix.NsecToTimespec(stored)); err != nil {
		return err
	}
	return sys.Fstat(f.fd, st)
}

// adoptSize takes over a size that fstat reported. f.growMu must be held.
func (f *File) adoptSize(size int64) {
	old := f.size.Load()
	if size == old || f.copies != nil && f.copies.own {
		return
	}
	if size < old {
		f.wasCut()
		copied := f.record.Forget(size)
		if f.copies != nil {
			f.addCopied(-copied)
		}
	}
	f.size.Store(size)
}

// stored notes a store that the kernel may not have seen.
func (f *File) stored() { f.mtime.Store(time.Now().UnixNano()) }

// refreshSizeLocked asks the kernel for the size and returns it.
func (f *File) refreshSizeLocked() (int64, error) {
	var st unix.Stat_t
	if f.growMu.TryLock() {
		defer f.growMu.Unlock()
		if err := sys.Fstat(f.fd, &st); err != nil {
			return 0, err
		}
		f.adoptSize(st.Size)
	}
	return f.size.Load(), nil
}
