package fs

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
	"mapfs/fs/wire"
	"mapfs/mapping"
)

// PowerCut makes of the mount what a power cut leaves by the given choice, as after a
// reboot, and returns it. A choice that the model does not allow is EINVAL and a sentence,
// and changes nothing. EOPNOTSUPP says that the mount has no history.
//
// What clients had open answers EIO from then on, and what the kernel still sends of their
// mappings is refused.
func (s *Session) PowerCut(w *wire.Worker, choice crash.Choice) (*crash.State, error) {
	h := s.history
	if h == nil {
		return nil, syscall.EOPNOTSUPP
	}
	h.handOver(w, 0) // a real power cut comes when stores are there
	w.WillWait()
	state, dropped, err := h.cut(choice)
	if state == nil {
		return nil, err
	}
	// An interrupt ends the wait alone: the power is off, and the kernel drops its pages.
	_ = w.Wait(dropped)
	return state, err
}

// IllegalChoice is a choice that the model does not allow, or that names what is not there.
type IllegalChoice struct{ Err error }

func (e IllegalChoice) Error() string { return e.Err.Error() }

// Unwrap returns EINVAL.
func (e IllegalChoice) Unwrap() error { return syscall.EINVAL }

// cut is PowerCut without a wait for the kernel, which has dropped what it had when the
// channel is closed. A state with an error says that not all could be made as it says.
func (h *history) cut(choice crash.Choice) (state *crash.State, dropped <-chan struct{}, err error) {
	h.gate.Lock()
	defer h.gate.Unlock()
	h.names.Lock()
	defer h.names.Unlock()
	if state, err = h.log.Cut(choice); err != nil {
		return nil, nil, IllegalChoice{err}
	}
	err = h.apply(state)
	s := h.s
	if s.opts.Observer != nil {
		s.opts.Observer.Observe(eventOf(state))
	}
	s.files.Revert()
	h.log.PowerFailed(choice)
	h.stash.clear()
	h.mu.Lock()
	clear(h.tracked)
	clear(h.writers)
	h.forgetIntroduced()
	h.mu.Unlock()
	h.mu.Lock()
	s.handles.lose(func(n *Node) { h.lostOpen[n.id] = true })
	delete(h.lostOpen, fuse.RootID)
	h.mu.Unlock()
	nodes, names := s.forgetAll()
	for e := range state.Names {
		if e.Dir == crash.Inode(fuse.RootID) {
			names = append(names, wire.Name{Dir: fuse.RootID, Name: e.Name}) // the kernel may know that there is none
		}
	}
	s.subtree.PowerFailed()
	return state, s.conn.HandOver(nodes, names), err
}

// eventOf is the event of a power cut.
func eventOf(state *crash.State) mapping.Event {
	e := mapping.Event{Kind: mapping.EventPowercut, Off: int64(state.Kept), Pages: int64(len(state.Lost))}
	for _, op := range state.Lost {
		_, length := op.Left()
		e.Length += length
	}
	return e
}

// apply makes the backing directory what a state says, and goes on after an error. names
// must be held.
func (h *history) apply(state *crash.State) error {
	var errs []error
	for i, steps := range state.Files {
		errs = append(errs, h.applyBytes(i, steps))
	}
	for a, value := range state.Attrs {
		errs = append(errs, h.applyAttr(a, value))
	}
	return errors.Join(append(errs, h.applyNames(state.Names))...)
}

// applyBytes makes changes of a file's bytes in the backing file.
func (h *history) applyBytes(i crash.Inode, steps []crash.Step) error {
	n := h.node(i)
	if n == nil {
		return nil
	}
	var st unix.Stat_t
	path, err := h.s.openNode(n, &st)
	if err != nil {
		return err
	}
	defer unix.Close(path)
	fd, err := openForRepair(path, &st)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := bounceBuffers.Get().(*[]byte)
	defer bounceBuffers.Put(buf)
	size := st.Size
	for _, step := range steps {
		switch {
		case step.Resize && step.Grow && size >= step.Off:
		case step.Resize:
			if err := unix.Ftruncate(fd, step.Off); err != nil {
				return os.NewSyscallError("ftruncate", err)
			}
			size = step.Off
		default:
			length := step.Length
			if step.IsZero() {
				length = min(length, size-step.Off)
			}
			for at := int64(0); at < length; {
				p := (*buf)[:min(length-at, int64(len(*buf)))]
				if step.IsZero() {
					clear(p)
				} else if err := step.Read(p, at); err != nil {
					return err
				}
				n, err := unix.Pwrite(fd, p, step.Off+at)
				if err != nil {
					return os.NewSyscallError("pwrite", err)
				}
				at += int64(n)
			}
			size = max(size, step.Off+max(length, 0))
		}
	}
	return nil
}

// openForRepair opens a file for writing by an O_PATH descriptor of it, whatever its mode.
func openForRepair(path int, st *unix.Stat_t) (fd int, err error) {
	const flags = unix.O_RDWR | unix.O_CLOEXEC
	fd, err = unix.Open(procPath(path), flags, 0)
	if err == syscall.EACCES && unix.Chmod(procPath(path), st.Mode&permissionBits|0o600) == nil {
		fd, err = unix.Open(procPath(path), flags, 0)
		if undo := unix.Chmod(procPath(path), st.Mode&permissionBits); err == nil {
			err = undo
		}
	}
	return fd, os.NewSyscallError("open", err)
}

