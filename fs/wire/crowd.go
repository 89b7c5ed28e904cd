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
// held back, without a worker, until a request ends.

// crowdSize is up to how many workers nobody is counted: so many users' requests can
// wait without anybody's being held back.
const crowdSize = 8

// crowd is the requests that are held back. The workers' mu guards queues.
type crowd struct {
	// waiting divides the requests that wait without a worker among the users.
	waiting *share.Pool
	queues  map[uint32][]fuse.Request // by user, the oldest first
	length  atomic.Int64              // of all queues
}

func (c *crowd) init(waiting int) {
	c.waiting = share.NewPool(int64(waiting), true)
	c.queues = make(map[uint32][]fuse.Request)
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

// holdBack keeps a request for later if its user has his share of the workers, and
// reports whether it did. One that would be too many is refused: ENOMEM.
func (p *workers) holdBack(request fuse.Request) bool {
	switch request.(type) {
	case *fuse.ForgetRequest, *fuse.BatchForgetRequest, *fuse.InterruptRequest, *fuse.ReleaseRequest, *fuse.DestroyRequest:
		return false // these end something
	}
	user := request.Hdr().Uid
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mayWorkLocked(user) {
		return false
	}
	if !p.crowd.waiting.Take(user, 1) {
		p.refuse(request, syscall.ENOMEM)
		return true
	}
	p.crowd.queues[user] = append(p.crowd.queues[user], request)
	p.crowd.length.Add(1)
	return true
}

// refuse answers another request than the one under way with an errno.
func (p *workers) refuse(request fuse.Request, errno syscall.Errno) {
	r := reply{dev: p.conn.dev}
	r.start(request.Hdr())
	// Whose client is gone needs no answer.
	_ = r.fail(errno)
	r.finish()
}

// next returns a request that was held back and may have a worker now, or nil: one of
// the given user, of whom a request has just ended, before those of others.
func (p *workers) next(user uint32) fuse.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.crowd.queues[user]) > 0 && p.mayWorkLocked(user) {
		return p.takeLocked(user, 0)
	}
	for other := range p.crowd.queues {
		if p.mayWorkLocked(other) {
			return p.takeLocked(other, 0)
		}
	}
	return nil
}

// takeLocked takes the i-th request of a user's queue out. p.mu must be held.
func (p *workers) takeLocked(user uint32, i int) fuse.Request {
	queue := p.crowd.queues[user]
	request := queue[i]
	if queue = slices.Delete(queue, i, i+1); len(queue) > 0 {
		p.crowd.queues[user] = queue
	} else {
		delete(p.crowd.queues, user)
	}
	p.crowd.waiting.Give(user, 1)
	p.crowd.length.Add(-1)
	return request
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
		for i, request := range queue {
			if request.Hdr().ID == id {
				p.refuse(p.takeLocked(user, i), syscall.EINTR)
				return true
			}
		}
	}
	return false
}
