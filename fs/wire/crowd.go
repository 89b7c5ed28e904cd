package wire

import (
	"slices"
	"sync/atomic"
	"syscall"

	"bazil.org/fuse"

	"mapfs/mapping/share"
)

// A request that waits for a device holds its worker, and that a thread. Their number
// is bounded, so one user whose requests all wait could leave none to others. In a
// crowd, therefore, a request of a user who has his share of the workers already is
// held back until a request ends: its goroutine waits, with the message, and counts as
// no worker meanwhile.

// crowdSize is up to how many workers nobody is counted: so many users' requests can
// wait without anybody's being held back.
const crowdSize = 8

// waitingUnit is how many bytes of messages count as one request that waits.
const waitingUnit = 128 << 10

// crowd is the requests that are held back. The workers' mu guards queues.
type crowd struct {
	// waiting divides the requests that wait without a worker among the users.
	waiting *share.Pool
	queues  map[uint32][]*heldBack // by user, the oldest first
	length  atomic.Int64           // of all queues
}

// heldBack is a request that is held back.
type heldBack struct {
	w     *Worker
	units int64
	// goOn gets 0 when the request may be worked on, or the errno to answer it with.
	goOn chan syscall.Errno
}

func (c *crowd) init(waiting int) {
	c.waiting = share.NewPool(int64(waiting), true)
	c.queues = make(map[uint32][]*heldBack)
}

// mayWorkLocked reports whether a user's next request may have a worker. p.mu must be
// held.
func (p *workers) mayWorkLocked(user uint32) bool {
	busy, mine := 0, 1
	for _, w := range p.all {
		switch w.user.Load() {
		case nobody:
		case int64(user):
			mine++
			busy++
		default:
			busy++
		}
	}
	return share.Fair(int64(mine), int64(p.most-busy-1))
}

// holdBack keeps w's request until its user may have a worker. The errno is what the
// request has to be answered with instead, 0 if with nothing: ENOMEM for one that would
// wait as one too many, EINTR for one that was interrupted.
func (p *workers) holdBack(w *Worker, request fuse.Request) syscall.Errno {
	switch request.(type) {
	case *fuse.ForgetRequest, *fuse.BatchForgetRequest, *fuse.InterruptRequest, *fuse.ReleaseRequest, *fuse.DestroyRequest:
		return 0 // these end something
	}
	h, refused := p.queue(w)
	if h == nil {
		return refused
	}
	w.WillWait() // somebody has to read on
	return <-h.goOn
}

// queue puts w's request into its user's queue, or returns nil if it need not be, or
// cannot be.
func (p *workers) queue(w *Worker) (*heldBack, syscall.Errno) {
	user := w.header.Uid
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mayWorkLocked(user) {
		w.user.Store(int64(user)) // before others are counted
		return nil, 0
	}
	h := &heldBack{w: w, units: int64(1 + w.length/waitingUnit), goOn: make(chan syscall.Errno, 1)}
	if p.ended || !p.crowd.waiting.Take(user, h.units) {
		return nil, syscall.ENOMEM
	}
	p.crowd.queues[user] = append(p.crowd.queues[user], h)
	p.crowd.length.Add(1)
	p.resting++
	return h, 0
}

// next lets the requests go on that were held back and may have a worker now: those of
// the given user, of whom a request has just ended, before those of others.
func (p *workers) next(user uint32) {
	if p.crowd.length.Load() == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.crowd.queues[user]) > 0 && p.mayWorkLocked(user) {
		p.takeLocked(user, 0, 0)
	}
	for other := range p.crowd.queues {
		for len(p.crowd.queues[other]) > 0 && p.mayWorkLocked(other) {
			p.takeLocked(other, 0, 0)
		}
	}
}

// takeLocked takes the i-th request of a user's queue out and tells it how to go on. p.mu
// must be held.
func (p *workers) takeLocked(user uint32, i int, errno syscall.Errno) {
	queue := p.crowd.queues[user]
	h := queue[i]
	if queue = slices.Delete(queue, i, i+1); len(queue) > 0 {
		p.crowd.queues[user] = queue
	} else {
		delete(p.crowd.queues, user)
	}
	p.crowd.waiting.Give(user, h.units)
	p.crowd.length.Add(-1)
	p.resting--
	h.w.user.Store(int64(user)) // it is counted from now on
	h.goOn <- errno
}

// interrupt answers the request with the given number, if it is held back, with EINTR:
// its client must not wait for others'. It reports whether there was one.
func (p *workers) interrupt(id fuse.RequestID) bool {
	if p.crowd.length.Load() == 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for user, queue := range p.crowd.queues {
		for i, h := range queue {
			if h.w.header.ID == id {
				p.takeLocked(user, i, syscall.EINTR)
				return true
			}
		}
	}
	return false
}

// disperse ends the wait of every request that is held back. p.mu must be held.
func (p *workers) disperseLocked() {
	for user := range p.crowd.queues {
		for len(p.crowd.queues[user]) > 0 {
			p.takeLocked(user, 0, syscall.EINTR)
		}
	}
}
