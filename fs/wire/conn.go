package wire

import (
	"log/slog"

	"bazil.org/fuse"
)

// Conn is the connection to the kernel of one mount.
type Conn struct {
	// Protocol is what was agreed on when the mount was made.
	Protocol Protocol

	dev      int
	log      *slog.Logger
	handler  Handler
	buffers  buffers
	workers  workers
	waiters  waiters
	notifier notifier
}

// A Handler does what requests ask for.
type Handler interface {
	// Handle does what a request asks for and answers it with one of w's methods. An
	// error is sent to the client as [ErrnoOf] has it; [ErrAnswered] says that there
	// is nothing left to send. Handle is called from many goroutines at a time. It
	// gets no interrupts. The request is lent until Handle returns, and so are the bytes
	// in it and the name of a lookup and of an attribute that is read; other names may be
	// kept.
	Handle(w *Worker, request fuse.Request) error
}

// Requests returns how many requests there have been.
func (c *Conn) Requests() uint64 { return c.workers.begun.Load() }
