package fs

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

// mayRead reports whether the client that sent a request may read the file that
// a part of the control tree is about. The kernel has checked the directories
// above, which show the permissions of the mount's; the file's own are checked
// here, because what the tree has about it is readable by its mode.
func (s *Session) mayRead(h *fuse.Header, target *node) bool {
	if h.Uid == 0 || h.Uid == s.uid || target == nil || target.kind != modeRegular {
		return true
	}
	var st unix.Stat_t
	if s.stat(target, &st) != nil {
		return false
	}
	return allowed(h, &st, 4)
}

// mayReach reports whether a client may read a file and go to where it is.
func (s *Session) mayReach(h *fuse.Header, n *node) bool {
	if h.Uid == 0 || h.Uid == s.uid {
		return true
	}
	if !s.mayRead(h, n) {
		return false
	}
	for n.id != fuse.RootID {
		l, ok := n.linkAt(0)
		if !ok {
			return false
		}
		var st unix.Stat_t
		if n = s.nodes.get(l.dir); n == nil || s.stat(n, &st) != nil || !allowed(h, &st, 1) {
			return false
		}
	}
	return true
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
