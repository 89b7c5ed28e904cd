package wire

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/mountpoint"
)

// Options say how to mount.
type Options struct {
	// Mountpoint is an absolute path of a directory; FSName is the mount's source in
	// /proc/self/mountinfo.
	Mountpoint, FSName string

	// These are mount(8)'s and fuse(8)'s.
	ReadOnly, AllowOther, DefaultPermissions, SUID, Dev, NoExec, NoATime bool

	// Writeback lets the kernel collect writes (FUSE_WRITEBACK_CACHE).
	Writeback bool

	// Workers caps the requests that are worked on at a time, each of which can hold
	// a thread. Waiting caps those that hold none: they wait for a worker or in
	// [Worker.Wait]. Each keeps a buffer of some 130 KiB.
	Workers, Waiting int

	Log *slog.Logger
}

// maxReadahead is how much the kernel may read ahead of a client, in bytes. It
// splits what it reads ahead into requests of at most 128 KiB.
const maxReadahead = 1 << 20

// mountLock keeps two mounts of one process apart while each looks for its
// descriptor.
var mountLock sync.Mutex

// Mount mounts on o.Mountpoint. When it returns the mount is in the mount table; it
// answers as soon as [Conn.Serve] runs.
func Mount(o Options) (*Conn, error) {
	mountLock.Lock()
	defer mountLock.Unlock()
	before, err := openDevices()
	if err != nil {
		return nil, err
	}
	c := &Conn{log: o.Log}
	if c.lib, err = fuse.Mount(o.Mountpoint, o.list()...); err != nil {
		return nil, fmt.Errorf("mount on %s: %w", o.Mountpoint, err)
	}
	if c.dev, err = sessionDevice(before); err != nil {
		c.lib.Close()
		return nil, errors.Join(err, mountpoint.Unmount(o.Mountpoint, true))
	}
	c.workers.init(c, &o)
	c.notifier.start(c)
	return c, nil
}

// list returns the options in the library's form.
func (o *Options) list() []fuse.MountOption {
	list := []fuse.MountOption{
		fuse.FSName(o.FSName),
		fuse.Subtype(mountpoint.Subtype),
		fuse.AsyncRead(),
		fuse.MaxReadahead(maxReadahead),
		fuse.HandleKillPriv(),
		fuse.CacheSymlinks(),
		fuse.MaxBackground(maxBackground),
	}
	for _, option := range []struct {
		on  bool
		add fuse.MountOption
	}{
		{o.ReadOnly, fuse.ReadOnly()},
		{o.AllowOther, fuse.AllowOther()},
		{o.DefaultPermissions, fuse.DefaultPermissions()},
		{o.SUID, fuse.AllowSUID()},
		{o.Dev, fuse.AllowDev()},
		{o.Writeback, fuse.WritebackCache()},
		{o.NoExec, rawOption("noexec")},
		{o.NoATime, rawOption("noatime")},
	} {
		if option.on {
			list = append(list, option.add)
		}
	}
	return list
}

// Serve has h answer requests until the mount is unmounted. It returns what ended the
// connection early, if anything did.
func (c *Conn) Serve(h Handler) error {
	c.handler = h
	return c.workers.serve()
}

// Close gives the connection up, after Serve has returned or instead of it.
func (c *Conn) Close() {
	c.notifier.stop()
	unix.Close(c.dev)
	c.lib.Close()
}
