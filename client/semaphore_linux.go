package client

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// semaphore is a counting semaphore that lies in memory, for all processes that
// share the memory: two words, and futex(2) to sleep on the first. Memory that
// is all zero is a semaphore with the value 0.
//
// No wakeup is lost. A waiter counts itself before the kernel compares the value
// with 0, and a poster raises the value before it looks for waiters; Go's
// atomics are in one order for all, so one of the two sees the other.
type semaphore struct {
	value   *uint32
	waiters *uint32
}

// semaphoreSize is how much memory a semaphore takes, in bytes. It must begin at
// a multiple of 4.
const semaphoreSize = 8

// The operations of futex(2) that work between processes: those without
// FUTEX_PRIVATE_FLAG. From linux/futex.h.
const (
	futexWait = 0
	futexWake = 1
)

// futexNap bounds one sleep in the kernel: after it the context is asked. A
// process that was killed posts nothing any more.
const futexNap = 50 * time.Millisecond

func semaphoreAt(mem []byte) semaphore {
	// The slicing checks the length without a load, which would race with others.
	p := unsafe.Pointer(unsafe.SliceData(mem[:semaphoreSize]))
	return semaphore{value: (*uint32)(p), waiters: (*uint32)(unsafe.Add(p, 4))}
}

// post raises the value by n and wakes as many who wait.
func (s semaphore) post(n uint32) error {
	atomic.AddUint32(s.value, n)
	if atomic.LoadUint32(s.waiters) == 0 {
		return nil
	}
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(s.value)), futexWake, uintptr(n), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("futex wake: %w", named(errno))
	}
	return nil
}

// wait takes 1 from the value, as soon as there is one.
func (s semaphore) wait(ctx context.Context) error {
	for {
		for v := atomic.LoadUint32(s.value); v > 0; v = atomic.LoadUint32(s.value) {
			if atomic.CompareAndSwapUint32(s.value, v, v-1) {
				return nil
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.sleep(); err != nil {
			return err
		}
	}
}

// sleep returns when the value may be more than 0, or after futexNap.
func (s semaphore) sleep() error {
	atomic.AddUint32(s.waiters, 1)
	defer atomic.AddUint32(s.waiters, ^uint32(0))
	limit := unix.NsecToTimespec(futexNap.Nanoseconds())
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(s.value)), futexWait, 0,
		uintptr(unsafe.Pointer(&limit)), 0, 0)
	switch errno {
	case 0, unix.EAGAIN, unix.EINTR, unix.ETIMEDOUT:
		return nil
	}
	return fmt.Errorf("futex wait: %w", named(errno))
}
