package main

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"bazil.org/fuse"
	"bazil.org/fuse/fs"
)

var (
	_ fs.NodeStringLookuper = (*node)(nil)
	_ fs.NodeSetattrer      = (*node)(nil)
	_ fs.NodeOpener         = (*node)(nil)
	_ fs.NodeCreater        = (*node)(nil)
	_ fs.NodeMkdirer        = (*node)(nil)
	_ fs.NodeSymlinker      = (*node)(nil)
	_ fs.NodeReadlinker     = (*node)(nil)
	_ fs.NodeLinker         = (*node)(nil)
	_ fs.NodeRemover        = (*node)(nil)
	_ fs.NodeRenamer        = (*node)(nil)
	_ fs.NodeFsyncer        = (*node)(nil)
	_ fs.NodeForgetter      = (*node)(nil)
)

// A node is a name in the backing tree: its path, which the tree's lock guards.
type node struct {
	tree *tree
	path string
}

func (n *node) at() string {
	n.tree.mu.Lock()
	defer n.tree.mu.Unlock()
	return n.path
}

func (n *node) join(name string) string { return filepath.Join(n.at(), name) }

func (n *node) Forget() { n.tree.forget(n) }

func (n *node) Attr(_ context.Context, a *fuse.Attr) error {
	var st syscall.Stat_t
	if err := syscall.Lstat(n.at(), &st); err != nil {
		return errno(err)
	}
	a.Valid = time.Second
	a.Inode = st.Ino
	a.Size = uint64(st.Size)
	a.Blocks = uint64(st.Blocks)
	a.Atime = time.Unix(st.Atim.Sec, st.Atim.Nsec)
	a.Mtime = time.Unix(st.Mtim.Sec, st.Mtim.Nsec)
	a.Ctime = time.Unix(st.Ctim.Sec, st.Ctim.Nsec)
	a.Nlink = uint32(st.Nlink)
	a.Uid, a.Gid = st.Uid, st.Gid
	a.Mode = os.FileMode(st.Mode & 0o777)
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		a.Mode |= os.ModeDir
	case syscall.S_IFLNK:
		a.Mode |= os.ModeSymlink
	}
	return nil
}

func (n *node) Lookup(_ context.Context, name string) (fs.Node, error) {
	path := n.join(name)
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return nil, errno(err)
	}
	return n.tree.node(path), nil
}

func (n *node) Setattr(_ context.Context, req *fuse.SetattrRequest, _ *fuse.SetattrResponse) error {
	path := n.at()
	if req.Valid.Size() {
		if err := os.Truncate(path, int64(req.Size)); err != nil {
			return errno(err)
		}
	}
	if req.Valid.Mode() {
		if err := os.Chmod(path, req.Mode); err != nil {
			return errno(err)
		}
	}
	if req.Valid.Uid() || req.Valid.Gid() {
		uid, gid := -1, -1
		if req.Valid.Uid() {
			uid = int(req.Uid)
		}
		if req.Valid.Gid() {
			gid = int(req.Gid)
		}
		if err := os.Lchown(path, uid, gid); err != nil {
			return errno(err)
		}
	}
	if req.Valid.Atime() || req.Valid.Mtime() {
		// The zero time leaves a time as it is.
		var atime, mtime time.Time
		if req.Valid.Atime() {
			atime = req.Atime
		}
		if req.Valid.Mtime() {
			mtime = req.Mtime
		}
		return errno(os.Chtimes(path, atime, mtime))
	}
	return nil
}

func (n *node) Open(_ context.Context, req *fuse.OpenRequest, _ *fuse.OpenResponse) (fs.Handle, error) {
	if req.Dir {
		return &dirHandle{path: n.at()}, nil
	}
	// O_DIRECT is between the client and the kernel: the buffers here are not
	// aligned for it. O_APPEND the kernel has turned into offsets.
	flags := int(req.Flags) &^ (syscall.O_DIRECT | syscall.O_APPEND | syscall.O_CREAT | syscall.O_EXCL)
	f, err := os.OpenFile(n.at(), flags, 0)
	if err != nil {
		return nil, errno(err)
	}
	return &fileHandle{f: f}, nil
}

func (n *node) Create(_ context.Context, req *fuse.CreateRequest, _ *fuse.CreateResponse) (fs.Node, fs.Handle, error) {
	path := n.join(req.Name)
	flags := int(req.Flags)&^(syscall.O_DIRECT|syscall.O_APPEND) | os.O_CREATE
	f, err := os.OpenFile(path, flags, req.Mode)
	if err != nil {
		return nil, nil, errno(err)
	}
	return n.tree.node(path), &fileHandle{f: f}, nil
}

func (n *node) Mkdir(_ context.Context, req *fuse.MkdirRequest) (fs.Node, error) {
	path := n.join(req.Name)
	if err := os.Mkdir(path, req.Mode); err != nil {
		return nil, errno(err)
	}
	return n.tree.node(path), nil
}

func (n *node) Symlink(_ context.Context, req *fuse.SymlinkRequest) (fs.Node, error) {
	path := n.join(req.NewName)
	if err := os.Symlink(req.Target, path); err != nil {
		return nil, errno(err)
	}
	return n.tree.node(path), nil
}

func (n *node) Readlink(context.Context, *fuse.ReadlinkRequest) (string, error) {
	target, err := os.Readlink(n.at())
	return target, errno(err)
}

func (n *node) Link(_ context.Context, req *fuse.LinkRequest, old fs.Node) (fs.Node, error) {
	path := n.join(req.NewName)
	if err := os.Link(old.(*node).at(), path); err != nil {
		return nil, errno(err)
	}
	return n.tree.node(path), nil
}

func (n *node) Remove(_ context.Context, req *fuse.RemoveRequest) error {
	path := n.join(req.Name)
	if req.Dir {
		return errno(syscall.Rmdir(path))
	}
	return errno(syscall.Unlink(path))
}

func (n *node) Rename(_ context.Context, req *fuse.RenameRequest, newDir fs.Node) error {
	from, to := n.join(req.OldName), newDir.(*node).join(req.NewName)
	if err := os.Rename(from, to); err != nil {
		return errno(err)
	}
	n.tree.rename(from, to)
	return nil
}

func (n *node) Fsync(_ context.Context, req *fuse.FsyncRequest) error {
	f, err := os.Open(n.at())
	if err != nil {
		return errno(err)
	}
	defer f.Close()
	return errno(f.Sync())
}
