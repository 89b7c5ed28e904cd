package mapping

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/mapping/dirty"
	"mapfs/mapping/guard"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// An Outlet is where the bytes of a read go when they need not pass through
// memory of the Go heap.
type Outlet interface {
	// Begin is told that n bytes will follow. It returns the descriptor to
	// write to and what must stand before the bytes in the same writev(2).
	Begin(n int) (fd int, header []byte)
}

// MaxRead is the most bytes that one ReadTo may be asked for.
const MaxRead = 1 << 20

// bounce and longBounce hold buffers for reads that the mapping cannot serve: most are
// short, and a long buffer drives everything else out of the processor's caches.
var (
	bounce     = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}
	longBounce = sync.Pool{New: func() any { b := make([]byte, MaxRead); return &b }}
)

// bounceFor returns where buffers for n bytes are kept.
func bounceFor(n int64) *sync.Pool {
	if n <= 128<<10 {
		return &bounce
	}
	return &longBounce
}

// ReadTo sends up to n bytes, at most MaxRead, from off to the outlet, straight from the mapping.
// Fewer are sent only at the end of the file. sent reports whether the outlet's
// descriptor was written to, rightly or not: an error before that is the
// caller's to report. quiet says that the file's access time stays as it is
// (open(2): O_NOATIME).
func (f *File) ReadTo(out Outlet, off int64, n int, quiet bool) (sent bool, err error) {
	g, ok := paging.RangeOf(off, int64(min(n, MaxRead)))
	if !ok {
		return false, os.NewSyscallError("read", syscall.EINVAL)
	}
	if f.readsLazily(g) {
		if sent, done, err := f.sendUnmapped(out, g, quiet); done {
			return sent, err
		}
	}
	mem := f.rlock(min(g.End, f.size.Load()), forReading)
	defer f.mu.RUnlock()
	size := f.size.Load()
	known := false // the size is the kernel's, just asked for
	if g.End > size {
		if size, err = f.refreshSizeLocked(); err != nil {
			return false, err
		}
		known = true
	}
	g = g.Intersect(paging.Range{Off: 0, End: size})
	if g.Empty() {
		fd, header := out.Begin(0)
		_, err = f.sys.Writev(fd, header, nil)
		return true, err
	}
	if f.beenCut() || !f.presentLocked(mem, g, known) {
		return f.bounceTo(out, g, quiet)
	}
	fd, header := out.Begin(int(g.Len()))
	if _, err = f.sys.Writev(fd, header, mem[g.Off:g.End]); err != nil {
		if errnoIn(err) == syscall.EFAULT {
			f.wasCut()
		}
		return true, err
	}
	f.record.Set(g, dirty.Loaded)
	f.readMapped(quiet)
	f.loaded(g)
	return true, nil
}

// loaded counts a read and tells of it.
func (f *File) loaded(g paging.Range) {
	f.counters.Reads.add(f.table, EventRead)
	f.observe(Event{Kind: EventRead, Off: g.Off, Length: g.Len()})
}

// presentLocked reports whether the bytes of g can be taken from the mapping. A
// page that vanished because somebody else truncated the file would make the
// writev fail after the kernel has taken the answer for an error. A page or two that
// were loaded before are touched; for more, and for others, it is cheaper to ask for
// the size than to wait for pages in user mode. On a filesystem that fills holes a page must be
// there already. known says that the size was just asked for. f.mu must be held.
func (f *File) presentLocked(mem []byte, g paging.Range, known bool) bool {
	if g.End > int64(len(mem)) {
		return false
	}
	if f.copies != nil {
		return f.presentCopiesLocked(mem, g)
	}
	loaded := f.record.All(g, dirty.Loaded)
	if loaded && g.Len() <= touchMost {
		if fault := guard.Touch(mem[g.Off:g.End]); fault != 0 {
			f.faulted(mem, fault)
			f.wasCut()
			return false
		}
		return true
	}
	if !loaded && f.FillsHoles && !guard.Resident(mem[paging.PageDown(g.Off):g.End]) {
		return false
	}
	if known {
		return true
	}
	var st unix.Stat_t
	if sys.Fstat(f.fd, &st) != nil {
		return false
	}
	if st.Size < g.End {
		f.wasCut()
		return false
	}
	return true
}

// touchMost is the longest read, in bytes, of which the pages are touched.
const touchMost = 8 << 10

