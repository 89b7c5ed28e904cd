package client

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sharedPage returns a page of a file that other processes can map.
func sharedPage(t testing.TB) (mem []byte, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "page")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	mem, err = unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), protRW, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return mem, path
}

// TestSemaphoreGoroutines counts with several goroutines, in the Go heap too,
// where the race detector can see what the semaphore holds together.
func TestSemaphoreGoroutines(t *testing.T) {
	const goroutines, each = 4, 5000
	mapped, _ := sharedPage(t)
	for name, mem := range map[string][]byte{"mapped": mapped, "heap": make([]byte, 4096)} {
		if err := semaphoreAt(mem).post(1); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range goroutines {
			all.Go(func() {
				if err := countUp(mem, each); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if got := binary.NativeEndian.Uint64(mem[64:]); got != goroutines*each {
			t.Errorf("%s: counted %d, want %d", name, got, goroutines*each)
		}
		s := semaphoreAt(mem)
		if *s.value != 1 || *s.waiters != 0 {
			t.Errorf("%s: at the end the value is %d and %d wait, want 1 and 0", name, *s.value, *s.waiters)
		}
	}
}

// TestSemaphoreProcesses counts with two processes.
func TestSemaphoreProcesses(t *testing.T) {
	const processes, each = 2, 20000
	mem, path := sharedPage(t)
	if err := semaphoreAt(mem).post(1); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range processes {
		all.Go(func() {
			cmd := otherProcess("count", path, strconv.Itoa(each))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	all.Wait()
	if got := binary.NativeEndian.Uint64(mem[64:]); got != processes*each {
		t.Errorf("counted %d, want %d", got, processes*each)
	}
}

// TestSemaphoreWakes plays ping-pong: a lost wakeup would cost a whole nap, and
// many of them the test's time.
func TestSemaphoreWakes(t *testing.T) {
	const rounds = 10000
	mem, _ := sharedPage(t)
	ping, pong := semaphoreAt(mem), semaphoreAt(mem[64:])
	start := time.Now()
	done := make(chan error, 1)
	go func() {
		for range rounds {
			if err := ping.wait(context.Background()); err != nil {
				done <- err
				return
			}
			if err := pong.post(1); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range rounds {
		if err := ping.post(1); err != nil {
			t.Fatal(err)
		}
		if err := pong.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > rounds*futexNap/10 {
		t.Errorf("%d rounds took %v: wakeups are lost", rounds, took)
	}
}

// TestSemaphorePostMany checks that one post can let several go.
func TestSemaphorePostMany(t *testing.T) {
	mem, _ := sharedPage(t)
	s := semaphoreAt(mem)
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if err := s.wait(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(10 * time.Millisecond) // most of them sleep in the kernel by now
	if err := s.post(5); err != nil {
		t.Error(err)
	}
	all.Wait()
	if *s.value != 0 {
		t.Errorf("the value is %d, want 0", *s.value)
	}
}

func TestSemaphoreGivesUp(t *testing.T) {
	mem, _ := sharedPage(t)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
	start := time.Now()
	if err := semaphoreAt(mem).wait(ctx); err != cause {
		t.Errorf("got %v, want %v", err, cause)
	}
	if took := time.Since(start); took > 10*futexNap {
		t.Errorf("gave up after %v", took)
	}
}
