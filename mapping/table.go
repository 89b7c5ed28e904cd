package mapping

import (
	"container/list"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"mapfs/mapping/paging"
	"mapfs/mapping/share"
	"mapfs/mapping/sys"
)

// Config says how a [Table] keeps its files.
type Config struct {
	// MaxMappings caps the mappings that live at a time. 0 is a quarter of
	// vm.max_map_count: running out of map areas would end the process.
	MaxMappings int
	// MaxMappedBytes caps the address space of the mappings of files. 0 is half of what
	// the process has left of it (setrlimit(2): RLIMIT_AS). A file that does not fit
	// is served by pread(2) and pwrite(2) in the mode Shared, and cannot be changed in
	// the others (ENOMEM).
	MaxMappedBytes int64
	// MaxIdle caps the files that are kept open and mapped though nobody uses
	// them; what a private file has copied then stays in memory without it. 0 is a
	// quarter of the limit of open descriptors.
	MaxIdle int
	// Mode is that of files that SetMode gives no other.
	Mode Mode
	// DirtyLimit is how many bytes the copied pages of all files may take
	// together: a writer that would exceed it waits while staged files are written
	// back. 0 is a quarter of the memory.
	DirtyLimit int64
	// OnlyOnSync says that staged files are written back by [File.Sync] and [File.Msync]
	// alone. A writer that would exceed DirtyLimit then gets ENOSPC, and what files have in
	// memory that nobody uses stays there without them.
	OnlyOnSync bool
	// ManyUsers says that the files' owners share DirtyLimit: none of them can take it
	// all.
	ManyUsers bool
	// MapLazily puts off mapping a file until that pays: small reads are served by
	// pread(2) the first time, until [Table.MapNow] is called. What only few bytes are
	// read of, once, then costs no mmap(2), no page fault and no munmap(2).
	MapLazily bool
	// NoATime keeps the access times of all files as they are.
	NoATime bool
	// Log gets what no caller can be told; slog.Default if nil.
	Log *slog.Logger
	// Observer is told what happens to the files; nobody if nil.
	Observer Observer
	// System are the system calls, of which a test can make one fail; the real ones if
	// nil.
	System *sys.System
}

// Table is the set of files that are open or were until lately, each with at
// most one mapping.
type Table struct {
	sys         *sys.System
	log         *slog.Logger
	observer    Observer
	counters    Counters
	remembered  rememberedFiles
	modes       fileModes
	maxMappings int64
	maxMapped   int64 // bytes
	maxIdle     int
	onlyOnSync  bool        // Config.OnlyOnSync
	passed      atomic.Bool // some file has been passed; see passed.go

	// copied counts the pages with their own bytes in the engine's memory, by the
	// owner of the file, as a disk quota counts blocks.
	copied  *share.Pool
	holding atomic.Int64 // the length of held
	// restamped is the number of files that show another ctime than the inode has.
	restamped atomic.Int64

	mappings    atomic.Int64 // live or reserved mappings
	mappedBytes atomic.Int64
	reserved    atomic.Int64 // bytes of live or reserved mappings
	holeRuns    atomic.Int64 // see holePages
	lazy        atomic.Bool  // Config.MapLazily, until MapNow
	prompt      atomic.Int64 // see mayMap
	noATime     bool         // Config.NoATime
	vmwriteOff  atomic.Bool  // process_vm_writev(2) to oneself is refused here
	warnOnce    sync.Once

	// unused is the number of idle files, parkedN that of parked ones.
	unused  atomic.Int64
	parkedN atomic.Int64

	mu     sync.Mutex
	files  map[ID]*File
	parked map[ID]*parkedFile
	traits map[uint64]sys.Traits // by device
	idle   list.List             // of *File that nobody uses, the longest idle first
	kept   list.List             // the same, of those that are not simply closed
	ring   list.List             // of *File that have a mapping, in the order of the clock's hand
	held   list.List             // of *File with something in memory only, the longest so first
	closed bool
	// wake starts the janitor when the first file becomes idle.
	wake chan struct{}
	done chan struct{}
}

