package fs

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// controlHandle is an open file of the control tree.
type controlHandle interface {
	// read returns bytes from off on, at most size.
	read(w *worker, off int64, size int) ([]byte, error)
	// write takes the bytes of one write(2).
	write(w *worker, p []byte) error
}

// controlDir is an open directory of the control tree whose entries are fixed.
type controlDir struct {
	node    *controlNode
	entries []struct {
		name string
		kind controlKind
	}
}

func (d *controlDir) read(w *worker, off int64, size int) ([]byte, error) {
	names := []string{".", ".."}
	kinds := []controlKind{d.node.kind, controlRoot}
	for _, e := range d.entries {
		names, kinds = append(names, e.name), append(kinds, e.kind)
	}
	var out []byte
	for i := int(max(off, 0)); i < len(names); i++ {
		entry := controlNode{controlKey: controlKey{kinds[i], d.node.target, d.node.explicit}}
		next := appendDirent(out, &direntHeader{Ino: entry.inode(w.s), Off: uint64(i + 1), Type: kinds[i].mode() >> 12}, []byte(names[i]))
		if len(next) > size {
			break
		}
		out = next
	}
	return out, nil
}

func (d *controlDir) write(*worker, []byte) error { return syscall.EISDIR }

// readOnly is a controlHandle's refusal of writes.
type readOnly struct{}

func (readOnly) write(*worker, []byte) error { return syscall.EBADF }

// snapshot is an open file whose text was made when it was opened.
type snapshot struct {
	readOnly
	text string
	err  error
}

// snapshot makes the text of a file of the control tree.
func (s *Session) snapshot(write func(*strings.Builder) error) controlHandle {
	var b strings.Builder
	err := write(&b)
	return &snapshot{text: b.String(), err: err}
}

func (s *snapshot) read(_ *worker, off int64, size int) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	if off < 0 || off >= int64(len(s.text)) {
		return nil, nil
	}
	return []byte(s.text[off:min(off+int64(size), int64(len(s.text)))]), nil
}

// memoryHandle is an open memory file: the mapping itself.
type memoryHandle struct {
	readOnly
	target *node
}

func (h *memoryHandle) read(w *worker, off int64, size int) ([]byte, error) {
	f, err := w.s.acquire(h.target, accessRead)
	if err != nil {
		return nil, err
	}
	defer f.Release(true)
	p := make([]byte, size)
	n, err := f.ReadMemory(p, off)
	return p[:n], err
}

// backingHandle is an open backing file: what read(2) of the file below gives.
type backingHandle struct {
	readOnly
	target *node
}

func (h *backingHandle) read(w *worker, off int64, size int) ([]byte, error) {
	p := make([]byte, size)
	var n int
	err := w.s.withBacking(h.target, func(fd int) (err error) {
		n, err = unix.Pread(fd, p, off)
		return err
	})
	return p[:max(n, 0)], err
}

// withBacking calls fn with a descriptor of a regular file, without mapping the
// file or making it known to the engine.
func (s *Session) withBacking(n *node, fn func(fd int) error) error {
	if f := s.files.Find(n.key); f != nil {
		defer f.Unref()
		if f.Readable() {
			return f.WithQuietDescriptor(fn)
		}
	}
	var st unix.Stat_t
	fd, err := s.openNode(n, &st)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	readable, err := unix.Open(procPath(fd), unix.O_RDONLY|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	if err == syscall.EPERM {
		readable, err = unix.Open(procPath(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return err
	}
	defer unix.Close(readable)
	return fn(readable)
}
