package fs

import (
	"os"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
	"mapfs/mapping"
)

// rename moves a name, over another one if that exists and flags, those of renameat2(2),
// allow it. A history knows neither exchanges nor whiteouts.
func (s *Session) rename(w *wire.Worker, r *fuse.RenameRequest, flags uint32) error {
	from, err := s.entry(r.Node, r.OldName)
	if err != nil {
		return err
	}
	defer s.leave(from)
	to, err := s.newEntry(r.NewDir, r.NewName)
	if err != nil {
		return err
	}
	defer s.leave(to)

	defer s.history.begin()()
	s.renameMu.Lock()
	defer s.renameMu.Unlock()
	var moved unix.Stat_t
	if err := unix.Fstatat(from.dir.fd, from.name, &moved, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fstatat", err)
	}
	switch {
	case s.history != nil:
		err = s.renameInHistory(from, to, r, flags, &moved)
	case flags&unix.RENAME_EXCHANGE != 0:
		err = s.exchange(from, to, r, flags, &moved)
	default:
		err = s.move(from, to, r, flags, &moved)
	}
	if err != nil {
		return err
	}
	return w.OK()
}

// renameInHistory is rename of a mount with a history.
func (s *Session) renameInHistory(from, to place, r *fuse.RenameRequest, flags uint32, moved *unix.Stat_t) error {
	if flags&^unix.RENAME_NOREPLACE != 0 {
		return syscall.EINVAL
	}
	if flags != 0 {
		var st unix.Stat_t
		if err := unix.Fstatat(to.dir.fd, to.name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
			return syscall.EEXIST
		}
	}
	return s.history.rename(from, to, r, moved)
}

// move gives what is at from the name to. moved is what stat(2) says of it.
func (s *Session) move(from, to place, r *fuse.RenameRequest, flags uint32, moved *unix.Stat_t) error {
	replaced, err := s.victim(to, link{r.NewDir, r.NewName})
	replaces := err == nil
	if err := unix.Renameat2(from.dir.fd, from.name, to.dir.fd, to.name, uint(flags)); err != nil {
		if replaces {
			replaced.spared()
		}
		return os.NewSyscallError("renameat2", err)
	}
	if replaces {
		if mapping.IDOf(moved) == mapping.IDOf(&replaced.st) {
			replaced.spared()
			return nil // two names of one inode: rename(2) does nothing
		}
		s.removed(replaced)
	}
	s.moved(moved, link{r.Node, r.OldName}, link{r.NewDir, r.NewName})
	return nil
}

// exchange gives each of two entries the other's name.
func (s *Session) exchange(from, to place, r *fuse.RenameRequest, flags uint32, first *unix.Stat_t) error {
	var second unix.Stat_t
	if err := unix.Fstatat(to.dir.fd, to.name, &second, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fstatat", err)
	}
	if err := unix.Renameat2(from.dir.fd, from.name, to.dir.fd, to.name, uint(flags)); err != nil {
		return os.NewSyscallError("renameat2", err)
	}
	if mapping.IDOf(first) == mapping.IDOf(&second) {
		return nil
	}
	s.moved(first, link{r.Node, r.OldName}, link{r.NewDir, r.NewName})
	s.moved(&second, link{r.NewDir, r.NewName}, link{r.Node, r.OldName})
	return nil
}

// moved notes that an inode has another name instead of one it had.
func (s *Session) moved(st *unix.Stat_t, old, now link) {
	if n := s.nodes.find(mapping.IDOf(st)); n != nil {
		n.dropLink(old)
		n.addLink(now)
		s.renamed(n)
	}
}

// renamed tells the engine the new names of what has moved: a file, or whatever
// is open below a directory.
func (s *Session) renamed(moved *Node) {
	if moved.kind != unix.S_IFDIR {
		if f := s.files.Find(moved.key); f != nil {
			f.SetName(s.Path(moved))
			f.Unref()
		}
		return
	}
	for _, f := range s.files.Files() {
		if n := s.nodes.find(f.ID()); n != nil {
			f.SetName(s.Path(n))
		}
		f.Unref()
	}
}
