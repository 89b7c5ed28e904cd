package wire

import (
	"sync"
	"syscall"

	"bazil.org/fuse"
)

// waiters are the requests that wait for an event, so that an interrupt or the end of
// the connection can end the wait.
type waiters struct {
	mu      sync.Mutex
	waiting map[fuse.RequestID]chan struct{}
	// early are requests that were interrupted before they waited, if ever
	// they will. Most were simply answered, so they are forgotten in bulk.
	early  map[fuse.RequestID]bool
	closed bool
}

// maxEarly bounds what is remembered of interrupts that found nobody waiting.
const maxEarly = 1024

// Wait waits until done is closed. EINTR says that the client was interrupted or the
// connection ends, ENOMEM that too many requests of the client's user wait already. A
// request that waits holds no thread.
func (w *Worker) Wait(done <-chan struct{}) error {
	interrupted, err := w.conn.waiters.enter(w.header.ID)
	if err != nil {
		return err
	}
	defer w.conn.waiters.leave(w.header.ID)
	p := &w.conn.workers
	if err := p.beginWait(w); err != nil {
		return err
	}
	defer p.endWait(w)
	select {
	case <-done:
		return nil
	case <-interrupted:
		return syscall.EINTR
	}
}

// enter notes that a request waits. The channel is closed when it is interrupted.
func (v *waiters) enter(id fuse.RequestID) (interrupted <-chan struct{}, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed || v.early[id] {
		delete(v.early, id)
		return nil, syscall.EINTR
	}
	if v.waiting == nil {
		v.waiting = make(map[fuse.RequestID]chan struct{})
	}
	c := make(chan struct{})
	v.waiting[id] = c
	return c, nil
}

// leave ends what enter began.
func (v *waiters) leave(id fuse.RequestID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.waiting, id)
}

// interrupt ends the wait of a request, if it waits.
func (v *waiters) interrupt(id fuse.RequestID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if c := v.waiting[id]; c != nil {
		close(c)
		delete(v.waiting, id)
		return
	}
	if v.early == nil || len(v.early) >= maxEarly {
		v.early = make(map[fuse.RequestID]bool)
	}
	v.early[id] = true
}

// close ends every wait, and those to come.
func (v *waiters) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	for id, c := range v.waiting {
		close(c)
		delete(v.waiting, id)
	}
}

// beginWait is called by a request that is about to wait for an event. It holds no
// thread, so it does not count as a worker until endWait. Too many of one user are
// refused: ENOMEM.
func (p *workers) beginWait(w *Worker) error {
	if !p.crowd.waiting.Take(w.header.Uid, 1) {
		return syscall.ENOMEM
	}
	p.mu.Lock()
	p.resting++
	p.mu.Unlock()
	w.user.Store(nobody)
	w.WillWait()
	return nil
}

func (p *workers) endWait(w *Worker) {
	w.user.Store(int64(w.header.Uid))
	p.mu.Lock()
	p.resting--
	p.mu.Unlock()
	p.crowd.waiting.Give(w.header.Uid, 1)
}
