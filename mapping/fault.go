package mapping

import (
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"unsafe"
)

// The guarded functions touch mapped memory and report false when a touch
// faults. After a fault nothing can be said of how much was copied: memmove may
// run from either end, so the caller repeats the whole by pread or pwrite.
//
// debug.SetPanicOnFault turns SIGBUS and SIGSEGV at an address that is not nil
// into a panic of this goroutine. Only a fault inside the given memory is
// caught; any other is a bug and goes on.

// faultIn recovers from a fault inside mem and sets *ok to false. It must be
// deferred; old is what SetPanicOnFault said before.
func faultIn(mem []byte, old bool, ok *bool) {
	debug.SetPanicOnFault(old)
	e := recover()
	if e == nil {
		return
	}
	fault, isFault := e.(interface{ Addr() uintptr })
	if !isFault || len(mem) == 0 {
		panic(e)
	}
	base := uintptr(unsafe.Pointer(unsafe.SliceData(mem)))
	// The hardware may report any byte of the access, so allow a word around.
	if addr := fault.Addr(); addr < base&^63 || addr >= base+uintptr(len(mem))+64 {
		panic(e)
	}
	*ok = false
}

// load copies mapped memory into dst; both have the same length.
func load(dst, mapped []byte) (ok bool) {
	ok = true
	defer faultIn(mapped, debug.SetPanicOnFault(true), &ok)
	copy(dst, mapped)
	return ok
}

// store copies src into mapped memory; both have the same length.
func store(mapped, src []byte) (ok bool) {
	ok = true
	defer faultIn(mapped, debug.SetPanicOnFault(true), &ok)
	copy(mapped, src)
	return ok
}

// touch loads one byte of every page of mapped memory, so that a page that has
// vanished is found before a system call stumbles over it.
func touch(mapped []byte) (ok bool) {
	ok = true
	defer faultIn(mapped, debug.SetPanicOnFault(true), &ok)
	var sum byte
	for i := 0; i < len(mapped); i += int(PageSize) {
		sum |= mapped[i]
	}
	if len(mapped) > 0 {
		sum |= mapped[len(mapped)-1]
	}
	runtime.KeepAlive(sum) // a load without a use would be optimized away
	return ok
}

// zero clears mapped memory that is not zero already. It looks before it
// stores: a hole stays a hole.
func zero(mapped []byte) (ok bool) {
	ok = true
	defer faultIn(mapped, debug.SetPanicOnFault(true), &ok)
	for i := range mapped {
		if mapped[i] != 0 {
			clear(mapped[i:])
			break
		}
	}
	return ok
}

// redirty makes the kernel see the first page of mapped memory as modified
// without changing a byte of it, also while others store to it: an atomic
// addition of zero is a store to the hardware. mapped must begin at a page
// boundary.
func redirty(mapped []byte) (ok bool) {
	ok = true
	defer faultIn(mapped, debug.SetPanicOnFault(true), &ok)
	atomic.AddUint32((*uint32)(unsafe.Pointer(unsafe.SliceData(mapped))), 0)
	return ok
}
