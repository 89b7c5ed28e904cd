package client

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A medium moves messages of one size between two processes, this one and its
// peer, in both directions. Where the kernel copies messages, a process has one
// buffer for those it sends and one for those it receives; where memory is
// shared, they are filled and read in place.
type medium struct {
	name string
	// keeper says who keeps reader and writer apart.
	keeper string
	// open makes the medium. Whatever could outlive both processes is gone from
	// the system when it returns, or as soon as the peer has attached: then no
	// signal, SIGKILL among them, leaves anything behind.
	open func(cfg peerConfig, dir string) (*offer, error)
	// attach is the peer's half of open.
	attach func(cfg peerConfig) (*link, error)
}

// offer is a new medium: this process's end, and what the peer needs for its own.
type offer struct {
	*link
	config peerConfig
	files  []*os.File   // become the peer's descriptors from peerFD on
	remove func() error // if not nil: takes away what the peer had to find by name
}

// closeFiles closes what only the peer needs.
func (o *offer) closeFiles() {
	for _, f := range o.files {
		f.Close()
	}
	o.files = nil
}

// discard gives up everything.
func (o *offer) discard() error {
	o.closeFiles()
	return first(o.leave(), o.link.close())
}

// leave removes what the system still knows the medium by.
func (o *offer) leave() error {
	if o.remove == nil {
		return nil
	}
	remove := o.remove
	o.remove = nil
	return remove()
}

// peerFD is the first of the descriptors that a peer inherits.
const peerFD = 3

// link is a process's end of a medium.
type link struct {
	out sender
	in  receiver
	// shared is the memory behind out and in, or nil.
	shared *sharedMemory
	close  func() error
}

// sender is the direction from here to there.
type sender interface {
	// reserve waits until there is room and returns it, for one message.
	reserve(ctx context.Context) ([]byte, error)
	// send hands over what was put there.
	send(ctx context.Context) error
}

// receiver is the direction from there to here.
type receiver interface {
	// receive waits for a message. It is the caller's until release.
	receive(ctx context.Context) ([]byte, error)
	release() error
}

// byFutex and byKernel are keepers.
const (
	byFutex  = "futex"
	byKernel = "kernel"
)

// media are all that there are, in the order of the table.
var media = []medium{
	{"mapping", byFutex, openMapping, attachMapping},
	{"posix-shm", byFutex, openPosixShm, attachPosixShm},
	{"sysv-shm", byFutex, openSysvShm, attachSysvShm},
	{"pipe", byKernel, openPipe, attachPipe},
	{"socket", byKernel, openSocket, attachSocket},
	{"mqueue", byKernel, openQueues, attachQueues},
}

// MediaNames lists what [RunIPC] knows.
func MediaNames() []string {
	var all []string
	for _, m := range media {
		all = append(all, m.name)
	}
	return all
}

func findMedium(name string) (medium, error) {
	for _, m := range media {
		if m.name == name {
			return m, nil
		}
	}
	return medium{}, fmt.Errorf("no medium is named %q", name)
}

// stream is one direction of a byte stream: of a pipe or a socket. The
// descriptor waits in the kernel, as in a C program; when the other process ends
// it stops waiting.
type stream struct {
	fd  int
	buf []byte
}

func (s *stream) reserve(context.Context) ([]byte, error) { return s.buf, nil }

func (s *stream) send(ctx context.Context) error {
	for rest := s.buf; len(rest) > 0; {
		n, err := ignoringEINTR(func() (int, error) { return unix.Write(s.fd, rest) })
		if err != nil {
			return s.broken(ctx, "write", named(err))
		}
		rest = rest[n:]
	}
	return nil
}

func (s *stream) receive(ctx context.Context) ([]byte, error) {
	for rest := s.buf; len(rest) > 0; {
		n, err := ignoringEINTR(func() (int, error) { return unix.Read(s.fd, rest) })
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, s.broken(ctx, "read", named(err))
		}
		rest = rest[n:]
	}
	return s.buf, nil
}

func (s *stream) release() error { return nil }

// broken prefers the reason that is known why the other end is gone.
func (s *stream) broken(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// newStreams is a link that reads from one descriptor and writes to another, and
// owns them.
func newStreams(in, out int, size int64) *link {
	return &link{
		out: &stream{fd: out, buf: make([]byte, size)},
		in:  &stream{fd: in, buf: make([]byte, size)},
		close: func() error {
			if in == out {
				return unix.Close(in)
			}
			return first(unix.Close(in), unix.Close(out))
		},
	}
}

func openPipe(cfg peerConfig, _ string) (*offer, error) {
	var there, back [2]int
	if err := unix.Pipe2(there[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe2: %w", named(err))
	}
	if err := unix.Pipe2(back[:], unix.O_CLOEXEC); err != nil {
		unix.Close(there[0])
		unix.Close(there[1])
		return nil, fmt.Errorf("pipe2: %w", named(err))
	}
	return &offer{
		link: newStreams(back[0], there[1], cfg.Size), config: cfg,
		files: []*os.File{os.NewFile(uintptr(there[0]), "pipe"), os.NewFile(uintptr(back[1]), "pipe")},
	}, nil
}

func attachPipe(cfg peerConfig) (*link, error) { return newStreams(peerFD, peerFD+1, cfg.Size), nil }

func openSocket(cfg peerConfig, _ string) (*offer, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", named(err))
	}
	return &offer{
		link: newStreams(pair[0], pair[0], cfg.Size), config: cfg,
		files: []*os.File{os.NewFile(uintptr(pair[1]), "socket")},
	}, nil
}

func attachSocket(cfg peerConfig) (*link, error) { return newStreams(peerFD, peerFD, cfg.Size), nil }

// first returns the first error of several: a second one at a clean-up helps
// nobody, and messages have one line.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
