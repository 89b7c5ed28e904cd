package fs

import (
	"encoding/binary"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
	"mapfs/mapping"
	"mapfs/mapping/sys"
)

// dirHandle is an open directory. The kernel asks for a few entries at a time;
// the backing filesystem is asked for many.
type dirHandle struct {
	fd  int
	dev uint64
	// asDirs says that directories and regular files are shown, both as directories,
	// and everything else is left out.
	asDirs bool
	// hidden is the name of an entry that is not shown; "" if all are.
	hidden string

	// mu guards the rest: readdir of one open directory can come from several
	// threads.
	mu sync.Mutex
	// buf[at:end] are entries that getdents64(2) returned and nobody was told
	// yet; next is the offset that the first of them answers to. buf is nil until the
	// first look, and again from the end of the directory on.
	buf     *direntsBuffer
	at, end int
	next    int64
	// started says that the descriptor is not at the beginning any more; ended, that
	// the end was found together with the last entries, and nobody was told yet.
	started, ended bool
}

// direntsBuffer holds as many bytes of entries as are asked for at a time.
type direntsBuffer [32 << 10]byte

// direntsBuffers lends them: a walk over a tree opens a directory after the other, and
// memory that was never touched is dear.
var direntsBuffers = sync.Pool{New: func() any { return new(direntsBuffer) }}

// release gives the buffer back. d.mu must be held.
func (d *dirHandle) release() {
	if d.buf != nil {
		direntsBuffers.Put(d.buf)
		d.buf = nil
	}
	d.at, d.end = 0, 0
}

// close closes what d holds.
func (d *dirHandle) close() {
	unix.Close(d.fd)
	// Nobody reads it any more, but only the kernel knows the order of the last reply
	// and this.
	d.mu.Lock()
	defer d.mu.Unlock()
	d.release()
}

func (s *Session) opendir(w *wire.Worker, r *fuse.OpenRequest) error {
	n := s.nodes.get(r.Node)
	if n == nil {
		return syscall.ESTALE
	}
	out, err := s.openDir(n, &r.Header, r.Flags&unix.O_NOATIME != 0, false)
	if err != nil {
		return err
	}
	if s.opts.Exclusive {
		// The kernel drops what it has whenever a client changes the directory.
		out.OpenFlags = uint32(fuse.OpenCacheDir | fuse.OpenKeepCache)
	}
	return w.Send(wire.BytesOf(&out))
}

// openDir makes a handle of the directory n for the client that sent a request. quiet
// says that the directory's access time stays as it is (open(2): O_NOATIME).
func (s *Session) openDir(n *Node, client *fuse.Header, quiet, asDirs bool) (out wire.OpenOut, err error) {
	if err := s.admit(client.Uid); err != nil {
		return out, err
	}
	defer func() {
		if err != nil {
			s.dismiss(client.Uid)
		}
	}()
	d, err := s.dir(n)
	if err != nil {
		return out, err
	}
	defer s.dirs.put(d)
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	fd, err := -1, error(syscall.EPERM)
	if quiet || s.opts.NoATime || s.opts.NoDirATime {
		fd, err = unix.Openat(d.fd, ".", flags|unix.O_NOATIME, 0)
	}
	if err == syscall.EPERM { // somebody else's directory, too
		fd, err = unix.Openat(d.fd, ".", flags, 0)
	}
	if err != nil {
		return out, os.NewSyscallError("openat", err)
	}
	h := &handle{node: n, user: client.Uid, dir: &dirHandle{fd: fd, dev: n.key.Dev, asDirs: asDirs}}
	if s.history != nil && n.id == fuse.RootID {
		h.dir.hidden = s.history.stash.name
	}
	out.Fh = uint64(s.handles.add(h))
	return out, nil
}

// ReadDir answers with the entries from an offset on. Offsets are the backing
// filesystem's own cookies, so they stay right while entries come and go, and
// seekdir(3) works.
func (s *Session) ReadDir(w *wire.Worker, r *fuse.ReadRequest) error {
	h := s.handles.get(r.Handle)
	if h == nil || h.dir == nil {
		return syscall.EBADF
	}
	out := bounceBuffers.Get().(*[]byte)
	defer bounceBuffers.Put(out)
	size := min(r.Size, cap(*out))
	h.dir.mu.Lock()
	entries, err := h.dir.read((*out)[:0:size], r.Offset, &s.devices, nil)
	h.dir.mu.Unlock()
	if err != nil {
		return err
	}
	return w.SendBytes(entries)
}

// ReadDirPlus is ReadDir of entries that are looked up as well: all but those of
// OpenAsDirs, which stand for something else.
func (s *Session) ReadDirPlus(w *wire.Worker, r *wire.ReaddirplusRequest) error {
	h := s.handles.get(r.Handle)
	if h == nil || h.dir == nil {
		return syscall.EBADF
	}
	out := bounceBuffers.Get().(*[]byte)
	defer bounceBuffers.Put(out)
	size := min(r.Size, cap(*out))
	at := dirFD{id: h.node.id, fd: h.dir.fd}
	look := func(entry *wire.EntryOut, name []byte) { s.lookEntry(entry, &at, name) }
	if h.dir.asDirs {
		look = func(*wire.EntryOut, []byte) {}
	}
	h.dir.mu.Lock()
	entries, err := h.dir.read((*out)[:0:size], r.Offset, &s.devices, look)
	h.dir.mu.Unlock()
	if err != nil {
		return err
	}
	if err := w.SendBytes(entries); err != nil {
		// Nobody got it, so nobody will forget what is in it.
		for id := range wire.Looked(entries) {
			s.forget(id, 1)
		}
	}
	return wire.ErrAnswered
}

