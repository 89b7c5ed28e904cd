package control

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// told waits for one wake-up.
func told(t *testing.T, woken <-chan struct{}, round int) {
	t.Helper()
	select {
	case <-woken:
	case <-time.After(20 * time.Second):
		t.Fatalf("round %d: the poller sleeps on", round)
	}
}

// TestPollWakes has the next event come while a poller looks: before its wake-up
// is armed, between that and its look, or after both. It hears of every one, by
// what it sees or by being woken.
func TestPollWakes(t *testing.T) {
	l := newEventLog()
	h := l.open().(*eventsHandle)
	defer h.Close()
	woken := make(chan struct{}, 1)
	look := func() bool {
		h.pollers.arm(l, nil, func() { woken <- struct{}{} })
		return h.ready()
	}
	for round := range 1000 {
		event := make(chan struct{})
		go func() {
			defer close(event)
			for range rand.IntN(200) {
				runtime.Gosched()
			}
			happen(l, 1)
		}()
		for !look() {
			told(t, woken, round) // perhaps still of the round before: it looks again
		}
		<-event
		for {
			if out, _ := h.tryRead(h.expected, 1<<16); len(out) == 0 {
				break
			}
		}
	}
}

// TestPollEdges: who is told of edges alone asks once, while there is something to
// read, reads on to the end and sleeps. The next event wakes it all the same.
func TestPollEdges(t *testing.T) {
	l := newEventLog()
	h := l.open().(*eventsHandle)
	defer h.Close()
	happen(l, 3)
	woken := make(chan struct{}, 10)
	for round := range 1000 {
		for range 3 { // however often it asks, one wake-up does
			h.pollers.arm(l, nil, func() { woken <- struct{}{} })
		}
		if !h.ready() {
			t.Fatalf("round %d: there is something to read", round)
		}
		for {
			if out, _ := h.tryRead(h.expected, 1<<16); len(out) == 0 {
				break
			}
		}
		happen(l, 1)
		told(t, woken, round)
		happen(l, 1)
		if len(woken) != 0 {
			t.Fatalf("round %d: woken more than once", round)
		}
	}
}

// TestPollEnds: what nobody waits for any more leaves nothing behind.
func TestPollEnds(t *testing.T) {
	l := newEventLog()
	never := func() { t.Error("woken without an event") }
	before := runtime.NumGoroutine()
	for range 10 {
		h := l.open().(*eventsHandle)
		for range 100 {
			h.pollers.arm(l, nil, never)
		}
		if n := runtime.NumGoroutine() - before; n > 1 {
			t.Fatalf("%d goroutines wait for one open file", n)
		}
		h.Close()
		if n := runtime.NumGoroutine() - before; n > 0 {
			t.Fatalf("%d goroutines are left", n)
		}
	}
	// The end of the session ends them too.
	h := l.open().(*eventsHandle)
	done := make(chan struct{})
	h.pollers.arm(l, done, never)
	close(done)
	h.pollers.group.Wait()
}
