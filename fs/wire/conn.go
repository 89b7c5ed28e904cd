package wire

import (
	"log/slog"

	"bazil.org/fuse"
)

// Conn is the connection to the kernel of one mount.
type Conn struct {
	lib      *fuse.Conn
	dev      int // a duplicate of the library's descriptor
	log      *slog.Logger
	handler  Handler
	workers  workers
	waiters  waiters
	notifier notifier
}

// A Handler does what requests ask for.
type Handler interface {
	// Handle does what a request asks for and answers it with one of w's methods. An
	// error is sent to the client as [ErrnoOf] has it; [ErrAnswered] says that there
	// is nothing left to send. Handle is called from many goroutines at a time. It
	// gets no interrupts.
	Handle(w *Worker, request fuse.Request) error
}

// Requests returns how many requests there have been.
func (c *Conn) Requests() uint64 { return c.workers.begun.Load() }

// Wakeup tells those who wait in poll(2) for an open file to look again.
func (c *Conn) Wakeup(wakeup fuse.PollWakeup) {
	// A poller that is gone is nobody to tell.
	_ = c.lib.NotifyPollWakeup(wakeup)
}
