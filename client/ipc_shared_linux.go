package client

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fileMemory maps all of a file, shared. The file is the mapping's from then on.
func fileMemory(f *os.File, size int64) (*sharedMemory, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, int(newGeometry(size).total), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap %s: %w", f.Name(), named(err))
	}
	return newSharedMemory(mem, size), nil
}

// newFileMemory gives a new file its size and its space, and maps it: a store to
// a page that the filesystem has no space for would be SIGBUS.
func newFileMemory(f *os.File, size int64) (*sharedMemory, error) {
	total := newGeometry(size).total
	if err := f.Truncate(total); err != nil {
		return nil, err
	}
	_, err := ignoringEINTR(func() (int, error) { return 0, unix.Fallocate(int(f.Fd()), 0, 0, total) })
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fmt.Errorf("fallocate %s: %w", f.Name(), named(err))
	}
	s, err := fileMemory(f, size)
	if err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, first(err, unix.Munmap(s.mem))
	}
	return s, nil
}

// mapped closes the file, which its mapping does not need, and makes a link.
func (s *sharedMemory) mapped(out, in int64) *link {
	return s.ends(out, in, func() error { return unix.Munmap(s.mem) })
}

// openMapping shares an ordinary file in dir, which both open by its name.
func openMapping(cfg peerConfig, dir string) (*offer, error) {
	f, err := os.CreateTemp(dir, ".mapfs-ipc-*")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cfg.Name, err = filepath.Abs(f.Name())
	if err == nil {
		var s *sharedMemory
		if s, err = newFileMemory(f, cfg.Size); err == nil {
			return &offer{
				link: s.mapped(wayThere, wayBack), config: cfg,
				remove: func() error { return os.Remove(cfg.Name) },
			}, nil
		}
	}
	return nil, first(err, os.Remove(f.Name()))
}

func attachMapping(cfg peerConfig) (*link, error) {
	f, err := os.OpenFile(cfg.Name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := fileMemory(f, cfg.Size)
	if err != nil {
		return nil, err
	}
	return s.mapped(wayBack, wayThere), nil
}

// openPosixShm does what shm_open(3) does: the C library keeps POSIX shared
// memory as files of /dev/shm. It has no name any more when the peer gets its
// descriptor, which shm_unlink(3) allows.
func openPosixShm(cfg peerConfig, _ string) (*offer, error) {
	name := fmt.Sprintf("/dev/shm/mapfs-ipc-%d", os.Getpid())
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = os.Remove(name)
	if err == nil {
		var s *sharedMemory
		if s, err = newFileMemory(f, cfg.Size); err == nil {
			return &offer{link: s.mapped(wayThere, wayBack), config: cfg, files: []*os.File{f}}, nil
		}
	}
	f.Close()
	return nil, err
}

func attachPosixShm(cfg peerConfig) (*link, error) {
	f := os.NewFile(peerFD, "shm")
	defer f.Close()
	s, err := fileMemory(f, cfg.Size)
	if err != nil {
		return nil, err
	}
	return s.mapped(wayBack, wayThere), nil
}

// openSysvShm marks the segment for removal at once. It lives until the last
// process detaches, and Linux lets others attach to it by its number (shmctl(2)).
func openSysvShm(cfg peerConfig, _ string) (*offer, error) {
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, int(newGeometry(cfg.Size).total), unix.IPC_CREAT|unix.IPC_EXCL|0o600)
	if err != nil {
		return nil, fmt.Errorf("shmget: %w", named(err))
	}
	cfg.ID = id
	s, err := attachSegment(cfg)
	if _, rmErr := unix.SysvShmCtl(id, unix.IPC_RMID, nil); err == nil && rmErr != nil {
		err = fmt.Errorf("shmctl: %w", named(rmErr))
	}
	if err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, first(err, unix.SysvShmDetach(s.mem))
	}
	return &offer{link: s.attached(wayThere, wayBack), config: cfg}, nil
}

func attachSysvShm(cfg peerConfig) (*link, error) {
	s, err := attachSegment(cfg)
	if err != nil {
		return nil, err
	}
	return s.attached(wayBack, wayThere), nil
}

func attachSegment(cfg peerConfig) (*sharedMemory, error) {
	mem, err := unix.SysvShmAttach(cfg.ID, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("shmat: %w", named(err))
	}
	return newSharedMemory(mem, cfg.Size), nil
}

func (s *sharedMemory) attached(out, in int64) *link {
	return s.ends(out, in, func() error { return unix.SysvShmDetach(s.mem) })
}
