package wire

import (
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"bazil.org/fuse"
)

// workers are the goroutines that answer requests. One of them, always the same,
// is the fastest: whichever thread the kernel wakes next is the one whose caches
// are warm, and no request pays for starting another. So a second one starts only
// when the first is held up:
//
//   - a request that is known to wait (a reader of events, an fsync where the last
//     one took long) calls for a replacement before it does;
//   - the watchdog sees that every worker has been in the same request for a
//     tick;
//   - the watchdog sees that there was no idle worker for many ticks, and there
//     are processors to spare.
//
// A worker that becomes idle while another one is ends. How many there can be is
// bounded, and each user has a share of them; see crowd.go.
type workers struct {
	conn  *Conn
	most  int // workers
	group sync.WaitGroup
	// fatal holds what ended the session early.
	fatal chan error

	mu sync.Mutex
	// ended: no worker is started after one was told that there are no more requests.
	ended bool
	all   []*Worker // that run
	// resting is how many of them wait for an event.
	resting int
	crowd   crowd

	idle    atomic.Int32  // workers that wait for a request, or are about to
	running atomic.Int32  // all workers
	begun   atomic.Uint64 // requests so far

	// ticks counts the watchdog's looks.
	ticks atomic.Uint32
	// The watchdog sleeps while there are no requests.
	asleep atomic.Bool
	rouse  chan struct{}
	stop   chan struct{}
	// background is the watchdog's.
	background background
}

// SpareSlots is how many more slots than processors Go's scheduler should have
// (runtime.GOMAXPROCS) in a process that serves: a worker that waits in read(2)
// keeps its slot only while others are free, and without one has to queue for a
// slot at every request.
const SpareSlots = 2

func (p *workers) init(c *Conn, o *Options) {
	p.conn, p.most = c, o.Workers
	p.crowd.init(o.Waiting)
	p.background.room = o.Workers + o.Waiting + maxBackground
	p.background.find(o.Mountpoint)
	p.fatal = make(chan error, 1)
	p.rouse = make(chan struct{}, 1)
	p.stop = make(chan struct{})
}

// serve runs workers until there are no more requests, and returns what ended
// them early, if anything did.
func (p *workers) serve() error {
	p.start()
	var watchdog sync.WaitGroup
	watchdog.Go(p.watch)
	p.group.Wait()
	close(p.stop)
	watchdog.Wait()
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
	if p.ended || len(p.all)-p.resting >= p.most {
		return
	}
	w := &Worker{conn: p.conn, at: len(p.all)}
	w.dev, w.decoder.setxattrExt = p.conn.dev, p.conn.Protocol.granted&featureSetxattrExt != 0
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
func (p *workers) leave(w *Worker) {
	p.running.Add(-1)
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.all) - 1
	p.all[w.at] = p.all[last]
	p.all[w.at].at = w.at
	p.all[last] = nil
	p.all = p.all[:last]
}

// Worker reads requests and has them answered, one at a time.
type Worker struct {
	reply
	conn    *Conn
	decoder decoder
	// message is what requests are read into; header and length are those of the request
	// under way.
	message []byte
	header  fuse.Header
	length  int

	// user is whose request is under way, or nobody.
	user atomic.Int64
	at   int // in workers.all, guarded by its mu
}

// nobody is no user's number.
const nobody = -1

// Group returns the supplementary group of the client that counts for what its request
// creates, if there is one (FUSE_CREATE_SUPP_GROUP).
func (w *Worker) Group() (group uint32, ok bool) { return w.decoder.group, w.decoder.hasGroup }

// work reads and answers requests until there are no more, or another worker is
// idle.
func (p *workers) work(w *Worker) {
	defer p.leave(w)
	var err error
	if w.message, err = p.conn.buffers.get(); err != nil {
		// The others go on; who is the last must not leave.
		if p.idle.Add(-1); p.running.Load() == 1 {
			p.fail(err)
		}
		return
	}
	defer p.conn.buffers.put(w.message)
	var tick uint32
	for {
		w.length, err = p.conn.read(w.message)
		p.idle.Add(-1)
		switch {
		case err == nil:
			p.begun.Add(1)
			if p.asleep.Load() {
				p.wake()
			}
			p.serveOne(w)
			if now := p.ticks.Load(); now != tick {
				// A goroutine that leaves the processor by system calls only
				// looks to Go's scheduler as if it never did. After 10 ms it
				// would be interrupted and lose its slot, and the runtime's
				// monitor would look around every 20 us from then on.
				tick = now
				runtime.Gosched()
			}
		case err == io.EOF:
			p.end()
			return
		default:
			p.fail(fmt.Errorf("reading a request: %w", err))
			return
		}
		// In one step: a worker on its way out must not look idle to another,
		// or both would leave.
		if !p.idle.CompareAndSwap(0, 1) {
			return
		}
	}
}

// serveOne answers the request that w has read.
func (p *workers) serveOne(w *Worker) {
	request, header, err := w.decoder.decode(w.message[:w.length])
	w.header = header
	if err != nil {
		p.conn.log.Error("a request is not what its number says", "bytes", w.length, "header", header.String())
		if header.ID != 0 {
			w.start(uint64(header.ID))
			_ = w.fail(syscall.EIO)
		}
		return
	}
	var refused syscall.Errno
	if p.running.Load() > crowdSize {
		refused = p.holdBack(w, request)
	}
	if refused != 0 {
		w.start(uint64(header.ID))
		// Whose client is gone needs no answer.
		_ = w.fail(refused)
		w.user.Store(nobody)
	} else {
		w.answer(request)
	}
	scrub(request, w.message[:w.length])
	p.next(header.Uid)
}

// fail ends the session with an error.
func (p *workers) fail(err error) {
	select {
	case p.fatal <- err:
	default:
	}
	p.end()
}

// end notes that there are no more requests, and ends those that wait.
func (p *workers) end() {
	p.mu.Lock()
	p.ended = true
	p.disperseLocked()
	p.mu.Unlock()
	p.conn.waiters.close()
}

// WillWait says that the request that w works on may take long, so that others need not
// wait for it.
func (w *Worker) WillWait() {
	if p := &w.conn.workers; p.idle.Load() == 0 {
		p.start()
	}
}