// lookEntry looks up a name in an open directory and counts the lookup. What cannot be
// looked up, or is not the mirror's, leaves entry as it is: with number 0, which says that
// nothing was looked up.
func (s *Session) lookEntry(entry *wire.EntryOut, at *dirFD, name []byte) {
	called := unsafe.String(unsafe.SliceData(name), len(name))
	if called == "." || called == ".." || at.id == fuse.RootID && s.reserves(called) {
		return
	}
	var st unix.Stat_t
	if err := sys.Lstatat(at.fd, called, &st); err != nil {
		return // it has just been removed
	}
	s.fillEntry(entry, &st, place{at, called}, at.id)
}

// bounceBuffers holds buffers for answers of variable length.
var bounceBuffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// read appends the entries from off on to out, as many as its capacity allows. look, if it
// is not nil, looks each of them up. d.mu must be held.
func (d *dirHandle) read(out []byte, off int64, devices *deviceTable, look func(entry *wire.EntryOut, name []byte)) ([]byte, error) {
	if off != d.next || off == 0 && d.started {
		if _, err := unix.Seek(d.fd, off, unix.SEEK_SET); err != nil {
			return nil, os.NewSyscallError("lseek", err)
		}
		d.at, d.end, d.next, d.ended = 0, 0, off, false
	}
	if d.ended {
		d.ended = false // who asks once more is told what is there by then
		return out, nil
	}
	d.started = true
	if d.buf == nil {
		d.buf = direntsBuffers.Get().(*direntsBuffer)
	}
	for {
		if d.at == d.end {
			n, err := unix.Getdents(d.fd, d.buf[:])
			if err != nil {
				if len(out) > 0 {
					return out, nil // told at the next call
				}
				return nil, os.NewSyscallError("getdents64", err)
			}
			if n == 0 {
				d.ended = len(out) > 0 // an empty answer is the end already
				d.release()
				return out, nil
			}
			d.at, d.end = 0, n
		}
		header, name, reclen := d.entryAt(d.at, devices)
		kind := header.Type
		if d.asDirs {
			header.Type = unix.DT_DIR
		}
		if d.shows(kind, name) {
			if len(out)+wire.DirentSize(name)+wire.PlusSize(look != nil) > cap(out) {
				return out, nil
			}
			if look != nil {
				var entry wire.EntryOut
				look(&entry, name)
				out = append(out, wire.BytesOf(&entry)...)
			}
			out = wire.AppendDirent(out, &header, name)
		}
		d.at += reclen
		d.next = int64(header.Off)
	}
}

// shows reports whether an entry is one that the handle shows.
func (d *dirHandle) shows(kind uint32, name []byte) bool {
	if d.hidden != "" && string(name) == d.hidden {
		return false
	}
	return !d.asDirs || kind == unix.DT_REG || kind == unix.DT_DIR || kind == unix.DT_UNKNOWN
}

// entryAt returns the entry at a place in the buffer, its name, which is in the buffer
// too, and how long its record is.
func (d *dirHandle) entryAt(at int, devices *deviceTable) (header wire.Dirent, name []byte, reclen int) {
	// Taken apart byte by byte: the last record in the buffer is shorter than the structure
	// with its longest name.
	entry := d.buf[at:d.end]
	ino := binary.NativeEndian.Uint64(entry[unsafe.Offsetof(unix.Dirent{}.Ino):])
	reclen = int(binary.NativeEndian.Uint16(entry[unsafe.Offsetof(unix.Dirent{}.Reclen):]))
	name = entry[unsafe.Offsetof(unix.Dirent{}.Name):reclen]
	header = wire.Dirent{
		Ino: devices.inode(mapping.ID{Dev: d.dev, Ino: ino}), Off: binary.NativeEndian.Uint64(entry[unsafe.Offsetof(unix.Dirent{}.Off):]),
		Type: uint32(entry[unsafe.Offsetof(unix.Dirent{}.Type)]),
	}
	return header, name[:clen(name)], reclen
}

// each calls fn for the entries of a directory that nobody has read from yet.
func (d *dirHandle) each(devices *deviceTable, fn func(e wire.Dirent, name string)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.buf = direntsBuffers.Get().(*direntsBuffer)
	defer d.release()
	for {
		n, err := unix.Getdents(d.fd, d.buf[:])
		if err != nil || n == 0 {
			return os.NewSyscallError("getdents64", err)
		}
		d.end = n
		for at := 0; at < n; {
			header, name, reclen := d.entryAt(at, devices)
			if d.shows(header.Type, name) {
				fn(header, string(name))
			}
			at += reclen
		}
	}
}

// clen returns the length of the NUL-terminated string in b.
func clen(b []byte) int {
	for i, c := range b {
		if c == 0 {
			return i
		}
	}
	return len(b)
}
