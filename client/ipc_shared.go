package client

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"mapfs/mapping/paging"
)

// Shared memory is laid out so:
//
//	page 0     the head: for each direction two semaphores, and the flag done
//	then       a ring of slots for messages from the process that made it
//	then       a ring of slots for messages to it
const (
	filledAt  = 0   // semaphore: messages that wait for the reader
	freeAt    = 64  // semaphore: slots that wait for the writer; in a cache line of its own
	headOfWay = 128 // bytes of the head for each direction
	doneAt    = 2 * headOfWay
)

// slotGrain keeps two messages out of one cache line.
const slotGrain = 64

// Slots take ringBytes of each direction's memory, but are not more than
// mostSlots, and at least 2, so that the two processes can work at once.
const (
	ringBytes = 1 << 20
	mostSlots = 64
)

// geometry is what both processes make of the size of a message.
type geometry struct{ size, stride, slots, total int64 }

func newGeometry(size int64) geometry {
	g := geometry{size: size, stride: (size + slotGrain - 1) / slotGrain * slotGrain}
	g.slots = min(max(ringBytes/g.stride, 2), mostSlots)
	// It does not overflow: see largestMessage.
	g.total, _ = paging.PageUp(paging.PageSize + 2*g.slots*g.stride)
	return g
}

// sharedMemory is memory that two processes have mapped.
type sharedMemory struct {
	mem []byte
	geometry
}

// Directions: from the process that made the memory, and to it.
const (
	wayThere = 0
	wayBack  = 1
)

func newSharedMemory(mem []byte, size int64) *sharedMemory {
	return &sharedMemory{mem, newGeometry(size)}
}

func (s *sharedMemory) semaphore(way, at int64) semaphore {
	return semaphoreAt(s.mem[way*headOfWay+at:])
}

func (s *sharedMemory) slot(way, i int64) []byte {
	off := paging.PageSize + (way*s.slots+i%s.slots)*s.stride
	return s.mem[off : off+s.size : off+s.size]
}

// done is set when the writer has written all it will.
func (s *sharedMemory) done() *uint32 {
	return (*uint32)(unsafe.Pointer(unsafe.SliceData(s.mem[doneAt:])))
}

// prepare makes fresh memory, all zero, ready for both rings.
func (s *sharedMemory) prepare() error {
	return s.guard(func() error {
		for way := range int64(2) {
			if err := s.semaphore(way, freeAt).post(uint32(s.slots)); err != nil {
				return err
			}
		}
		return nil
	})
}

// guard runs a function that touches the memory, or none if s is nil, and makes
// a fault of it an error.
func (s *sharedMemory) guard(run func() error) (err error) {
	if s == nil {
		return run()
	}
	if addr := guarded(s.mem, func() { err = run() }); addr != 0 {
		return fmt.Errorf("a fault at byte %d of the shared memory: its file was cut, or no space is left for it", addr-addressOf(s.mem))
	}
	return err
}

// ends makes a link of the two rings. close gives the memory back.
func (s *sharedMemory) ends(out, in int64, close func() error) *link {
	return &link{
		out: &ringWriter{memory: s, way: out}, in: &ringReader{memory: s, way: in},
		shared: s, close: close,
	}
}

// ringWriter and ringReader are the two ends of a ring. Messages are made and
// read in place: shared memory needs no copy.
type ringWriter struct {
	memory *sharedMemory
	way    int64
	sent   int64
}

func (w *ringWriter) reserve(ctx context.Context) ([]byte, error) {
	if err := w.memory.semaphore(w.way, freeAt).wait(ctx); err != nil {
		return nil, err
	}
	return w.memory.slot(w.way, w.sent), nil
}

func (w *ringWriter) send(context.Context) error {
	w.sent++
	return w.memory.semaphore(w.way, filledAt).post(1)
}

type ringReader struct {
	memory   *sharedMemory
	way      int64
	received int64
}

func (r *ringReader) receive(ctx context.Context) ([]byte, error) {
	if err := r.memory.semaphore(r.way, filledAt).wait(ctx); err != nil {
		return nil, err
	}
	return r.memory.slot(r.way, r.received), nil
}

func (r *ringReader) release() error {
	r.received++
	return r.memory.semaphore(r.way, freeAt).post(1)
}

// Without synchronisation there is one slot. The writer stores one message over
// the other, and the reader loads whenever it comes round.

// The writer stores burst messages in a row and then has something else to do
// for a pause. With no pause at all a reader would hardly ever see a whole
// message, and with one after each it could be lucky for long: the two mistakes
// are both to be seen.
const (
	burst = 4
	pause = 10 * time.Microsecond
)

// overwrite stores the messages 1 to count, and then says that it is done.
func (s *sharedMemory) overwrite(ctx context.Context, p pattern, count int64) error {
	slot := s.slot(wayThere, 0)
	for n := range count {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p.fill(slot, uint64(n+1))
		if n%burst == burst-1 {
			// A sleep would take much longer than it is asked to.
			for start := time.Now(); time.Since(start) < pause; {
			}
		}
	}
	// This one word is in order, so that the reader knows when to end.
	atomic.StoreUint32(s.done(), 1)
	return nil
}

// watch loads from the slot until the writer is done, and counts what it sees.
// To see the same again, whole or torn, counts only once.
func (s *sharedMemory) watch(ctx context.Context, p pattern) (tally, error) {
	slot := s.slot(wayThere, 0)
	seen, before := make([]byte, s.size), make([]byte, s.size)
	var t tally
	for {
		if ctx.Err() != nil {
			return t, context.Cause(ctx)
		}
		done := atomic.LoadUint32(s.done()) != 0
		copy(seen, slot)
		switch {
		case bytes.Equal(seen, before): // at first: no message yet
		case p.whole(seen) && p.number(seen) != 0:
			t.Whole++
		default:
			t.Torn++
		}
		if done {
			return t, nil
		}
		seen, before = before, seen
	}
}

// tally counts the messages that arrived.
type tally struct {
	Whole int64 // every byte was right, and the number too
	Torn  int64 // bytes of several messages, or wrong ones
}
