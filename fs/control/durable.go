package control

import (
	"sync"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs"
	"mapfs/fs/wire"
	"mapfs/mapping/paging"
)

// The tree durable shows what a power cut now would surely leave, as files.

// lookupDurable answers what a name in durable, or in a directory below it, is.
func (t *Tree) lookupDurable(w *wire.Worker, n *node, name string) error {
	target, err := t.s.DurableLookup(n.target, name)
	if err != nil {
		return err
	}
	e := t.nodes.durableFile
	if target.IsDir() {
		e = t.nodes.durable
	}
	return t.sendNode(w, t.nodes.look(t, key{entry: e, target: target}, true))
}

// durableAttr fills a with the attributes of a node of durable. Nobody may write to it.
func (t *Tree) durableAttr(n *node, a *wire.Attr) error {
	var st unix.Stat_t
	if err := t.s.DurableStat(n.target, &st); err != nil {
		return err
	}
	st.Mode &^= 0o222
	a.Set(&st, t.inode(n.key))
	a.Blksize = uint32(paging.PageSize)
	return nil
}

// readlink answers where a symbolic link in durable points.
func (t *Tree) readlink(w *wire.Worker, n *node) error {
	if n.entry != t.nodes.durableFile {
		return syscall.EINVAL
	}
	target, err := t.s.Readlink(n.target)
	if err != nil {
		return err
	}
	return w.SendBytes(target)
}

// readDurable reads what a power cut would surely leave of a file.
func (t *Tree) readDurable(target *fs.Node, p []byte, off int64) (int, error) {
	return t.s.ReadDurable(target, p, off)
}

// durableSize is the length of the file that a power cut would surely leave.
func (t *Tree) durableSize(n *node, _ int64) int64 {
	var st unix.Stat_t
	if t.s.DurableStat(n.target, &st) != nil {
		return 0
	}
	return st.Size
}

// durableEntries is an open directory of durable.
type durableEntries struct {
	readOnly
	node *node

	mu    sync.Mutex // threads share descriptors
	shown []fs.DurableEntry
}

func openDurableDir(_ *Tree, n *node, _ *fuse.Header) handle { return &durableEntries{node: n} }

// read lists the entries there were when the client began to read. An offset is the place
// of an entry in that list.
func (d *durableEntries) read(c *call, off int64, size int) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off == 0 {
		shown, err := c.t.s.DurableEntries(d.node.target)
		if err != nil {
			return nil, err
		}
		d.shown = shown
	}
	l := listing{size: size, off: off}
	l.add(c.t, ".", d.node.key)
	l.add(c.t, "..", key{entry: c.t.nodes.root})
	for _, e := range d.shown {
		l.addRaw(e.Name, uint64(1)<<63|c.t.nodes.durableFile.number<<56|e.Inode&(1<<56-1), e.Mode)
	}
	return l.out, nil
}

// DurableChanged is [fs.Subtree]'s: the kernel drops what it has cached of the file in
// durable.
func (t *Tree) DurableChanged(target *fs.Node) {
	if n := t.nodes.known(key{entry: t.nodes.durableFile, target: target}); n != nil {
		t.s.Conn().Invalidate(n.id)
	}
}

// PowerFailed is [fs.Subtree]'s: explicit mappings end with the power.
func (t *Tree) PowerFailed() {
	for _, m := range t.arena.Mappings() {
		if err := m.Unmap(0, m.Length()); err != nil {
			t.s.Log().Warn("munmap after a power cut", "mapping", m.Name(), "error", err)
		}
	}
}
