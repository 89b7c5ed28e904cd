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
	"time"

	"golang.org/x/sys/unix"
)

// idleTime is how long a file that nobody has open stays mapped: long enough
// for a shell to look again, short enough not to keep a filesystem busy.
const idleTime = 60 * time.Second

// idleCheck is how often idle files are looked at. One whose last name is gone
// is given up then, so that its space is freed.
const idleCheck = time.Second

// Config says how a [Table] keeps its files.
type Config struct {
	// MaxMappings caps the mappings that live at a time. 0 is a quarter of
	// vm.max_map_count: running out of map areas would end the process.
	MaxMappings int
	// MaxIdle caps the files that are kept open and mapped though nobody uses
	// them. 0 is a quarter of the limit of open descriptors.
	MaxIdle int
	// Mode is that of files that SetMode gives no other.
	Mode Mode
	// DirtyLimit is how many bytes the copied pages of all files may take
	// together: a writer that would exceed it waits while staged files are written
	// back. 0 is a quarter of the memory.
	DirtyLimit int64
	// MapLate puts off mapping a file until that pays: small reads are served by
	// pread(2) the first time, until [Table.MapNow] is called. What only few bytes are
	// read of, once, then costs no mmap(2), no page fault and no munmap(2).
	MapLate bool
	// Log gets what no caller can be told; slog.Default if nil.
	Log *slog.Logger
	// Observer is told what happens to the files; nobody if nil.
	Observer Observer
}

// Table is the set of files that are open or were until lately, each with at
// most one mapping.
type Table struct {
	sys         *system
	log         *slog.Logger
	observer    Observer
	counters    Counters
	remembered  rememberedFiles
	modes       fileModes
	arena       *Arena
	maxMappings int64
	maxIdle     int
	maxCopied   int64 // pages

	copied  atomic.Int64 // pages with their own bytes in the engine's memory
	holding atomic.Int64 // the length of held
	// restamped is the number of files that show another ctime than the inode has.
	restamped atomic.Int64

	mappings    atomic.Int64 // live or reserved mappings
	mappedBytes atomic.Int64
	late        atomic.Bool  // Config.MapLate, until MapNow
	prompt      atomic.Int64 // see mayMap
	vmwriteOff  atomic.Bool  // process_vm_writev(2) to oneself is refused here
	warnOnce    sync.Once

	mu     sync.Mutex
	files  map[ID]*File
	holes  map[uint64]bool // by device: looking at a hole fills it
	idle   list.List       // of *File, the longest idle first
	ring   list.List       // of *File that have a mapping, in the order of the clock's hand
	held   list.List       // of *File with something in memory only, the longest so first
	closed bool
	// wake starts the janitor when the first file becomes idle.
	wake chan struct{}
	done chan struct{}
}

// lastUse is how a file was left by the last who had it open, or how it was when it
// was opened.
type lastUse struct {
	at   time.Time
	keep bool // it may stay mapped for a while
	// program: somebody may run it.
	program bool
	// linked says that the inode had a name, and born when it was made: for
	// who remembers what it leaves unsynced.
	linked bool
	born   unix.StatxTimestamp
	// What the inode looked like.
	size         int64
	mtime, ctime unix.Timespec
}

// looks notes what the inode looks like.
func (u *lastUse) looks(st *unix.Stat_t) {
	u.size, u.mtime, u.ctime = st.Size, st.Mtim, st.Ctim
	u.linked, u.program = st.Nlink > 0, st.Mode&0o111 != 0
}

// changed reports whether the inode looks different now.
func (u *lastUse) changed(st *unix.Stat_t) bool {
	return u.size != st.Size || u.mtime != st.Mtim || u.ctime != st.Ctim
}

// NewTable returns an empty table. Close gives up what it holds.
func NewTable(cfg Config) *Table { return newTable(cfg, newSystem()) }

func newTable(cfg Config, sys *system) *Table {
	t := &Table{
		sys:         sys,
		log:         defaultLog(cfg.Log),
		observer:    cfg.Observer,
		maxMappings: int64(cfg.MaxMappings),
		maxIdle:     cfg.MaxIdle,
		modes:       fileModes{normal: cfg.Mode},
		maxCopied:   cfg.DirtyLimit / PageSize,
		files:       make(map[ID]*File),
		holes:       make(map[uint64]bool),
		wake:        make(chan struct{}, 1),
		done:        make(chan struct{}),
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
		t.maxCopied = defaultDirtyLimit() / PageSize
	}
	t.late.Store(cfg.MapLate)
	t.probeVMWrite()
	t.arena = newArena(t)
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
	t.vmwriteOff.Store(t.sys.vmwrite(dst[:], src[:]) != nil)
}

