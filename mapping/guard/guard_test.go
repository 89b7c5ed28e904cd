package guard

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/mapping/paging"
)

// mapTest maps length bytes of a file of the given size.
func mapTest(t *testing.T, size, length int64, prot int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	mem, err := unix.Mmap(fd, 0, int(length), prot, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	return mem
}

func TestGuardedCopies(t *testing.T) {
	buf := make([]byte, paging.PageSize)
	touches := map[string]func(mem []byte) bool{
		"load":    func(mem []byte) bool { return Load(buf[:len(mem)], mem) == 0 },
		"store":   func(mem []byte) bool { return Store(mem, buf[:len(mem)]) == 0 },
		"touch":   func(mem []byte) bool { return Touch(mem) == 0 },
		"zero":    func(mem []byte) bool { _, fault := Zero(mem); return fault == 0 },
		"redirty": func(mem []byte) bool { return Redirty(mem) == 0 },
	}
	for name, fn := range touches {
		t.Run(name, func(t *testing.T) {
			beyond := mapTest(t, paging.PageSize, 2*paging.PageSize, unix.PROT_READ|unix.PROT_WRITE)
			if !fn(beyond[:paging.PageSize]) {
				t.Error("a page of the file faulted")
			}
			if fn(beyond[paging.PageSize:]) {
				t.Error("a page past the end of the file did not fault (SIGBUS)")
			}
			none := mapTest(t, paging.PageSize, paging.PageSize, unix.PROT_NONE)
			if fn(none) {
				t.Error("a page without access did not fault (SIGSEGV)")
			}
			if debug.SetPanicOnFault(false) {
				t.Error("the goroutine was left with panics on faults")
			}
		})
	}
	t.Run("read-only", func(t *testing.T) {
		mem := mapTest(t, paging.PageSize, paging.PageSize, unix.PROT_READ)
		if Load(buf, mem) != 0 {
			t.Error("load from a readable page faulted")
		}
		if fault := Store(mem, buf); fault < AddressOf(mem) || fault >= AddressOf(mem)+uintptr(paging.PageSize) {
			t.Errorf("store to a read-only page at %#x faulted at %#x", AddressOf(mem), fault)
		}
	})
}

// TestForeignFaultIsNotSwallowed: only faults in the memory at hand are
// expected. Anything else is a bug and must not be hidden.
func TestForeignFaultIsNotSwallowed(t *testing.T) {
	mine := mapTest(t, paging.PageSize, paging.PageSize, unix.PROT_READ)
	other := mapTest(t, 0, paging.PageSize, unix.PROT_READ)
	defer func() {
		if recover() == nil {
			t.Error("a fault outside the guarded memory was swallowed")
		}
		debug.SetPanicOnFault(false)
	}()
	var fault uintptr
	defer faultIn(mine, debug.SetPanicOnFault(true), &fault)
	_ = Load(mine[:0], mine[:0])
	debug.SetPanicOnFault(true)
	buf := make([]byte, 1)
	copy(buf, other)
}