// bounceTo sends the bytes of g by way of pread(2).
func (f *File) bounceTo(out Outlet, g paging.Range, quiet bool) (sent bool, err error) {
	pool := bounceFor(g.Len())
	buf := pool.Get().(*[]byte)
	defer pool.Put(buf)
	f.beforeRead(quiet)
	n, err := f.readPast((*buf)[:g.Len()], g.Off)
	if err != nil && n == 0 {
		return false, err
	}
	if end := g.Off + int64(n); end < g.End && end != f.size.Load() {
		// Somebody has cut the file.
		if _, err := f.refreshSizeLocked(); err != nil {
			return false, err
		}
	}
	f.loaded(paging.Range{Off: g.Off, End: g.Off + int64(n)})
	fd, header := out.Begin(n)
	_, err = f.sys.Writev(fd, header, (*buf)[:n])
	return true, err
}

// readPast reads without sending or copying straight from the mapping. f.mu must be
// held.
func (f *File) readPast(p []byte, off int64) (n int, err error) {
	if f.copies != nil {
		return f.readCopiesLocked(p, off)
	}
	return f.preadFull(p, off)
}

// preadFull reads until p is full or the file ends. A pread(2) that ends where the
// file does need not be asked again.
func (f *File) preadFull(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := f.sys.Pread(f.fd, p[n:], off+int64(n))
		if err != nil {
			return n, err
		}
		n += m
		if m == 0 || off+int64(n) == f.size.Load() {
			break
		}
	}
	return n, nil
}

// ReadAt loads len(p) bytes from off into p. It returns fewer only at the end of
// the file, and then no error.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	g, ok := paging.RangeOf(off, int64(len(p)))
	if !ok {
		return 0, os.NewSyscallError("read", syscall.EINVAL)
	}
	mem := f.rlock(min(g.End, f.size.Load()), forReading)
	defer f.mu.RUnlock()
	size := f.size.Load()
	known := false
	if g.End > size {
		var err error
		if size, err = f.refreshSizeLocked(); err != nil {
			return 0, err
		}
		known = true
	}
	g = g.Intersect(paging.Range{Off: 0, End: size})
	p = p[:g.Len()]
	if len(p) == 0 {
		return 0, nil
	}
	f.loaded(g)
	if f.presentLocked(mem, g, known) {
		fault := guard.Load(p, mem[g.Off:g.End])
		if fault == 0 {
			f.record.Set(g, dirty.Loaded)
			f.readMapped(false)
			return len(p), nil
		}
		f.faulted(mem, fault)
	}
	f.beforeRead(false)
	return f.readPast(p, g.Off)
}

// WriteAt stores p at off and returns how many bytes were stored: fewer than
// len(p) when the filesystem filled up on the way. A write past the end grows
// the file by just what was stored; the bytes between are zero. by says who
// changes the bytes.
func (f *File) WriteAt(p []byte, off int64, by Origin) (int, error) {
	g, ok := paging.RangeOf(off, int64(len(p)))
	if !ok {
		return 0, os.NewSyscallError("write", syscall.EFBIG)
	}
	if g.Empty() {
		return 0, nil
	}
	f.changes()
	for {
		if f.copying() {
			if n, done, err := f.copyOver(p, g, by); done {
				return n, err
			}
			continue
		}
		if g.End <= f.size.Load() {
			if n, done, err := f.overwrite(p, g, by); done {
				return n, err
			}
		}
		if n, done, err := f.extend(p, g, by); done {
			return n, err
		}
	}
}

// overwrite stores p at g, which lies inside the file. done is false when the
// file has become shorter or changed its mode meanwhile.
//
// How is chosen page by page history: the first write to a page since its last
// write-back goes by pwrite(2), which is the cheapest way to a page that is not
// in the page table; the second by process_vm_writev(2), where the kernel makes
// the page writable; from the third on a plain copy does.
func (f *File) overwrite(p []byte, g paging.Range, by Origin) (n int, done bool, err error) {
	warm := f.record.All(g, dirty.Written)
	var mem []byte
	if warm {
		mem = f.rlock(g.End, forWriting)
	} else {
		f.mu.RLock() // pwrite needs no mapping
	}
	defer f.mu.RUnlock()
	if g.End > f.size.Load() || f.copies != nil {
		return 0, false, nil
	}
	if g.End <= int64(len(mem)) && f.storeLocked(mem, p, g) {
		f.stored()
		f.record.Set(g, dirty.Written|dirty.Stored|by.state())
		f.wrote(g, by)
		return len(p), true, nil
	}
	n, err = f.pwriteFull(p, g.Off)
	g.End = g.Off + int64(n)
	f.record.Set(g, dirty.Written|by.state())
	if n > 0 {
		f.wrote(g, by)
	}
	return n, true, err
}

