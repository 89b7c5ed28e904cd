package client

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// queue is one direction of two POSIX message queues (mq_overview(7)). A queue's
// messages are at most some kilobytes long, so ours go in pieces. On Linux a
// queue is a descriptor: it is unlinked as soon as it is open, and inherited.
type queue struct {
	fd    int
	buf   []byte // a whole message
	piece []byte // what mq_receive(3) wants room for, however short the message
}

// queueDepth is how many pieces a queue holds: what any user may ask for.
const queueDepth = 10

// queueNap bounds one wait in the kernel, as futexNap does.
const queueNap = futexNap

// mqAttr is struct mq_attr of linux/mqueue.h, of C longs.
type mqAttr struct {
	flags, maxMsg, msgSize, curMsgs int
	_                               [4]int
}

func newQueue(fd int, cfg peerConfig) *queue {
	return &queue{fd: fd, buf: make([]byte, cfg.Size), piece: make([]byte, cfg.Piece)}
}

// eachPiece calls move with the parts of the message in order.
func (q *queue) eachPiece(move func(part []byte) error) error {
	for rest := q.buf; len(rest) > 0; {
		part := rest[:min(len(rest), len(q.piece))]
		if err := move(part); err != nil {
			return err
		}
		rest = rest[len(part):]
	}
	return nil
}

func (q *queue) reserve(context.Context) ([]byte, error) { return q.buf, nil }

func (q *queue) send(ctx context.Context) error {
	return q.eachPiece(func(part []byte) error {
		_, err := q.call(ctx, "mq_timedsend", unix.SYS_MQ_TIMEDSEND, part)
		return err
	})
}

func (q *queue) receive(ctx context.Context) ([]byte, error) {
	err := q.eachPiece(func(part []byte) error {
		n, err := q.call(ctx, "mq_timedreceive", unix.SYS_MQ_TIMEDRECEIVE, q.piece)
		if err == nil && n != len(part) {
			err = fmt.Errorf("mq_timedreceive: got %d bytes, want %d", n, len(part))
		}
		if err == nil {
			copy(part, q.piece)
		}
		return err
	})
	return q.buf, err
}

func (q *queue) release() error { return nil }

// call sends or receives one piece, and waits for that as long as ctx allows.
func (q *queue) call(ctx context.Context, what string, trap uintptr, piece []byte) (int, error) {
	const priority = 0 // one for all, so that the order is kept
	for {
		limit := unix.NsecToTimespec(time.Now().Add(queueNap).UnixNano())
		n, _, errno := unix.Syscall6(trap, uintptr(q.fd), uintptr(unsafe.Pointer(unsafe.SliceData(piece))),
			uintptr(len(piece)), priority, uintptr(unsafe.Pointer(&limit)), 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.ETIMEDOUT, unix.EINTR:
			// Only now: what a process sent before it ended can be received.
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			continue
		}
		return 0, fmt.Errorf("%s: %w", what, named(errno))
	}
}

func openQueues(cfg peerConfig, _ string) (*offer, error) {
	cfg.Piece = min(cfg.Size, largestPiece())
	there, err := openQueue("there", cfg.Piece)
	if err != nil {
		return nil, err
	}
	back, err := openQueue("back", cfg.Piece)
	if err != nil {
		unix.Close(there)
		return nil, err
	}
	o := &offer{
		link: &link{
			out: newQueue(there, cfg), in: newQueue(back, cfg),
			close: func() error { return first(unix.Close(there), unix.Close(back)) },
		},
		config: cfg,
	}
	for _, fd := range []int{there, back} {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, first(fmt.Errorf("fcntl: %w", named(err)), o.discard())
		}
		o.files = append(o.files, os.NewFile(uintptr(own), "queue"))
	}
	return o, nil
}

func attachQueues(cfg peerConfig) (*link, error) {
	return &link{
		in: newQueue(peerFD, cfg), out: newQueue(peerFD+1, cfg),
		close: func() error { return first(unix.Close(peerFD), unix.Close(peerFD+1)) },
	}, nil
}

// openQueue makes a queue that has no name any more.
func openQueue(suffix string, piece int64) (int, error) {
	// The system call wants the name without the slash that mq_open(3) wants.
	name, err := unix.BytePtrFromString(fmt.Sprintf("mapfs-ipc-%d-%s", os.Getpid(), suffix))
	if err != nil {
		return 0, err
	}
	attr := mqAttr{maxMsg: queueDepth, msgSize: int(piece)}
	fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)),
		unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600, uintptr(unsafe.Pointer(&attr)), 0, 0)
	if errno == unix.EMFILE {
		return 0, fmt.Errorf("mq_open: %w: the user's queues would hold more bytes than the limit, see ulimit -q", named(errno))
	}
	if errno != 0 {
		return 0, fmt.Errorf("mq_open: %w", named(errno))
	}
	if _, _, errno := unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(name)), 0, 0); errno != 0 {
		unix.Close(int(fd))
		return 0, fmt.Errorf("mq_unlink: %w", named(errno))
	}
	return int(fd), nil
}

// largestPiece is the longest message that any user may ask a queue for.
func largestPiece() int64 {
	const usual = 8192 // of mq_overview(7)
	text, err := os.ReadFile("/proc/sys/fs/mqueue/msgsize_max")
	if err != nil {
		return usual
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	if err != nil || n <= 0 {
		return usual
	}
	return n
}
