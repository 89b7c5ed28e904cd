package explore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
)

// tree is the tree that a power cut leaves: the durable one of a replay with a state. It
// is right until the replay goes on.
type tree struct {
	p     *replay
	state *crash.State
	names map[crash.Inode]map[string]crash.Inode // that differ, by directory
	attrs map[crash.Inode][]crash.Attribute
	// changed are the inodes whose sum is another one than the durable one.
	changed  map[crash.Inode]bool
	overlays map[crash.Inode]*overlay
	total    sum   // once it was asked for
	err      error // that keeps it from being looked at
}

func newTree(p *replay, state *crash.State) *tree {
	t := &tree{
		p: p, state: state, names: make(map[crash.Inode]map[string]crash.Inode), attrs: make(map[crash.Inode][]crash.Attribute),
		changed: make(map[crash.Inode]bool), overlays: make(map[crash.Inode]*overlay),
	}
	for e, to := range state.Names {
		names := t.names[e.Dir]
		if names == nil {
			names = make(map[string]crash.Inode)
			t.names[e.Dir] = names
			t.change(e.Dir)
		}
		names[e.Name] = to
	}
	for a := range state.Attrs {
		t.attrs[a.Inode] = append(t.attrs[a.Inode], a)
		t.change(a.Inode)
	}
	for i := range state.Files {
		t.change(i)
		if n := p.inodes[i]; n != nil {
			t.err = errors.Join(t.err, n.look())
		}
	}
	return t
}

// treeOf returns the tree that a power cut now leaves by a choice.
func treeOf(p *replay, choice crash.Choice) (*tree, error) {
	state, err := p.log.Cut(choice)
	if err != nil {
		return nil, err
	}
	return newTree(p, state), nil
}

// change notes that an inode differs from the durable one, and so what is above it.
func (t *tree) change(i crash.Inode) {
	if t.changed[i] {
		return
	}
	t.changed[i] = true
	if n := t.p.inodes[i]; n != nil {
		for e := range n.names {
			t.change(e.Dir)
		}
	}
}

// each calls fn for the entries of a directory.
func (t *tree) each(dir crash.Inode, fn func(name string, to crash.Inode) error) error {
	names := t.names[dir]
	for name, to := range t.p.inodes[dir].entries {
		if _, differs := names[name]; differs {
			continue
		}
		if err := fn(name, to); err != nil {
			return err
		}
	}
	for name, to := range names {
		if to != 0 {
			if err := fn(name, to); err != nil {
				return err
			}
		}
	}
	return nil
}

// lookup returns what an entry leads to, 0 for nothing.
func (t *tree) lookup(e crash.Entry) crash.Inode {
	if to, differs := t.names[e.Dir][e.Name]; differs {
		return to
	}
	if n := t.p.inodes[e.Dir]; n != nil {
		return n.entries[e.Name]
	}
	return 0
}

// is returns what an inode is in the tree.
func (t *tree) is(i crash.Inode) (made crash.Made, xattrs map[string][]byte) {
	n := t.p.inodes[i]
	made, xattrs = n.made, n.xattrs
	for _, a := range t.attrs[i] {
		made, xattrs = withAttr(made, xattrs, a.Name, t.state.Attrs[a])
	}
	return made, xattrs
}

// file returns a file's bytes in the tree, nil if they are the durable ones.
func (t *tree) file(i crash.Inode) *overlay {
	steps := t.state.Files[i]
	if len(steps) == 0 {
		return nil
	}
	o := t.overlays[i]
	if o == nil {
		o = overlayOf(&t.p.inodes[i].content, steps)
		t.overlays[i] = o
	}
	return o
}

// size returns a file's size in bytes.
func (t *tree) size(i crash.Inode) int64 {
	if o := t.file(i); o != nil {
		return o.size
	}
	return t.p.inodes[i].size
}

// sum returns the sum of all that can be reached.
func (t *tree) sum() (sum, error) {
	if t.err != nil {
		return sum{}, t.err
	}
	if t.total == (sum{}) {
		total, err := t.sumOf(root)
		if err != nil {
			return sum{}, err
		}
		t.total = total
	}
	return t.total, nil
}

// isLike reports whether two trees look the same.
func (t *tree) isLike(other *tree) (bool, error) {
	a, err := t.sum()
	if err != nil {
		return false, err
	}
	b, err := other.sum()
	return a == b, err
}

func (t *tree) sumOf(i crash.Inode) (sum, error) {
	n := t.p.inodes[i]
	if !t.changed[i] && n.summed {
		return n.total, nil
	}
	made, xattrs := t.is(i)
	total := sumOf(fmt.Appendf(nil, "%o %d %d %d %q", made.Mode, made.UID, made.GID, made.Device, made.Target))
	for name, value := range xattrs {
		total.add(sumOf(fmt.Appendf(nil, "%q %q", name, value)))
	}
	switch {
	case n.isDir():
		err := t.each(i, func(name string, to crash.Inode) error {
			below, err := t.sumOf(to)
			total.add(sumOf(fmt.Appendf(nil, "%q %x", name, below)))
			return err
		})
		if err != nil {
			return sum{}, err
		}
	case n.hasData():
		bytes, err := t.bytesSum(i)
		if err != nil {
			return sum{}, err
		}
		total.add(bytes)
		total.add(sumOf(binary.LittleEndian.AppendUint64(nil, uint64(t.size(i)))))
	}
	if !t.changed[i] {
		n.total, n.summed = total, true
	}
	return total, nil
}

// bytesSum returns the sum of a file's bytes.
func (t *tree) bytesSum(i crash.Inode) (sum, error) {
	if o := t.file(i); o != nil {
		return o.sum()
	}
	n := t.p.inodes[i]
	err := n.learn()
	return n.content.sum, err
}

// build makes the tree in a directory, which must be there and empty.
func (t *tree) build(dir string) error {
	if t.err != nil {
		return t.err
	}
	return t.buildDir(root, dir, make(map[crash.Inode]string))
}

// buildDir makes what a directory has; made are the inodes that are there already.
func (t *tree) buildDir(i crash.Inode, path string, made map[crash.Inode]string) error {
	err := t.each(i, func(name string, to crash.Inode) error {
		at := filepath.Join(path, name)
		if first := made[to]; first != "" {
			return os.Link(first, at)
		}
		made[to] = at
		return t.buildInode(to, at, made)
	})
	if err != nil {
		return err
	}
	is, xattrs := t.is(i)
	return giveAttrs(path, &is, xattrs)
}

// buildInode makes a file, directory or the like.
func (t *tree) buildInode(i crash.Inode, path string, made map[crash.Inode]string) error {
	n := t.p.inodes[i]
	is, xattrs := t.is(i)
	switch n.kind() {
	case unix.S_IFDIR:
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		return t.buildDir(i, path, made)
	case unix.S_IFREG:
		if err := n.look(); err != nil {
			return err
		}
		if err := copyContent(&n.content, path, 0o600); err != nil {
			return err
		}
		if o := t.file(i); o != nil {
			if err := o.writeTo(path, nil); err != nil {
				return err
			}
		}
	case unix.S_IFLNK:
		if err := os.Symlink(string(is.Target), path); err != nil {
			return err
		}
	default:
		if err := unix.Mknod(path, is.Mode, int(is.Device)); err != nil {
			return &os.PathError{Op: "mknod", Path: path, Err: err}
		}
	}
	return giveAttrs(path, &is, xattrs)
}
