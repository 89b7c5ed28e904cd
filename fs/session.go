package fs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/mapping"
)

// Session is one mounted backing directory.
type Session struct {
	opts Options
	log  *slog.Logger
	conn *fuse.Conn
	dev  int // a duplicate of the session's descriptor

	limits    limits
	admission admission

	files   *mapping.Table
	nodes   nodeTable
	dirs    dirCache
	handles handleTable
	control controlTree
	notify  notifier
	devices deviceTable

	// uid and gid are the daemon's own; what others create is created in
	// their name when the daemon is root.
	uid, gid uint32

	// renameMu is held by a rename from its system call to its note in the
	// nodes. Whoever finds a node at none of its names waits for that.
	renameMu sync.RWMutex

	workers workers
	// slowSync says that the last fsync of a client took long.
	slowSync atomic.Bool
	flusher  sync.WaitGroup
	done     chan struct{} // closed when the session has ended
}

// Mount mounts opts.Backing on opts.Mountpoint. When it returns the mount is in
// the mount table; it answers as soon as [Session.Serve] runs.
//
// The caller's umask applies to what clients create and should be 0: the kernel
// has applied the client's already.
func Mount(opts Options) (*Session, error) {
	if err := checkMount(&opts); err != nil {
		return nil, err
	}
	s := &Session{opts: opts, log: opts.Log, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.done = make(chan struct{})
	s.control.init(opts.Control)
	if err := s.openRoot(); err != nil {
		return nil, err
	}
	if err := s.mount(); err != nil {
		s.dirs.close()
		return nil, err
	}
	s.workers.background.find(opts.Mountpoint)
	s.files = mapping.NewTable(mapping.Config{
		MaxMappings: opts.MaxMappings, MaxIdle: s.limits.idle, MapLate: true, NoATime: opts.NoATime, Mode: opts.Mode, DirtyLimit: opts.DirtyLimit, ManyUsers: opts.AllowOther, Log: s.log, Observer: s.control.events,
	})
	s.control.metrics = newMetrics(s)
	s.notify.start(s.conn, s.log)
	if opts.WritebackInterval > 0 {
		s.flusher.Go(s.flush)
	}
	return s, nil
}

// openRoot opens the backing directory and makes the root node.
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
	if err := s.reserveControl(fd); err != nil {
		unix.Close(fd)
		return err
	}
	s.limits = limitsOf(descriptorLimit(), mapping.FreeAddressSpace())
	s.admission = newAdmission(s.limits, s.opts.AllowOther)
	s.workers.crowd.init(s.limits)
	s.dirs.max, s.nodes.maxRemoved = s.limits.dirs, s.limits.removed
	s.dirs.dirs = make(map[fuse.NodeID]*dirFD)
	s.devices.init(st.Dev)
	s.devices.written(st.Dev, fd)
	s.dirs.add(s.nodes.init(&st).id, fd) // held for ever
	s.control.kernel = mapping.ProbeKernel(fd)
	return nil
}

// reserveControl refuses a backing directory that has an entry of the control
// tree's name: the entry could not be reached.
func (s *Session) reserveControl(fd int) error {
	name := s.control.name
	if name == "" {
		return nil
	}
	if err := checkName(name); err != nil {
		return fmt.Errorf("%q cannot be the control tree's name: %w", name, err)
	}
	var st unix.Stat_t
	if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return fmt.Errorf("%s has an entry %q, which is the control tree's name; rename it, or mount with -o control=NAME or -o control=none", s.opts.Backing, name)
	}
	return nil
}

// mountLock keeps two mounts of one process apart while each looks for its
// descriptor.
var mountLock sync.Mutex

// mount makes the mount and finds the session's descriptor.
func (s *Session) mount() error {
	mountLock.Lock()
	defer mountLock.Unlock()
	before, err := openDevices()
	if err != nil {
		return err
	}
	fsname := s.opts.FSName
	if fsname == "" {
		fsname = s.opts.Backing
	}
	options := []fuse.MountOption{
		fuse.FSName(fsname),
		fuse.Subtype("mapfs"),
		fuse.AsyncRead(),
		fuse.MaxReadahead(maxReadahead),
		fuse.HandleKillPriv(),
		fuse.CacheSymlinks(),
		fuse.MaxBackground(maxBackground),
	}
	for _, o := range []struct {
		on  bool
		add fuse.MountOption
	}{
		{s.opts.ReadOnly, fuse.ReadOnly()},
		{s.opts.AllowOther, fuse.AllowOther()},
		{s.opts.DefaultPermissions, fuse.DefaultPermissions()},
		{s.opts.SUID, fuse.AllowSUID()},
		{s.opts.Dev, fuse.AllowDev()},
		{s.opts.Writeback, fuse.WritebackCache()},
		{s.opts.NoExec, rawOption("noexec")},
		{s.opts.NoATime, rawOption("noatime")},
	} {
		if o.on {
			options = append(options, o.add)
		}
	}
	if s.conn, err = fuse.Mount(s.opts.Mountpoint, options...); err != nil {
		return fmt.Errorf("mount on %s: %w", s.opts.Mountpoint, err)
	}
	if s.dev, err = sessionDevice(before); err != nil {
		s.conn.Close()
		return errors.Join(err, Unmount(s.opts.Mountpoint, true))
	}
	return nil
}

// maxReadahead is how much the kernel may read ahead of a client, in bytes. It
// splits what it reads ahead into requests of at most 128 KiB.
const maxReadahead = 1 << 20

// Sync writes back everything that is unsynced: every mapping, and then the
// filesystems below, for what was closed since.
func (s *Session) Sync() error {
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

// close gives up everything after the last request was answered.
func (s *Session) close() {
	close(s.done)
	s.flusher.Wait()
	s.notify.stop()
	s.control.kernel.Close()
	s.handles.close()
	s.files.Close()
	s.nodes.close()
	s.dirs.close()
	s.devices.close()
	unix.Close(s.dev)
	s.conn.Close()
}