// NewTable returns an empty table. Close closes what it holds.
func NewTable(cfg Config) *Table {
	t := &Table{
		sys:         cfg.System,
		log:         defaultLog(cfg.Log),
		observer:    cfg.Observer,
		maxMappings: int64(cfg.MaxMappings),
		maxMapped:   cfg.MaxMappedBytes,
		maxIdle:     cfg.MaxIdle,
		onlyOnSync:  cfg.OnlyOnSync,
		modes:       fileModes{normal: cfg.Mode},
		noATime:     cfg.NoATime,
		files:       make(map[ID]*File),
		parked:      make(map[ID]*parkedFile),
		traits:      make(map[uint64]sys.Traits),
		wake:        make(chan struct{}, 1),
		done:        make(chan struct{}),
	}
	if t.sys == nil {
		t.sys = sys.New()
	}
	if t.observer == nil {
		t.observer = silent{}
	}
	if t.maxMappings <= 0 {
		t.maxMappings = maxMapCount() / 4
	}
	if t.maxIdle <= 0 {
		t.maxIdle = maxDescriptors() / 4
	}
	t.maxIdle = min(t.maxIdle, int(t.maxMappings))
	if cfg.DirtyLimit <= 0 {
		cfg.DirtyLimit = defaultDirtyLimit()
	}
	t.copied = share.NewPool(cfg.DirtyLimit/paging.PageSize, cfg.ManyUsers)
	t.lazy.Store(cfg.MapLazily)
	t.probeVMWrite()
	if t.maxMapped <= 0 {
		t.maxMapped = sys.FreeAddressSpace() / 2
	}
	go t.janitor()
	return t
}

// maxMapCount returns vm.max_map_count, or Linux's default.
func maxMapCount() int64 {
	if text, err := os.ReadFile("/proc/sys/vm/max_map_count"); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
			return n
		}
	}
	return 65530
}

// maxDescriptors returns how many descriptors the process may have.
func maxDescriptors() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Cur, 1<<20))
}

// probeVMWrite finds out whether process_vm_writev(2) to oneself is allowed: a
// container's seccomp filter often forbids it.
func (t *Table) probeVMWrite() {
	var dst, src [1]byte
	t.vmwriteOff.Store(t.sys.Vmwrite(dst[:], src[:]) != nil)
}

// Has reports whether the table has the file with the given identity, in use or idle.
func (t *Table) Has(id ID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.files[id] != nil
}

// Get returns the file with the given identity and a new reference to it, if
// the table has it and it allows the access; else nil. st is what stat(2) says
// of the inode now: an idle file that was changed by others is closed rather
// than returned, because on overlayfs an old descriptor can show an old copy
// for ever.
func (t *Table) Get(st *unix.Stat_t, writing bool) *File {
	t.mu.Lock()
	f := t.files[IDOf(st)]
	if f == nil {
		t.mu.Unlock()
		return nil
	}
	if f.refs == 0 && !f.held.Load() && f.last.changed(st) {
		t.forgetLocked(f)
		t.mu.Unlock()
		f.discard()
		return nil
	}
	if writing && !f.mayWrite.Load() {
		t.mu.Unlock()
		return nil
	}
	t.refLocked(f)
	t.mu.Unlock()
	return f
}

// Open takes over fd, an open descriptor of a regular file, and returns the
// file it stands for with a new reference. st is what fstat(2) says of fd,
// readable and writable what it allows. If the table has the inode already, fd
// replaces its descriptor when it allows more, and is closed when not.
func (t *Table) Open(fd int, st *unix.Stat_t, readable, writable bool) (*File, error) {
	t.mu.Lock()
	f, p := t.files[IDOf(st)], t.parked[IDOf(st)]
	if f == nil && p != nil {
		t.mu.Unlock()
		f, done, err := t.unpark(p, fd, st, readable, writable)
		if !done {
			return t.Open(fd, st, readable, writable) // somebody else was faster, or it was another inode
		}
		return f, err
	}
	if f == nil {
		f = t.newFileLocked(fd, st, readable, writable)
		f.record = t.remembered.take(f.id, fd)
		f.setModeLocked(t.modes.of(f.id, fd))
		t.files[f.id] = f
		t.mu.Unlock()
		return f, nil
	}
	t.refLocked(f)
	f.Changed()
	t.mu.Unlock()
	if err := f.offerDescriptor(fd, readable, writable); err != nil {
		f.Release(false)
		return nil, err
	}
	return f, nil
}

