package wire

import (
	"errors"
	"runtime/debug"
	"syscall"
	"unsafe"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

// headerSize is the size of what stands before every reply.
const headerSize = int(unsafe.Sizeof(outHeader{}))

// reply is the answer to one request at a time. Each worker has its own, so that an
// answer needs no memory but this.
type reply struct {
	dev int
	// pending says that a request is being answered.
	pending bool
	// buf holds the header and a fixed reply after it.
	buf struct {
		header outHeader
		body   [unsafe.Sizeof(StatxOut{})]byte
	}
}

// start makes ready for the answer to the request with the given number.
func (r *reply) start(unique uint64) {
	r.pending = true
	r.buf.header = outHeader{Unique: unique}
}

// OK answers without a body.
func (r *reply) OK() error { return r.Send(nil) }

// fail answers with an errno.
func (r *reply) fail(errno syscall.Errno) error {
	r.buf.header.Error = -int32(errno)
	return r.Send(nil)
}

// Send answers with a body of a fixed size, at most that of a [StatxOut]; see
// [BytesOf]. It only copies the body, which can therefore live on the caller's stack.
func (r *reply) Send(body []byte) error {
	r.pending = false
	length := headerSize + copy(r.buf.body[:], body)
	r.buf.header.Len = uint32(length)
	_, err := unix.Write(r.dev, BytesOf(&r.buf)[:length])
	return err
}

// SendBytes answers with a body of any length.
func (r *reply) SendBytes(body []byte) error {
	if len(body) <= len(r.buf.body) {
		return r.Send(body)
	}
	r.pending = false
	r.buf.header.Len = uint32(headerSize + len(body))
	_, err := unix.Writev(r.dev, [][]byte{BytesOf(&r.buf.header), body})
	return err
}

// Begin returns the header of an answer of n bytes, and the descriptor to write it and
// the bytes to, in one system call. The caller then returns [ErrAnswered].
func (r *reply) Begin(n int) (fd int, header []byte) {
	r.pending = false
	r.buf.header.Len = uint32(headerSize + n)
	return r.dev, BytesOf(&r.buf.header)
}

// ErrAnswered says that a handler has answered already, well or not.
var ErrAnswered = errors.New("answered")

// answer has one request handled and sees that it is answered. A bug in a handler costs
// the client an EIO and not everybody the mount.
func (w *Worker) answer(request fuse.Request) {
	c := w.conn
	w.start(uint64(request.Hdr().ID))
	w.user.Store(int64(request.Hdr().Uid))
	defer w.user.Store(nobody)
	defer func() {
		if e := recover(); e != nil {
			c.log.Error("a request failed", "request", request.String(), "panic", e, "stack", string(debug.Stack()))
			if w.pending {
				_ = w.fail(syscall.EIO)
			}
		}
		w.pending = false
	}()
	if err := w.handle(request); err != nil && err != ErrAnswered {
		if err := w.fail(ErrnoOf(err)); err != nil && err != syscall.ENOENT {
			c.log.Error("a reply was refused", "request", request.String(), "error", err)
		}
	}
}

// handle passes a request on, except for interrupts. They are about requests that wait,
// for a worker or in [Worker.Wait]: any other is about to be answered anyway.
func (w *Worker) handle(request fuse.Request) error {
	if r, ok := request.(*fuse.InterruptRequest); ok {
		if !w.conn.workers.interrupt(r.IntrID) {
			w.conn.waiters.interrupt(r.IntrID)
		}
		return ErrAnswered
	}
	return w.conn.handler.Handle(w, request)
}
