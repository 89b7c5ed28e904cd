package control

import (
	"strings"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs"
	"mapfs/fs/wire"
	"mapfs/mapping/paging"
	"mapfs/mapping/share"
)

// handle is an open file of the control tree.
type handle interface {
	fs.SubtreeHandle
	// read returns bytes from off on, at most size.
	read(c *call, off int64, size int) ([]byte, error)
	// write takes the bytes of one write(2) and returns how many it took.
	write(c *call, p []byte, off int64) (int, error)
}

// nothingHeld is the Close of a handle that holds nothing.
type nothingHeld struct{}

func (nothingHeld) Close() {}

// readOnly is a handle's refusal of writes.
type readOnly struct{ nothingHeld }

func (readOnly) write(*call, []byte, int64) (int, error) { return 0, syscall.EBADF }

// openedDir is an open directory of the control tree whose entries are fixed.
type openedDir struct {
	readOnly
	node *node
}

func openDir(_ *Tree, n *node, _ *fuse.Header) handle { return &openedDir{node: n} }

func (d *openedDir) read(c *call, off int64, size int) ([]byte, error) {
	l := listing{size: size, off: off}
	l.add(c.t, ".", d.node.key)
	l.add(c.t, "..", key{c.t.nodes.root, d.node.target, d.node.explicit})
	for _, e := range c.t.nodes.list(d.node.entry.holds()) {
		l.add(c.t, e.name, key{e, d.node.target, d.node.explicit})
	}
	return l.out, nil
}

// listing is an answer to a readdir: the entries from the off-th on that fit into size
// bytes.
type listing struct {
	size int
	off  int64
	at   int64
	full bool
	out  []byte
}

// add adds the next entry.
func (l *listing) add(t *Tree, name string, k key) {
	l.addRaw(name, t.inode(k), k.entry.mode)
}

// addRaw is add of an entry whose inode number and mode are known.
func (l *listing) addRaw(name string, inode uint64, mode uint32) {
	at := l.at
	l.at++
	if at < l.off || l.full {
		return
	}
	if l.full = len(l.out)+wire.DirentSize([]byte(name)) > l.size; !l.full {
		l.out = wire.AppendDirent(l.out, &wire.Dirent{Ino: inode, Off: uint64(l.at), Type: mode >> 12}, []byte(name))
	}
}

// snapshot is an open file whose text was made when it was opened.
type snapshot struct {
	readOnly
	text string
	err  error

	// user is charged for the text, if there is a pool.
	pool *share.Pool
	user uint32
}

// text returns what opens a file whose text write makes.
func text(write func(t *Tree, b *strings.Builder, n *node, client *fuse.Header) error) func(*Tree, *node, *fuse.Header) handle {
	return func(t *Tree, n *node, client *fuse.Header) handle {
		var b strings.Builder
		err := write(t, &b, n, client)
		return &snapshot{text: b.String(), err: err}
	}
}

// charge charges a user with the text until it is closed. A text is given to a user who
// has none, however long it is; who has too much gets ENOMEM.
func (s *snapshot) charge(pool *share.Pool, user uint32) error {
	n := int64(len(s.text))
	switch {
	case n == 0:
		return nil
	case pool.Take(user, n):
	case pool.Held(user) == 0:
		pool.Force(user, n)
	default:
		return syscall.ENOMEM
	}
	s.pool, s.user = pool, user
	return nil
}

// Close gives the charge back.
func (s *snapshot) Close() {
	if s.pool != nil {
		s.pool.Give(s.user, int64(len(s.text)))
	}
}

func (s *snapshot) read(_ *call, off int64, size int) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	if off < 0 || off >= int64(len(s.text)) {
		return nil, nil
	}
	return []byte(s.text[off:min(off+int64(size), int64(len(s.text)))]), nil
}

// contents is an open file whose bytes come from a place of the daemon's as they are read.
type contents struct {
	readOnly
	target *fs.Node
	// from reads from off on into p, and returns fewer bytes only at the end.
	from func(t *Tree, target *fs.Node, p []byte, off int64) (int, error)
}

// openContents returns what opens a file whose bytes from reads.
func openContents(from func(t *Tree, target *fs.Node, p []byte, off int64) (int, error)) func(*Tree, *node, *fuse.Header) handle {
	return func(_ *Tree, n *node, _ *fuse.Header) handle { return &contents{target: n.target, from: from} }
}

func (h *contents) read(c *call, off int64, size int) ([]byte, error) {
	p := make([]byte, size)
	n, err := h.from(c.t, h.target, p, off)
	return p[:max(n, 0)], err
}

// readMemory reads the mapping itself.
func (t *Tree) readMemory(target *fs.Node, p []byte, off int64) (int, error) {
	f, err := t.s.Open(target)
	if err != nil {
		return 0, err
	}
	defer f.Release(true)
	return f.ReadMemory(p, off)
}

// memorySize is the length of the mapping: whole pages.
func memorySize(_ *Tree, _ *node, fileSize int64) int64 {
	size, _ := paging.PageUp(fileSize)
	return size
}

// readBacking reads what read(2) of the file below gives.
func (t *Tree) readBacking(target *fs.Node, p []byte, off int64) (n int, err error) {
	err = t.s.WithBacking(target, func(fd int) (err error) {
		n, err = unix.Pread(fd, p, off)
		return err
	})
	return n, err
}
