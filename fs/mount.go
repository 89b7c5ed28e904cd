package fs

import (
	"errors"
	"log/slog"
	"os"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/mountpoint"
	"mapfs/fs/wire"
	"mapfs/mapping"
	"mapfs/mapping/sys"
)

// Mount mounts opts.Backing on opts.Mountpoint. When it returns the mount is in
// the mount table; it answers as soon as [Session.Serve] runs.
//
// The caller's umask applies to what clients create and should be 0: the kernel
// has applied the client's already.
func Mount(opts Options) (*Session, error) {
	request := mountpoint.Request{
		Backing: opts.Backing, Mountpoint: opts.Mountpoint, AllowOther: opts.AllowOther,
		DefaultPermissions: opts.DefaultPermissions, NonEmpty: opts.NonEmpty, SUID: opts.SUID, Dev: opts.Dev, Passthrough: opts.Passthrough,
	}
	if err := request.Check(); err != nil {
		return nil, err
	}
	opts.Backing, opts.Mountpoint = request.Backing, request.Mountpoint
	s, err := New(opts)
	if err != nil {
		return nil, err
	}
	if err := s.mount(); err != nil {
		s.Close()
		return nil, err
	}
	if opts.WritebackInterval > 0 {
		s.flusher.Go(s.flush)
	}
	return s, nil
}

// New returns a session that is mounted nowhere: it has everything but the kernel's
// requests. Backing must be an absolute path. Close ends it.
func New(opts Options) (*Session, error) {
	s := &Session{opts: opts, log: opts.Log, subtree: opts.Subtree, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), groups: ownGroups()}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.done = make(chan struct{})
	if err := s.openRoot(); err != nil {
		return nil, err
	}
	return s, nil
}

// openRoot opens the backing directory, and makes the root node and everything else that
// works on files.
func (s *Session) openRoot() error {
	fd, err := unix.Open(s.opts.Backing, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: s.opts.Backing, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return &os.PathError{Op: "stat", Path: s.opts.Backing, Err: err}
	}
	s.limits = limitsOf(descriptorLimit(), sys.FreeAddressSpace())
	s.admission = newAdmission(s.limits, s.opts.AllowOther)
	s.dirs.max, s.nodes.maxRemoved = s.limits.dirs, s.limits.removed
	s.dirs.dirs = make(map[fuse.NodeID]*dirFD)
	s.devices.init(st.Dev)
	s.devices.written(st.Dev, fd)
	s.dirs.add(s.nodes.init(&st).id, fd) // held for ever
	s.files = mapping.NewTable(mapping.Config{
		MaxMappings: s.opts.MaxMappings, MaxIdle: s.limits.idle, MapLazily: true, NoATime: s.opts.NoATime, Mode: s.opts.Mode,
		DirtyLimit: s.opts.DirtyLimit, ManyUsers: s.opts.AllowOther, Log: s.log, Observer: s.opts.Observer,
		OnlyOnSync: s.opts.History != nil,
	})
	if s.opts.History != nil {
		if s.history, err = newHistory(s); err != nil {
			s.Close()
			return err
		}
	}
	if s.subtree != nil {
		if err := s.subtree.Attach(s, fd); err != nil {
			s.Close()
			return err
		}
	}
	return nil
}

// mount makes the mount.
func (s *Session) mount() error {
	fsname := s.opts.FSName
	if fsname == "" {
		fsname = s.opts.Backing
	}
	var err error
	s.conn, err = wire.Mount(wire.Options{
		Mountpoint: s.opts.Mountpoint, FSName: fsname,
		ReadOnly: s.opts.ReadOnly, AllowOther: s.opts.AllowOther, DefaultPermissions: s.opts.DefaultPermissions,
		SUID: s.opts.SUID, Dev: s.opts.Dev, NoExec: s.opts.NoExec, NoATime: s.opts.NoATime, Writeback: s.opts.Writeback, Passthrough: s.opts.Passthrough,
		Workers: s.limits.workers, Waiting: s.limits.waiting, RequestBytes: s.limits.requestBytes, Log: s.log,
	})
	return err
}

// Sync writes back everything that is unsynced: every mapping, and then the
// filesystems below, for what was closed since.
func (s *Session) Sync() error {
	if s.history != nil {
		return s.history.syncAll()
	}
	return s.syncEverything()
}

// syncEverything is Sync without regard to a history.
func (s *Session) syncEverything() error {
	err := s.files.SyncAll()
	return errors.Join(err, s.files.SyncClosed(func() error {
		var errs []error
		for _, fd := range s.devices.descriptors() {
			if err := unix.Syncfs(fd); err != nil {
				errs = append(errs, os.NewSyscallError("syncfs", err))
			}
		}
		return errors.Join(errs...)
	}))
}

// flush writes everything back from time to time, until the session ends.
func (s *Session) flush() {
	tick := time.NewTicker(s.opts.WritebackInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
		if s.files.UnsyncedBytes() == 0 && s.files.CopiedBytes() == 0 {
			continue
		}
		if err := s.Sync(); err != nil {
			s.log.Error("periodic write-back", "error", err)
		}
	}
}

// end closes everything after the last request was answered.
func (s *Session) end() {
	close(s.done)
	s.flusher.Wait()
	s.handles.close()
	s.Close()
	s.conn.Close()
}

// Close ends a session that is not served. [Session.Serve] does so by itself.
func (s *Session) Close() {
	if s.subtree != nil {
		s.subtree.Close()
	}
	if s.history != nil {
		s.history.close()
	}
	s.files.Close()
	s.nodes.close()
	s.dirs.close()
	s.devices.close()
}