// newFileLocked returns a File of fd with one reference, which the table does not
// have yet. t.mu must be held.
func (t *Table) newFileLocked(fd int, st *unix.Stat_t, readable, writable bool) *File {
	f := &File{table: t, sys: t.sys, id: IDOf(st), owner: st.Uid, fd: fd, readable: readable, writable: writable, refs: 1}
	f.Traits = t.traitsLocked(st.Dev, fd)
	f.atimeIs(st)
	f.mayWrite.Store(writable)
	f.size.Store(st.Size)
	f.last.looks(st)
	return f
}

// OpenFile opens the regular file name as os.OpenFile does and returns it with a new
// reference. It must be opened for reading, for mmap(2) needs that; O_APPEND and
// O_TRUNC are for the caller's own writes to do ([File.Append], [File.Truncate]) and
// are EINVAL.
func (t *Table) OpenFile(name string, flag int, perm os.FileMode) (*File, error) {
	if flag&(os.O_WRONLY|os.O_APPEND|os.O_TRUNC) != 0 {
		return nil, &os.PathError{Op: "open", Path: name, Err: unix.EINVAL}
	}
	fd, err := unix.Open(name, flag|unix.O_CLOEXEC, uint32(perm.Perm()))
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	var st unix.Stat_t
	if err = sys.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.EINVAL
	}
	if err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	f, err := t.Open(fd, &st, true, flag&os.O_RDWR != 0)
	if err == nil {
		f.SetName(name)
	}
	return f, err
}

// traitsLocked is traitsOf fd, which is on dev, asked once for each device. t.mu must
// be held.
func (t *Table) traitsLocked(dev uint64, fd int) sys.Traits {
	is, known := t.traits[dev]
	if !known {
		is = sys.TraitsOf(fd)
		t.traits[dev] = is
	}
	return is
}

// Ref takes another reference to a file that somebody has open. It reports false
// if the last one has just been given back.
func (f *File) Ref() bool {
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	if f.refs == 0 {
		return false
	}
	f.refs++
	return true
}

// refLocked adds a reference to f. t.mu must be held.
func (t *Table) refLocked(f *File) {
	t.unidleLocked(f)
	f.refs++
}

// Find returns the file with the given identity and a new reference to it, idle
// or not, or nil if the table does not have it. [File.Unref] gives it back.
func (t *Table) Find(id ID) *File {
	f, _ := t.find(id)
	return f
}

// find is Find; p is what is left of the file if it is parked.
func (t *Table) find(id ID) (f *File, p *parkedFile) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f = t.files[id]; f != nil {
		t.refLocked(f)
		return f, nil
	}
	return nil, t.parked[id]
}

// Unref gives back a reference that [Table.Find] or [Table.Files] returned. Looking
// at a file is no use of it: how long it stays mapped does not change.
func (f *File) Unref() { f.table.release(f) }

// Count returns how many files the table has.
func (t *Table) Count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.files)
}

// UnsyncedBytes returns how many bytes of all files a power cut now would take.
func (t *Table) UnsyncedBytes() int64 {
	var total int64
	t.askKernelOfAll()
	// Most files have nothing unsynced, and many can be open.
	for _, f := range t.filesThat(func(f *File) bool { return f.record.Unsynced() }) {
		total += f.UnsyncedBytes()
		f.Unref()
	}
	return total + t.remembered.unsyncedBytes() + t.parkedUnsynced()
}

// Files returns every file the table has, each with a new reference.
func (t *Table) Files() []*File { return t.filesThat(func(*File) bool { return true }) }

// filesThat is Files of those that suit. t.mu is held while it asks.
func (t *Table) filesThat(suit func(*File) bool) (files []*File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.files {
		if suit(f) {
			t.refLocked(f)
			files = append(files, f)
		}
	}
	return files
}

// warnUnmappable says once that some files are served by pread and pwrite.
func (t *Table) warnUnmappable(err error) {
	t.warnOnce.Do(func() {
		t.log.Warn("a file cannot be mapped; it and its like are served by pread and pwrite", "error", err)
	})
}

