package fs

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// workers are the goroutines that answer requests. One of them, always the same,
// is the fastest: whichever thread the kernel wakes next is the one whose caches
// are warm, and no request pays for starting another. So a second one starts only
// when the first is held up:
//
//   - a request that is known to wait (a reader of events, an fsync where the last
//     one took long) calls for a replacement before it does;
//   - the lookout sees that every worker has been in the same request for a
//     tick;
//   - the lookout sees that there was no idle worker for many ticks, and there
//     are processors to spare.
//
// A worker that becomes idle while another one is ends. How many there can be is
// bounded, and each user has a share of them; see crowd.go.
type workers struct {
	s     *Session
	group sync.WaitGroup
	// fatal holds what ended the session early.
	fatal chan error

	mu sync.Mutex
	// ended: no worker is started after one was told that there are no more requests.
	ended bool
	all   []*worker // that run
	// resting is how many of them wait for an event.
	resting int
	crowd   crowd

	idle    atomic.Int32  // workers that wait for a request, or are about to
	running atomic.Int32  // all workers
	begun   atomic.Uint64 // requests so far

	// ticks counts the lookout's looks.
	ticks atomic.Uint32
	// The lookout sleeps while there are no requests.
	asleep atomic.Bool
	rouse  chan struct{}
	stop   chan struct{}
	// background is the lookout's.
	background background
}

const (
	// lookoutTick is how often the lookout looks, and so how long a request can
	// keep others waiting: the shorter time for as many looks as lookoutAlarm says
	// after a request did. A look wakes a thread, and what answers requests pays
	// for that.
	lookoutTick      = 5 * time.Millisecond
	lookoutTickAlarm = time.Millisecond
	lookoutAlarm     = 1000
	// lookoutPatience is how many ticks without a request send the lookout to
	// sleep; lookoutBusy is how many without an idle worker call for one more.
	lookoutPatience = 20
	lookoutBusy     = 20
)

// SpareSlots is how many more slots than processors Go's scheduler should have
// (runtime.GOMAXPROCS) in a process that serves: a worker that waits in read(2)
// keeps its slot only while others are free, and without one has to queue for a
// slot at every request.
const SpareSlots = 2

// serve runs workers until there are no more requests, and returns what ended
// them early, if anything did.
func (p *workers) serve(s *Session) error {
	p.s = s
	p.fatal = make(chan error, 1)
	p.rouse = make(chan struct{}, 1)
	p.stop = make(chan struct{})
	p.start()
	var lookout sync.WaitGroup
	lookout.Go(p.lookout)
	p.group.Wait()
	close(p.stop)
	lookout.Wait()
	select {
	case err := <-p.fatal:
		return err
	default:
		return nil
	}
}

// start starts a worker, unless the session has ended. It counts as idle until its
// first request.
func (p *workers) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || len(p.all)-p.resting >= p.s.limits.workers {
		return
	}
	w := &worker{s: p.s, at: len(p.all)}
	w.dev = p.s.dev
	w.user.Store(nobody)
	p.all = append(p.all, w)
	// The group has the worker before it counts as idle: the last other one may
	// leave as soon as it does.
	p.group.Add(1)
	p.running.Add(1)
	p.idle.Add(1)
	go func() {
		defer p.group.Done()
		p.work(w)
	}()
}

// leave takes a worker that ends out of the list.
func (p *workers) leave(w *worker) {
	p.running.Add(-1)
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.all) - 1
	p.all[w.at] = p.all[last]
	p.all[w.at].at = w.at
	p.all[last] = nil
	p.all = p.all[:last]
}

// worker reads requests and answers them, one at a time.
type worker struct {
	replier
	s *Session
	// nonblock says that the read being answered must not wait.
	nonblock bool

	// user is whose request is under way, or nobody.
	user atomic.Int64
	at   int // in workers.all, guarded by its mu
}

// nobody is no user's number.
const nobody = -1

// work reads and answers requests until there are no more, or another worker is
// idle.
func (p *workers) work(w *worker) {
	defer p.leave(w)
	var tick uint32
	for {
		request, err := p.s.conn.ReadRequest()
		p.idle.Add(-1)
		switch {
		case err == nil:
			p.begun.Add(1)
			if p.asleep.Load() {
				p.wake()
			}
			if p.running.Load() <= crowdSize || !p.holdBack(w, request) {
				w.answer(request)
				for p.crowd.length.Load() > 0 {
					next := p.next(request.Hdr().Uid)
					if next == nil {
						break
					}
					w.answer(next)
				}
			}
			if now := p.ticks.Load(); now != tick {
				// A goroutine that leaves the processor by system calls only
				// looks to Go's scheduler as if it never did. After 10 ms it
				// would be interrupted and lose its slot, and the runtime's
				// monitor would look around every 20 us from then on.
				tick = now
				runtime.Gosched()
			}
		case errors.Is(err, io.EOF):
			p.end()
			return
		case errors.Is(err, syscall.EINTR), errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOENT):
			// ENOENT: the request was interrupted before it could be read.
		default:
			select {
			case p.fatal <- fmt.Errorf("reading a request: %w", err):
			default:
			}
			p.end()
			return
		}
		// In one step: a worker on its way out must not look idle to another,
		// or both would leave.
		if !p.idle.CompareAndSwap(0, 1) {
			return
		}
	}
}

// end notes that there are no more requests, and ends those that wait.
func (p *workers) end() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.s.control.waiters.close()
}

// willWait is called by a request that may take long, so that others need not
// wait for it.
func (p *workers) willWait() {
	if p.idle.Load() == 0 {
		p.start()
	}
}

// wake ends the lookout's sleep.
func (p *workers) wake() {
	p.asleep.Store(false)
	select {
	case p.rouse <- struct{}{}:
	default:
	}
}

// lookout starts workers where those there are do not suffice.
func (p *workers) lookout() {
	tick := time.NewTimer(lookoutTick)
	defer tick.Stop()
	most := int32(max(runtime.NumCPU()/2, 1))
	quiet, busy, alarm := 0, 0, 0
	for {
		before := p.begun.Load()
		if alarm > 0 {
			alarm--
			tick.Reset(lookoutTickAlarm)
		} else {
			tick.Reset(lookoutTick)
		}
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		p.ticks.Add(1)
		idle, progress := p.idle.Load(), p.begun.Load() != before
		switch {
		case idle > 0 && !progress:
			quiet++
		case idle == 0 && !progress:
			quiet, alarm = 0, lookoutAlarm
			p.start() // all are held up
		default:
			quiet = 0
		}
		if idle == 0 {
			busy++
		} else {
			busy = 0
		}
		if busy >= lookoutBusy && p.running.Load() < most {
			busy = 0
			p.start()
		}
		if p.running.Load() > crowdSize {
			p.background.widen(true)
		}
		if quiet >= lookoutPatience {
			quiet = 0
			if p.running.Load() <= crowdSize {
				p.background.widen(false)
			}
			p.asleep.Store(true)
			// A request that began before it could see that the lookout sleeps
			// is held up for a moment at the most: it is looked at once more.
			if p.idle.Load() > 0 {
				select {
				case <-p.stop:
					return
				case <-p.rouse:
				}
			}
			p.asleep.Store(false)
		}
	}
}
