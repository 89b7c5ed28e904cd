package wire

import (
	"syscall"
	"testing"
	"time"

	"bazil.org/fuse"
)

// waiting returns a connection to no kernel whose requests can wait.
func waiting(most int) *Conn {
	c := &Conn{}
	c.workers.conn = c
	c.workers.crowd.init(most)
	c.workers.idle.Store(1) // no worker has to stand in for one that waits
	return c
}

// wait has a request wait for done.
func (c *Conn) wait(id fuse.RequestID, done <-chan struct{}) <-chan error {
	w := &Worker{conn: c}
	w.header = fuse.Header{ID: id}
	result := make(chan error, 1)
	go func() { result <- w.Wait(done) }()
	return result
}

func ends(t *testing.T, result <-chan error, want error) {
	t.Helper()
	select {
	case err := <-result:
		if err != want {
			t.Errorf("the wait ends with %v, want %v", err, want)
		}
	case <-time.After(10 * time.Second):
		t.Error("the request still waits")
	}
}

// TestWait: a request waits for its event, an interrupt, or the end of the connection.
func TestWait(t *testing.T) {
	c := waiting(100)
	done := make(chan struct{})
	a, b := c.wait(1, done), c.wait(2, done)
	select {
	case err := <-a:
		t.Fatalf("it does not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	c.waiters.interrupt(1)
	ends(t, a, syscall.EINTR)
	close(done)
	ends(t, b, nil)

	never := make(chan struct{})
	d := c.wait(3, never)
	time.Sleep(50 * time.Millisecond)
	c.waiters.close()
	ends(t, d, syscall.EINTR)
	ends(t, c.wait(4, never), syscall.EINTR)
}

// TestWaitEarly: an interrupt can come before the wait begins. Of those that nobody waits
// for, a bounded number is remembered.
func TestWaitEarly(t *testing.T) {
	c := waiting(100)
	never := make(chan struct{})
	c.waiters.interrupt(3)
	ends(t, c.wait(3, never), syscall.EINTR)
	for id := range fuse.RequestID(3 * maxEarly) {
		c.waiters.interrupt(id)
	}
	if n := len(c.waiters.early); n > maxEarly {
		t.Errorf("%d early interrupts are remembered", n)
	}
	d := c.wait(4*maxEarly, never)
	c.waiters.close()
	ends(t, d, syscall.EINTR)
}

// TestWaitBounded: what one user has waiting is bounded.
func TestWaitBounded(t *testing.T) {
	c := waiting(10)
	never := make(chan struct{})
	var results []<-chan error
	for id := range fuse.RequestID(8) {
		results = append(results, c.wait(id, never))
	}
	for deadline := time.Now().Add(10 * time.Second); c.workers.crowd.waiting.Taken() < 8; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests wait", c.workers.crowd.waiting.Taken())
		}
	}
	ends(t, c.wait(100, never), syscall.ENOMEM)
	c.waiters.close()
	for _, r := range results {
		ends(t, r, syscall.EINTR)
	}
}