// Has reports whether the table has the file with the given identity, in use or idle.
func (t *Table) Has(id ID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.files[id] != nil
}

// Get returns the file with the given identity and a new reference to it, if
// the table has it and it allows the access; else nil. st is what stat(2) says
// of the inode now: an idle file that was changed by others is given up rather
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
	if writing && !f.openForWriting.Load() {
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
	f := t.files[IDOf(st)]
	if f == nil {
		f = &File{
			table: t, sys: t.sys, id: IDOf(st), fd: fd, readable: readable, writable: writable,
			record: t.remembered.take(IDOf(st), fd),
		}
		f.fillsHoles = t.fillsHolesLocked(st.Dev, fd)
		f.openForWriting.Store(writable)
		f.size.Store(st.Size)
		f.last.looks(st)
		f.setModeLocked(t.modes.of(f.id, fd))
		t.files[f.id] = f
		t.refLocked(f)
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
	if err = fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
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

// fillsHolesLocked is fillsHoles of fd, which is on dev, asked once for each
// device. t.mu must be held.
func (t *Table) fillsHolesLocked(dev uint64, fd int) bool {
	fills, known := t.holes[dev]
	if !known {
		fills = fillsHoles(fd)
		t.holes[dev] = fills
	}
	return fills
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
	if f.idleAt != nil {
		t.idle.Remove(f.idleAt)
		f.idleAt = nil
	}
	f.refs++
}

// Release gives a reference back. With keep the file stays mapped for a while,
// in case it is opened again; without, it is unmapped and closed with the last
// reference. So is, in any case, a file that has no name any more, and a program
// that is open for writing: nobody could run it (execve(2): ETXTBSY).
func (f *File) Release(keep bool) {
	t := f.table
	t.mu.Lock()
	last := f.last
	t.mu.Unlock()
	if f.unlike.Swap(false) || f.copying() {
		last = f.lookAgain()
	}
	last.at = time.Now()
	last.keep = keep && last.linked && !(last.program && f.Writable())
	if last.linked && f.record.unsynced() {
		if !keep && t.remembered.full() {
			seen := f.Failures()
			if err := f.Sync(&seen, false); err != nil {
				t.log.Error("write-back before closing", "file", f.Name(), "error", err)
			}
		}
		_ = f.WithDescriptor(func(fd int) error { // open: the caller has a reference
			last.born = birth(fd)
			return nil
		})
	}
	t.mu.Lock()
	f.last = last
	t.mu.Unlock()
	t.release(f)
}

// lookAgain puts the time of the last store into the inode and returns what it looks
// like then.
func (f *File) lookAgain() (now lastUse) {
	var st unix.Stat_t
	err := f.Stat(&st)
	if err == nil && f.copying() { // what it shows is not what it is
		err = f.WithDescriptor(func(fd int) error { return fstat(fd, &st) })
	}
	if err == nil {
		now.looks(&st)
	}
	return now
}

// Changed notes that the inode may look different from when it was opened. Who changes
// its mode, its owner or its times past the engine says so.
func (f *File) Changed() {
	if !f.unlike.Load() {
		f.unlike.Store(true)
	}
}

// release gives a reference back without calling it a use.
func (t *Table) release(f *File) {
	var drop []*File
	t.mu.Lock()
	f.refs--
	if f.refs == 0 {
		if (f.last.keep || f.kept() && f.last.linked) && !t.closed {
			f.idleAt = t.idle.PushBack(f)
			select {
			case t.wake <- struct{}{}:
			default:
			}
			if t.idle.Len() > t.maxIdle {
				if oldest := t.oldestIdleLocked(); oldest != nil {
					drop = append(drop, oldest)
				}
			}
		} else {
			drop = append(drop, f)
		}
	}
	for _, f := range drop {
		t.forgetLocked(f)
	}
	t.mu.Unlock()
	for _, f := range drop {
		f.discard()
	}
}

// kept reports whether the file stays open when nobody uses it: mlock(2) keeps it,
// or it has what the backing file does not have.
func (f *File) kept() bool { return f.pinned.Load() || f.held.Load() }

// oldestIdleLocked returns the file that has been idle longest and is not kept,
// or nil. t.mu must be held.
func (t *Table) oldestIdleLocked() *File {
	for e := t.idle.Front(); e != nil; e = e.Next() {
		if f := e.Value.(*File); !f.kept() {
			return f
		}
	}
	return nil
}

// forgetLocked takes f, which has no references, out of the table and remembers
// what it leaves unsynced. t.mu must be held; the caller discards f after giving
// it up.
func (t *Table) forgetLocked(f *File) {
	delete(t.files, f.id)
	if f.last.linked && f.record.unsynced() && !f.held.Load() {
		t.remembered.add(f.id, rememberedFile{f.record, f.size.Load(), f.last.born})
	}
	if f.idleAt != nil {
		t.idle.Remove(f.idleAt)
		f.idleAt = nil
	}
}

// Forget gives up the file with the given identity if nobody uses it. gone says
// that its last name was removed: what it left unsynced is of no interest any more.
func (t *Table) Forget(id ID, gone bool) {
	if gone {
		defer t.remembered.forget(id)
		defer t.modes.forget(id)
	}
	t.mu.Lock()
	f := t.files[id]
	if f == nil || f.refs > 0 || f.kept() && !gone {
		if f != nil {
			f.Changed()
		}
		t.mu.Unlock()
		return
	}
	t.forgetLocked(f)
	t.mu.Unlock()
	f.discard()
}

// Find returns the file with the given identity and a new reference to it, idle
// or not, or nil if the table does not have it. [File.Unref] gives it back.
func (t *Table) Find(id ID) *File {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[id]
	if f != nil {
		t.refLocked(f)
	}
	return f
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
	for _, f := range t.Files() {
		total += f.UnsyncedBytes()
		f.Unref()
	}
	return total + t.remembered.unsyncedBytes()
}

// Files returns every file the table has, each with a new reference.
func (t *Table) Files() []*File {
	t.mu.Lock()
	defer t.mu.Unlock()
	files := make([]*File, 0, len(t.files))
	for _, f := range t.files {
		t.refLocked(f)
		files = append(files, f)
	}
	return files
}

// janitor gives up idle files that are old or have no name any more. It sleeps
// without a timer while there is none.
func (t *Table) janitor() {
	for {
		select {
		case <-t.done:
			return
		case <-t.wake:
		}
		for t.sweep() {
			select {
			case <-t.done:
				return
			case <-time.After(idleCheck):
			}
		}
	}
}

// sweep looks at every idle file once and reports whether any is left.
func (t *Table) sweep() bool {
	t.mu.Lock()
	var idle []*File
	for t.idle.Len() > 0 {
		f := t.idle.Front().Value.(*File)
		t.refLocked(f)
		idle = append(idle, f)
	}
	t.mu.Unlock()
	for _, f := range idle {
		var st unix.Stat_t
		err := f.WithDescriptor(func(fd int) error { return fstat(fd, &st) })
		t.mu.Lock()
		if err != nil || st.Nlink == 0 || time.Since(f.last.at) >= idleTime && !f.kept() {
			f.last.keep = false
			f.last.linked = err == nil && st.Nlink > 0
		}
		t.mu.Unlock()
		t.release(f)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.idle.Len() > 0
}

// warnUnmappable says once that some files are served by pread and pwrite.
func (t *Table) warnUnmappable(err error) {
	t.warnOnce.Do(func() {
		t.log.Warn("a file cannot be mapped; it and its like are served by pread and pwrite", "error", err)
	})
}

// reserveMapping makes room for one more mapping, by evicting one that was not
// used lately if the cap is reached. It reports false when every mapping is
// busy.
func (t *Table) reserveMapping() bool {
	for {
		n := t.mappings.Load()
		switch {
		case n >= t.maxMappings:
			if !t.evict() {
				return false
			}
		case t.mappings.CompareAndSwap(n, n+1):
			return true
		}
	}
}

// unreserveMapping gives back what reserveMapping made room for.
func (t *Table) unreserveMapping() { t.mappings.Add(-1) }

// addMapping counts a mapping of length bytes for which room was reserved.
func (t *Table) addMapping(f *File, length int64) {
	t.mappedBytes.Add(length)
	t.mu.Lock()
	f.ringAt = t.ring.PushBack(f)
	t.mu.Unlock()
}

// removeMapping uncounts a mapping of length bytes.
func (t *Table) removeMapping(f *File, length int64) {
	t.mappedBytes.Add(-length)
	t.mappings.Add(-1)
	t.mu.Lock()
	t.ring.Remove(f.ringAt)
	f.ringAt = nil
	t.mu.Unlock()
}

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
		if f.tryDropMapping() {
			f.observe(Event{Kind: EventEvict})
			return true
		}
	}
	return false
}

// Mappings returns the number of live mappings and the bytes of address space
// they take, explicit ones included.
func (t *Table) Mappings() (count, length int64) {
	count, length = t.arena.size()
	return count + t.mappings.Load(), length + t.mappedBytes.Load()
}

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

// Close gives up every file. Nobody may use the table's files any more.
func (t *Table) Close() {
	t.arena.close()
	t.mu.Lock()
	t.closed = true
	close(t.done)
	files := t.files
	t.files = make(map[ID]*File)
	t.idle.Init()
	t.mu.Unlock()
	for _, f := range files {
		f.discard()
	}
}