// storeLocked stores p at g through the mapping, by its own hand where the pages
// are known to be writable, else by the kernel's. It reports false when that
// faults. f.mu must be held.
func (f *File) storeLocked(mem, p []byte, g paging.Range) bool {
	if f.record.All(g, dirty.Stored) || f.table.vmwriteOff.Load() {
		fault := guard.Store(mem[g.Off:g.End], p)
		if fault != 0 {
			f.faulted(mem, fault)
		}
		return fault == 0
	}
	if err := f.sys.Vmwrite(mem[g.Off:g.End], p); err != nil {
		f.faulted(mem, guard.AddressOf(mem[g.Off:])) // some page of it; which, the kernel does not tell
		return false
	}
	return true
}

// pwriteFull writes until p is at its end, an error comes or nothing more is
// taken. The error is only returned when nothing was written: the next write
// will meet it again.
func (f *File) pwriteFull(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := f.sys.Pwrite(f.fd, p[n:], off+int64(n))
		if err != nil {
			if n > 0 {
				return n, nil
			}
			return 0, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}

// extend stores p at g, which reaches past the end of the file. Growth and bytes
// come in one pwrite(2): a crash between them leaves no zeros behind, and a full
// filesystem is told before the size changes. done is false when the file has
// changed its mode meanwhile.
func (f *File) extend(p []byte, g paging.Range, by Origin) (n int, done bool, err error) {
	f.growMu.Lock()
	defer f.growMu.Unlock()
	if f.copies != nil {
		return 0, false, nil
	}
	if err := f.clearTail(g.Off); err != nil {
		return 0, true, err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	n, err = f.pwriteFull(p, g.Off)
	f.grownLocked(paging.Range{Off: g.Off, End: g.Off + int64(n)}, by)
	return n, true, err
}

// Append stores p at the end of the file, wherever others have moved it, and
// returns where that was.
func (f *File) Append(p []byte, by Origin) (off int64, n int, err error) {
	if len(p) == 0 {
		return f.size.Load(), 0, nil
	}
	f.changes()
	if f.copying() {
		if err := f.table.makeRoom(f, int64(len(p))); err != nil {
			return 0, 0, err
		}
	}
	f.growMu.Lock()
	defer f.growMu.Unlock()
	if f.copies != nil {
		return f.appendCopies(p, by)
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if n, err = f.sys.AppendTo(f.fd, p); err != nil {
		return 0, 0, err
	}
	var st unix.Stat_t
	if err = sys.Fstat(f.fd, &st); err != nil {
		return 0, 0, err
	}
	off = st.Size - int64(n)
	f.grownLocked(paging.Range{Off: off, End: st.Size}, by)
	return off, n, nil
}

// grownLocked takes over the size after bytes were written at g. f.growMu and
// f.mu must be held, the latter at least shared.
func (f *File) grownLocked(g paging.Range, by Origin) {
	if g.Empty() {
		return
	}
	f.record.Set(g, dirty.Written|by.state())
	f.wrote(g, by)
	f.growLocked(g.End)
}

// growLocked takes over a larger size and tells of it. f.growMu must be held.
func (f *File) growLocked(size int64) {
	if old := f.size.Load(); size > old {
		f.size.Store(size)
		f.observe(Event{Kind: EventExtend, Off: old, Length: size - old})
	}
}

// clearTail makes sure that the bytes between the end of the file and off, or
// the end of the last page if that is nearer, are zero before the file grows
// over them. tmpfs keeps what somebody stored past the end through a mapping and
// would show it again. It also learns the true size, because clearing bytes that
// are inside the file would destroy them. f.growMu must be held.
func (f *File) clearTail(off int64) error {
	var st unix.Stat_t
	f.mu.RLock()
	err := sys.Fstat(f.fd, &st)
	if err == nil {
		f.adoptSize(st.Size)
	}
	f.mu.RUnlock()
	if err != nil {
		return err
	}
	end, ok := paging.PageUp(st.Size)
	if !ok {
		return nil
	}
	tail := paging.Range{Off: st.Size, End: min(end, off)}
	if tail.Empty() {
		return nil
	}
	mem := f.rlock(tail.End, forWriting)
	defer f.mu.RUnlock()
	if tail.End <= int64(len(mem)) {
		// A page that faults is a hole of a full filesystem, and zero.
		if cleared, _ := guard.Zero(mem[tail.Off:tail.End]); cleared > 0 {
			f.observe(Event{Kind: EventZero, Off: tail.End - int64(cleared), Length: int64(cleared)})
		}
	}
	// Without a mapping there is no way to look, and where mmap is impossible
	// nobody's mapping can have left bytes there.
	return nil
}

// Truncate sets the size. What is cut off is gone; what is added reads as zero.
func (f *File) Truncate(size int64) error {
	if size < 0 {
		return os.NewSyscallError("ftruncate", syscall.EINVAL)
	}
	f.changes()
	f.growMu.Lock()
	defer f.growMu.Unlock()
	if f.copies != nil {
		return f.truncateCopies(size)
	}
	if err := f.clearTail(size); err != nil {
		return err
	}
	old := f.size.Load()
	if size >= old {
		f.mu.RLock()
		defer f.mu.RUnlock()
	} else {
		// Nobody may be sending or storing bytes that are about to vanish.
		f.mu.Lock()
		defer f.mu.Unlock()
	}
	if err := f.sys.Ftruncate(f.fd, size); err != nil {
		return err
	}
	f.mtime.Store(0) // the kernel has just set a newer one
	if size < old {
		f.record.Forget(size)
	}
	f.size.Store(size)
	if size > 0 && size != old {
		f.record.Set(paging.Range{Off: size - 1, End: size}, dirty.Written|dirty.UnsyncedTruncate)
	}
	f.observe(Event{Kind: EventTruncate, Off: old, Length: size})
	return nil
}

// Allocate is fallocate(2) with the given mode: 0, KEEP_SIZE, PUNCH_HOLE,
// ZERO_RANGE or what else the filesystem knows.
func (f *File) Allocate(mode uint32, off, length int64) error {
	g, ok := paging.RangeOf(off, length)
	if !ok || length == 0 {
		return os.NewSyscallError("fallocate", syscall.EINVAL)
	}
	f.changes()
	for {
		if f.copying() {
			if done, err := f.allocateCopies(mode, g); done {
				return err
			}
		}
		if done, err := f.allocate(mode, g); done {
			return err
		}
	}
}

// allocate is Allocate in the mode Shared. done is false when the file has changed
// its mode meanwhile.
func (f *File) allocate(mode uint32, g paging.Range) (done bool, err error) {
	f.growMu.Lock()
	defer f.growMu.Unlock()
	if f.copies != nil {
		return false, nil
	}
	grows := mode&unix.FALLOC_FL_KEEP_SIZE == 0 && g.End > f.size.Load()
	if grows {
		if err := f.clearTail(g.End); err != nil {
			return true, err
		}
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if err := f.sys.Fallocate(f.fd, mode, g.Off, g.Len()); err != nil {
		return true, err
	}
	if grows {
		f.growLocked(g.End)
	}
	if in := g.Intersect(paging.Range{Off: 0, End: f.size.Load()}); !in.Empty() && mode&^unix.FALLOC_FL_KEEP_SIZE != 0 {
		f.record.Clear(in, dirty.Loaded|dirty.Stored) // the pages there are other ones now
		f.record.Set(in, dirty.Written|dirty.UnsyncedTruncate)
	}
	return true, nil
}

// Origin says who changes bytes. The zero value is write(2) by an unknown
// process.
type Origin struct {
	// Store: the bytes were stored through somebody's mapping of the file.
	Store bool
	// PID is the process that called write(2), if known.
	PID uint32
}

// state returns the page state that remembers the cause.
func (o Origin) state() dirty.State {
	if o.Store {
		return dirty.UnsyncedStore
	}
	return dirty.UnsyncedWrite
}

// wrote counts a change of the bytes of g and tells of it.
func (f *File) wrote(g paging.Range, by Origin) {
	kind, counter := EventWrite, &f.counters.Writes
	if by.Store {
		kind, counter = EventStore, &f.counters.Stores
	}
	counter.add(f.table, kind)
	f.observe(Event{Kind: kind, Off: g.Off, Length: g.Len(), PID: by.PID})
}

// faulted counts a fault in mapped memory and tells of it. mem is the mapping
// from the file's first byte.
func (f *File) faulted(mem []byte, addr uintptr) {
	f.counters.Faults.add(f.table, EventFault)
	f.observe(Event{Kind: EventFault, Addr: addr, Off: paging.PageDown(int64(addr - guard.AddressOf(mem))), Length: paging.PageSize})
}
