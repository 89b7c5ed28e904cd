package control

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs"
	"mapfs/mapping/explicit"
)

// mayRead reports whether the client that sent a request may read the file that
// a part of the control tree is about. The kernel has checked the directories
// above, which show the permissions of the mount's; the file's own are checked
// here, because what the tree has about it is readable by its mode.
func (t *Tree) mayRead(h *fuse.Header, target *fs.Node) bool {
	if h.Uid == 0 || h.Uid == t.uid || target == nil || !target.IsRegular() {
		return true
	}
	var st unix.Stat_t
	if t.s.Stat(target, &st) != nil {
		return false
	}
	return allowed(h, &st, 4)
}

// mayReach reports whether a client may read a file and go to where it is.
func (t *Tree) mayReach(h *fuse.Header, n *fs.Node) bool {
	if h.Uid == 0 || h.Uid == t.uid {
		return true
	}
	if !t.mayRead(h, n) {
		return false
	}
	for n != t.s.Root() {
		var st unix.Stat_t
		if n = t.s.Parent(n); n == nil || t.s.Stat(n, &st) != nil || !allowed(h, &st, 1) {
			return false
		}
	}
	return true
}

// isOwner lets the daemon's own user and root alone open a file: events name every file,
// and what changes an explicit mapping is for its owner, whether or not the kernel checks
// the modes.
func isOwner(t *Tree, _ *node, h *fuse.Header) bool { return h.Uid == 0 || h.Uid == t.uid }

// maySee lets a client open what tells of an explicit mapping; see mayKnow.
func maySee(t *Tree, n *node, h *fuse.Header) bool { return t.mayKnow(h, n.explicit) }

// mayKnow reports whether a client may know of explicit mappings of a file. Who
// asks is held to the path that leads to the file, like in maps.
func (t *Tree) mayKnow(h *fuse.Header, m *explicit.Mapping) bool {
	if h.Uid == 0 || h.Uid == t.uid {
		return true
	}
	n := t.s.Find(m.FileID())
	return n != nil && t.mayReach(h, n)
}

// allowed reports whether the mode that stat(2) told gives a client the right: 4
// to read, 2 to write, 1 to search.
func allowed(h *fuse.Header, st *unix.Stat_t, right uint32) bool {
	switch {
	case st.Uid == h.Uid:
		return st.Mode>>6&right != 0
	case st.Gid == h.Gid || inGroup(h.Pid, st.Gid):
		return st.Mode>>3&right != 0
	}
	return st.Mode&right != 0
}

// inGroup reports whether a process has gid among its supplementary groups. A
// request does not tell them; a process that is gone has none.
func inGroup(pid, gid uint32) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if groups, ok := strings.CutPrefix(line, "Groups:"); ok {
			return slices.Contains(strings.Fields(groups), fmt.Sprint(gid))
		}
	}
	return false
}
