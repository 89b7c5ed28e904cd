package wire

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"

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

	// Passthrough asks for what [Conn.Pass] needs (FUSE_PASSTHROUGH).
	Passthrough bool

	// Workers caps the requests that are worked on at a time, each of which can hold
	// a thread. Waiting caps those that hold none: they wait for a worker or in
	// [Worker.Wait]. Each keeps its message, which can be as long as a request.
	Workers, Waiting int

	// RequestBytes bounds how many bytes one read or write has; 0 means as many as the
	// system allows, at most [MaxRequestBytes].
	RequestBytes int

	Log *slog.Logger
}

// maxReadahead is how much the kernel may read ahead of a client, in bytes.
const maxReadahead = MaxRequestBytes

// Mount mounts on o.Mountpoint. When it returns the mount is in the mount table; it
// answers as soon as [Conn.Serve] runs.
func Mount(o Options) (*Conn, error) {
	c := &Conn{log: o.Log}
	var err error
	if c.dev, err = o.connect(); err != nil {
		return nil, fmt.Errorf("mount on %s: %w", o.Mountpoint, err)
	}
	if err := c.greet(&o); err != nil {
		unix.Close(c.dev)
		err = fmt.Errorf("mount on %s: %w", o.Mountpoint, err)
		return nil, errors.Join(err, mountpoint.Unmount(o.Mountpoint, true))
	}
	c.buffers.size = c.Protocol.RequestBytes + headRoom
	c.workers.init(c, &o)
	c.notifier.start(c)
	widenReadahead(o.Mountpoint, c.Protocol.RequestBytes)
	return c, nil
}

// greet agrees with the kernel on what is spoken: it answers FUSE_INIT, which comes first.
func (c *Conn) greet(o *Options) error {
	message := make([]byte, 2*headRoom) // the least that the kernel accepts
	n, err := c.read(message)
	if err != nil {
		return fmt.Errorf("reading FUSE_INIT: %w", err)
	}
	out, agreed, refused := o.answerInit(message[:n])
	body := message[:n]
	in := take[inHeader](&body)
	if in == nil {
		return refused
	}
	r := reply{dev: c.dev}
	r.start(in.Unique)
	if refused != nil {
		_ = r.fail(ErrnoOf(refused))
		return refused
	}
	c.Protocol = agreed
	return r.Send(BytesOf(&out))
}

// read reads one message. io.EOF says that the mount was unmounted.
func (c *Conn) read(message []byte) (int, error) {
	for {
		n, err := syscall.Read(c.dev, message)
		switch {
		case err == syscall.EINTR || err == syscall.EAGAIN || err == syscall.ENOENT:
			// ENOENT: the request was interrupted before it could be read.
		case err == syscall.ENODEV || err == nil && n == 0:
			return 0, io.EOF
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		default:
			return n, nil
		}
	}
}

// widenReadahead has the kernel read as much ahead of a client as one request can have,
// where it lets us: it keeps to 128 KiB however much FUSE_INIT allows.
func widenReadahead(path string, bytes int) {
	id, err := mountpoint.ConnectionID(path)
	if err != nil {
		return
	}
	file := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(uint64(id)), unix.Minor(uint64(id)))
	// Who may not write it reads in smaller pieces.
	_ = os.WriteFile(file, fmt.Appendf(nil, "%d", bytes>>10), 0)
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
	c.buffers.close()
}