// applyAttr gives an inode an attribute's value.
func (h *history) applyAttr(a crash.Attribute, value []byte) error {
	n := h.node(a.Inode)
	if n == nil {
		return nil
	}
	if name, isXattr := strings.CutPrefix(a.Name, crash.AttrXattr); isXattr {
		return h.s.withXattrs(n, func(path string, follow bool) error {
			if value != nil {
				return setXattr(path, follow, name, value, 0)
			}
			if err := removeXattr(path, follow, name); !errors.Is(err, syscall.ENODATA) {
				return err
			}
			return nil
		})
	}
	var now, want unix.Stat_t
	fd, err := h.s.openNode(n, &now)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	fromModeValue(value, &want)
	if now.Uid != want.Uid || now.Gid != want.Gid {
		if err := unix.Fchownat(fd, "", int(want.Uid), int(want.Gid), unix.AT_EMPTY_PATH); err != nil {
			return os.NewSyscallError("fchownat", err)
		}
	}
	if n.kind == unix.S_IFLNK {
		return nil // has no mode
	}
	return os.NewSyscallError("chmod", unix.Chmod(procPath(fd), want.Mode&permissionBits))
}

// applyNames makes the names in the backing directory what a state says. What is in the
// way, or has another name then, goes to the stash first, and what is left there in the
// end is in no directory of the state.
func (h *history) applyNames(names map[crash.Entry]crash.Inode) error {
	d, err := h.stash.open()
	if err != nil {
		return err
	}
	h.stash.in++ // it stays
	defer h.s.dirs.put(d)
	var errs []error
	differs := make(map[crash.Entry]crash.Inode)
	for e, want := range names {
		now, err := h.inodeAt(e)
		if now == want && err == nil {
			continue
		}
		differs[e] = want
		if err == nil && now != 0 {
			err = h.putAside(now, e)
		}
		errs = append(errs, err)
	}
	for e, want := range differs {
		if want != 0 {
			errs = append(errs, h.put(want, e))
		}
	}
	return errors.Join(errs...)
}

// putAside moves what is at an entry to the stash.
func (h *history) putAside(i crash.Inode, e crash.Entry) error {
	p, l, done, err := h.placeOf(e)
	if err != nil {
		return err
	}
	defer done()
	return h.stash.take(h.node(i), p, l)
}

// inodeAt returns what is at an entry now, 0 for nothing.
func (h *history) inodeAt(e crash.Entry) (crash.Inode, error) {
	p, l, done, err := h.placeOf(e)
	if err != nil {
		return 0, err
	}
	defer done()
	var st unix.Stat_t
	switch err := unix.Fstatat(p.dir.fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err {
	case nil:
		n := h.s.nodes.look(&st, l)
		h.track(n)
		h.s.forget(n.id, 1)
		return inodeOf(n), nil
	case syscall.ENOENT:
		return 0, nil
	default:
		return 0, os.NewSyscallError("fstatat", err)
	}
}

// placeOf returns where an entry is; done ends its use.
func (h *history) placeOf(e crash.Entry) (p place, l link, done func(), err error) {
	n := h.node(e.Dir)
	if n == nil {
		return p, l, nil, syscall.ESTALE
	}
	d, err := h.s.dir(n)
	if err != nil {
		return p, l, nil, err
	}
	return place{d, e.Name}, link{n.id, e.Name}, func() { h.s.dirs.put(d) }, nil
}

// put gives an inode that is in the stash, or has another name, the name of an entry.
func (h *history) put(i crash.Inode, e crash.Entry) error {
	n := h.node(i)
	if n == nil {
		return syscall.ESTALE
	}
	to, l, done, err := h.placeOf(e)
	if err != nil {
		return err
	}
	defer done()
	if from, stashed := h.stash.linkOf(n); stashed {
		d, err := h.s.dir(h.stash.node)
		if err != nil {
			return err
		}
		defer h.s.dirs.put(d)
		if err := unix.Renameat(d.fd, from.name, to.dir.fd, to.name); err != nil {
			return os.NewSyscallError("renameat", err)
		}
		n.dropLink(from)
		n.addLink(l)
		return nil
	}
	var st unix.Stat_t
	from, err := h.s.locate(n, &st)
	if err != nil {
		return err
	}
	defer h.s.leave(from)
	if err := unix.Linkat(from.dir.fd, from.name, to.dir.fd, to.name, 0); err != nil {
		return os.NewSyscallError("linkat", err)
	}
	n.addLink(l)
	return nil
}

// lose marks the handles of the mirror's files and directories: the power has failed. It
// calls each with their nodes.
func (t *handleTable) lose(each func(*Node)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.handles {
		if h != nil && h.sub == nil {
			h.lost = true
			each(h.node)
		}
	}
}

// forgetAll makes every node but the root unknown, as after a reboot, and returns the
// numbers by which the kernel knows them, with the root's, and the names it may know in
// the root.
func (s *Session) forgetAll() (nodes []fuse.NodeID, names []wire.Name) {
	for _, n := range s.nodes.reset() {
		n.forgotten()
		s.dirs.forget(n.id)
		nodes = append(nodes, n.id)
		for i := 0; ; i++ {
			l, ok := n.linkAt(i)
			if !ok {
				break
			}
			if l.dir == fuse.RootID {
				names = append(names, wire.Name{Dir: l.dir, Name: l.name})
			}
		}
	}
	return append(nodes, fuse.RootID), names
}

// reset forgets every node but the root and returns them.
func (t *nodeTable) reset() (old []*Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, n := range t.byID {
		if id != fuse.RootID {
			old = append(old, n)
		}
	}
	root := t.byID[fuse.RootID]
	clear(t.byID)
	clear(t.byKey)
	clear(t.removedAt)
	t.removed.Init()
	t.byID[root.id], t.byKey[root.key] = root, root
	return old
}
