package control

import (
	"math"
	"strconv"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs"
	"mapfs/fs/wire"
	"mapfs/mapping/dirty"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// The attributes that tell of a file's mapping, and the one that names the control tree.
const (
	xattrPrefix   = "user.mapfs."
	xattrControl  = xattrPrefix + "control"
	xattrDirty    = xattrPrefix + "dirty_pages"
	xattrUnsynced = xattrPrefix + "unsynced_bytes"
)

// XattrPrefix is [fs.Subtree]'s.
func (t *Tree) XattrPrefix() string { return xattrPrefix }

// XattrNames is [fs.Subtree]'s.
func (t *Tree) XattrNames(n *fs.Node) string {
	if !t.opts.XattrStats || !n.IsRegular() {
		return ""
	}
	return xattrDirty + "\x00" + xattrUnsynced + "\x00"
}

// Xattr is [fs.Subtree]'s.
func (t *Tree) Xattr(n *fs.Node, name string) (string, error) {
	switch {
	case name == xattrControl && t.name != "":
		return t.name, nil
	case name == xattrDirty && n.IsRegular():
		var dirty int64
		err := t.inspect(n, 0, math.MaxInt64, func(run pagestate.Run) bool {
			if run.Flags&pagestate.Dirty != 0 {
				dirty += run.End - run.First
			}
			return true
		})
		return strconv.FormatInt(dirty, 10), err
	case name == xattrUnsynced && n.IsRegular():
		var st unix.Stat_t
		if err := t.s.Stat(n, &st); err != nil {
			return "", err
		}
		return strconv.FormatInt(t.unsyncedBytes(n, st.Size), 10), nil
	}
	return "", syscall.ENODATA
}

// unsyncedBytes returns how many bytes of a file of the given size a power cut would
// take.
func (t *Tree) unsyncedBytes(n *fs.Node, size int64) (unsynced int64) {
	t.s.Files().Unsynced(n.ID(), size, func(g paging.Range, _ dirty.Cause) bool {
		unsynced += g.Len()
		return true
	})
	return unsynced
}

// getxattr answers for a node of the control tree itself.
func (t *Tree) getxattr(w *wire.Worker, r *fuse.GetxattrRequest) error {
	if r.Name != xattrControl || t.name == "" {
		return syscall.ENODATA
	}
	return fs.SendXattr(w, r.Size, t.name)
}
