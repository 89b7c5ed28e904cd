package fs

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/mapping/sys"
)

// stepHow opens one directory of a path. RESOLVE_BENEATH and
// RESOLVE_NO_SYMLINKS keep the step inside the directory it starts from,
// whatever others do to the name meanwhile (openat2(2)).
var stepHow = unix.OpenHow{
	Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
	Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
}

// dir returns the descriptor of a directory, opened from the nearest ancestor
// whose descriptor is at hand. The caller gives it back with s.dirs.put.
func (s *Session) dir(n *Node) (*dirFD, error) {
	if d := s.dirs.get(n.id); d != nil {
		return d, nil
	}
	if n.kind != unix.S_IFDIR {
		return nil, syscall.ENOTDIR
	}
	// Collect the steps up to an ancestor that is open, then walk down.
	var steps []*Node
	var names []string
	var d *dirFD
	for at := n; d == nil; {
		l, ok := at.linkAt(0)
		parent := s.nodes.get(l.dir)
		if !ok || parent == nil || len(steps) > MaxDepth {
			return nil, syscall.ESTALE
		}
		steps, names = append(steps, at), append(names, l.name)
		d = s.dirs.get(parent.id)
		at = parent
	}
	for i := len(steps) - 1; i >= 0; i-- {
		next, err := s.step(d, names[i], steps[i])
		s.dirs.put(d)
		if err != nil {
			return nil, err
		}
		d = next
	}
	return d, nil
}

// MaxDepth bounds a walk to the root, which renames could turn into a circle
// while it lasts.
const MaxDepth = 1 << 16

// step opens the directory n, which is called name in d.
func (s *Session) step(d *dirFD, name string, n *Node) (*dirFD, error) {
	fd, err := unix.Openat2(d.fd, name, &stepHow)
	if err == syscall.ENOSYS || err == syscall.EPERM {
		// An old kernel or a container's filter. One name without a slash,
		// opened without following it, cannot lead out either.
		fd, err = unix.Openat(d.fd, name, int(stepHow.Flags), 0)
	}
	if err != nil {
		if err == syscall.ENOENT || err == syscall.ENOTDIR || err == syscall.ELOOP {
			err = syscall.ESTALE
		}
		return nil, os.NewSyscallError("openat2", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || !n.is(&st) {
		unix.Close(fd)
		return nil, syscall.ESTALE
	}
	return s.dirs.add(n.id, fd), nil
}

// place is a name in an open directory: where an operation on a node happens.
type place struct {
	dir  *dirFD
	name string
}

// CheckName refuses what cannot be the name of one entry of a directory. The
// kernel never sends such a name; nothing outside the directory may be reached
// if it did.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return syscall.EINVAL
	case len(name) > unix.NAME_MAX:
		return syscall.ENAMETOOLONG
	}
	return nil
}

// entry returns the place of a name in the directory with the given number. The
// caller gives it back with s.leave.
func (s *Session) entry(id fuse.NodeID, name string) (place, error) {
	if err := CheckName(name); err != nil {
		return place{}, err
	}
	if id&SubtreeNode != 0 || id == fuse.RootID && s.reserves(name) {
		return place{}, syscall.EPERM // nobody may make or remove what the subtree has
	}
	dir := s.nodes.get(id)
	if dir == nil {
		return place{}, syscall.ESTALE
	}
	d, err := s.dir(dir)
	if err != nil {
		return place{}, err
	}
	return place{d, name}, nil
}

// newEntry is entry for a name that is about to be made: not in a directory that was
// removed, and is kept.
func (s *Session) newEntry(id fuse.NodeID, name string) (place, error) {
	if dir := s.nodes.get(id); dir != nil && s.isStashed(dir) {
		return place{}, syscall.ENOENT
	}
	return s.entry(id, name)
}

// leave ends the use of a place.
func (s *Session) leave(p place) { s.dirs.put(p.dir) }

// locate returns a place where n is to be found now, and what stat(2) says of
// it. The caller gives the place back with s.leave.
//
// A name can be wrong for three reasons: the node has another one, a rename of
// ours is between its system call and its note, or somebody changed the backing
// directory. So the names are tried in turn, then once more when no rename is
// under way, and what is found nowhere is ESTALE.
func (s *Session) locate(n *Node, st *unix.Stat_t) (place, error) {
	p, err := s.locateOnce(n, st)
	if err == syscall.ESTALE {
		s.renameMu.RLock()
		defer s.renameMu.RUnlock()
		p, err = s.locateOnce(n, st)
	}
	return p, err
}

// locateOnce is locate without the second try.
func (s *Session) locateOnce(n *Node, st *unix.Stat_t) (place, error) {
	if n.id == fuse.RootID {
		p := place{s.dirs.get(fuse.RootID), "."}
		if err := unix.Fstat(p.dir.fd, st); err != nil {
			s.leave(p)
			return place{}, os.NewSyscallError("fstat", err)
		}
		return p, nil
	}
	for i := 0; ; i++ {
		l, ok := n.linkAt(i)
		if !ok {
			return place{}, syscall.ESTALE
		}
		p, err := s.entry(l.dir, l.name)
		if err != nil {
			continue
		}
		if err := sys.Lstatat(p.dir.fd, p.name, st); err == nil && n.is(st) {
			return p, nil
		}
		s.leave(p)
	}
}

// openNode returns an O_PATH descriptor of n and what fstat(2) says of it: what
// is done through it is done to n and to nothing else.
func (s *Session) openNode(n *Node, st *unix.Stat_t) (int, error) {
	p, err := s.locate(n, st)
	if err != nil {
		return -1, err
	}
	defer s.leave(p)
	fd, err := unix.Openat(p.dir.fd, p.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("openat", err)
	}
	if err := unix.Fstat(fd, st); err != nil || !n.is(st) {
		unix.Close(fd)
		return -1, syscall.ESTALE
	}
	return fd, nil
}

// procPath returns the name under which a descriptor of this process can be
// reached by system calls that take a path (proc(5)).
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
