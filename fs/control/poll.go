package control

import (
	"sync"
	"syscall"

	"mapfs/fs"
	"mapfs/fs/wire"
)

// poll answers poll(2) of a file of the control tree: all but events are
// always ready.
func (t *Tree) poll(w *wire.Worker, r *wire.PollRequest) error {
	h, ok := t.s.GetHandle(r.Handle).(handle)
	if !ok {
		return syscall.EBADF
	}
	events, ok := h.(*eventsHandle)
	if !ok {
		return fs.Poll(w, r)
	}
	if wakeup, wanted := r.Wakeup(); wanted {
		events.pollers.arm(events.log, t.s.Done(), func() { t.s.Conn().Wakeup(wakeup) })
	}
	// After that: an event in between is seen here, told of there, or both.
	var out wire.PollOut
	if events.ready() {
		out.Revents = uint32(r.Events) & fs.PollRead
	}
	return w.Send(wire.BytesOf(&out))
}

// ready reports whether there is something to read.
func (h *eventsHandle) ready() bool {
	h.mu.Lock()
	at := h.at
	h.mu.Unlock()
	return h.log.size() > at
}

// pollers wake those who wait in poll(2), select(2) or epoll(7) for an open events
// file. The kernel knows them all by one number that is the open file's, so one
// wake-up does for all of them; and it asks again, and has the next one armed,
// whenever one of them looks.
//
// A wake-up is armed also when there is something to read: who is told of edges
// alone (EPOLLET) reads on until EAGAIN and does not ask again.
type pollers struct {
	mu       sync.Mutex
	armed    bool
	released chan struct{} // closed when the file is; nil until something is armed
	group    sync.WaitGroup
}

// arm has notify called once, after the next event of the log, unless that is
// to come already. Nothing comes of it when the file is closed or done is.
func (p *pollers) arm(l *eventLog, done <-chan struct{}, notify func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.armed {
		return
	}
	p.armed = true
	if p.released == nil {
		p.released = make(chan struct{})
	}
	wake, released := l.next(), p.released
	p.group.Go(func() {
		select {
		case <-wake:
		case <-released:
			return
		case <-done:
			return
		}
		// First disarmed, then told: a poller that is woken and finds nothing has the
		// next one armed.
		p.mu.Lock()
		p.armed = false
		p.mu.Unlock()
		notify()
	})
}

// release ends what is armed, and waits until nobody is being told.
func (p *pollers) release() {
	p.mu.Lock()
	if p.released != nil {
		close(p.released)
		p.released = nil
	}
	p.mu.Unlock()
	p.group.Wait()
}
