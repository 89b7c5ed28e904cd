// Package guard touches mapped memory so that a fault, SIGBUS or SIGSEGV, is a result and
// not the end of the process.
package guard

import (
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"unsafe"

	"mapfs/mapping/paging"
)

// The guarded functions touch mapped memory and return the address of the fault,
// or 0 if there was none. After a fault nothing can be said of how much was
// copied: memmove may run from either end, so the caller repeats the whole by
// pread or pwrite.
//
// debug.SetPanicOnFault turns SIGBUS and SIGSEGV at an address that is not nil
// into a panic of this goroutine. Only a fault inside the given memory is
// caught; any other is a bug and goes on.

// faultIn recovers from a fault inside mem and stores its address. It must be
// deferred; old is what SetPanicOnFault said before.
func faultIn(mem []byte, old bool, at *uintptr) {
	debug.SetPanicOnFault(old)
	e := recover()
	if e == nil {
		return
	}
	fault, isFault := e.(interface{ Addr() uintptr })
	if !isFault || len(mem) == 0 {
		panic(e)
	}
	base := AddressOf(mem)
	// The hardware may report any byte of the access, so allow a word around.
	addr := fault.Addr()
	if addr < base&^63 || addr >= base+uintptr(len(mem))+64 {
		panic(e)
	}
	*at = addr
}

// AddressOf returns where memory begins.
func AddressOf(mem []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mem))) }

// Load copies mapped memory into dst; both have the same length.
func Load(dst, mapped []byte) (fault uintptr) {
	defer faultIn(mapped, debug.SetPanicOnFault(true), &fault)
	copy(dst, mapped)
	return 0
}

// Store copies src into mapped memory; both have the same length.
func Store(mapped, src []byte) (fault uintptr) {
	defer faultIn(mapped, debug.SetPanicOnFault(true), &fault)
	copy(mapped, src)
	return 0
}

// Touch loads one byte of every page of mapped memory, so that a page that has
// vanished is found before a system call stumbles over it.
func Touch(mapped []byte) (fault uintptr) {
	defer faultIn(mapped, debug.SetPanicOnFault(true), &fault)
	var sum byte
	for i := 0; i < len(mapped); i += int(paging.PageSize) {
		sum |= mapped[i]
	}
	if len(mapped) > 0 {
		sum |= mapped[len(mapped)-1]
	}
	runtime.KeepAlive(sum) // a load without a use would be optimized away
	return 0
}

// Zero clears mapped memory that is not zero already and returns how many bytes
// it cleared. It looks before it stores: a hole stays a hole.
func Zero(mapped []byte) (cleared int, fault uintptr) {
	defer faultIn(mapped, debug.SetPanicOnFault(true), &fault)
	for i := range mapped {
		if mapped[i] != 0 {
			clear(mapped[i:])
			return len(mapped) - i, 0
		}
	}
	return 0, 0
}

// ZeroAll clears mapped memory, and stores to all of it.
func ZeroAll(mapped []byte) (fault uintptr) {
	defer faultIn(mapped, debug.SetPanicOnFault(true), &fault)
	clear(mapped)
	return 0
}

// Redirty makes the kernel see the first page of mapped memory as modified
// without changing a byte of it, also while others store to it: an atomic
// addition of zero is a store to the hardware. mapped must begin at a page
// boundary.
func Redirty(mapped []byte) (fault uintptr) {
	defer faultIn(mapped, debug.SetPanicOnFault(true), &fault)
	atomic.AddUint32((*uint32)(unsafe.Pointer(unsafe.SliceData(mapped))), 0)
	return 0
}