// reserveMapping makes room for one more mapping, of as many bytes as a file of the
// given size would take with room to grow, or else of its first end bytes. It evicts
// mappings that were not used lately where a cap is reached, and reports false when
// that does not help.
func (t *Table) reserveMapping(size, end int64) (length int64, ok bool) {
	for {
		n := t.mappings.Load()
		switch {
		case n >= t.maxMappings:
			if !t.evict() {
				return 0, false
			}
			continue
		case !t.mappings.CompareAndSwap(n, n+1):
			continue
		}
		break
	}
	if length, ok = paging.SpanFor(size); ok && t.reserveBytes(length) {
		return length, true
	}
	if length, ok = paging.PageUp(end); ok && t.reserveBytes(length) {
		return length, true
	}
	t.mappings.Add(-1)
	return 0, false
}

// reserveBytes makes room for length more bytes of mappings.
func (t *Table) reserveBytes(length int64) bool {
	for {
		n := t.reserved.Load()
		switch {
		case length > t.maxMapped:
			return false // however many are evicted
		case n+length > t.maxMapped:
			if !t.evict() {
				return false
			}
		case t.reserved.CompareAndSwap(n, n+length):
			return true
		}
	}
}

// unreserveMapping gives back what reserveMapping made room for.
func (t *Table) unreserveMapping(length int64) {
	t.mappings.Add(-1)
	t.reserved.Add(-length)
}

// addMapping counts a mapping of length bytes for which reserved ones were reserved.
func (t *Table) addMapping(f *File, length, reserved int64) {
	t.mappedBytes.Add(length)
	t.reserved.Add(length - reserved)
	t.mu.Lock()
	f.ringAt = t.ring.PushBack(f)
	t.mu.Unlock()
}

// removeMapping uncounts a mapping of length bytes.
func (t *Table) removeMapping(f *File, length int64) {
	t.mappedBytes.Add(-length)
	t.reserved.Add(-length)
	t.mappings.Add(-1)
	t.mu.Lock()
	t.ring.Remove(f.ringAt)
	f.ringAt = nil
	t.mu.Unlock()
}

// MaxMappedBytes returns the cap of the address space that mappings of files take.
func (t *Table) MaxMappedBytes() int64 { return t.maxMapped }

// evict drops the mapping of one file, the first on the ring that was not used
// since the hand passed it last. The file stays open.
func (t *Table) evict() bool {
	t.mu.Lock()
	turns := 2 * t.ring.Len()
	t.mu.Unlock()
	for ; turns > 0; turns-- {
		t.mu.Lock()
		e := t.ring.Front()
		if e == nil {
			t.mu.Unlock()
			return false
		}
		f := e.Value.(*File)
		t.ring.MoveToBack(e)
		t.mu.Unlock()
		if f.used.Swap(false) {
			continue
		}
		// A busy file is passed over: waiting here could wait for ourselves.
		if f.Evict() {
			f.observe(Event{Kind: EventEvict})
			return true
		}
	}
	return false
}

// Mappings returns the number of live mappings and the bytes of address space
// they take.
func (t *Table) Mappings() (count, length int64) { return t.mappings.Load(), t.mappedBytes.Load() }

// SyncAll writes back every file that has unsynced bytes, and goes on after an
// error. It returns the errors of all.
func (t *Table) SyncAll() error {
	var errs []error
	for _, f := range t.Files() {
		if f.UnsyncedPages() > 0 || f.mtime.Load() != 0 || f.held.Load() {
			seen := f.Failures()
			if err := f.Sync(&seen, false); err != nil {
				errs = append(errs, err)
			}
		}
		t.release(f)
	}
	return errors.Join(errs...)
}

// Close closes every file. Nobody may use the table's files any more.
func (t *Table) Close() {
	t.mu.Lock()
	t.closed = true
	close(t.done)
	files := t.files
	t.files = make(map[ID]*File)
	t.parked = nil
	t.idle.Init()
	t.kept.Init()
	t.mu.Unlock()
	for _, f := range files {
		f.discard()
	}
}
