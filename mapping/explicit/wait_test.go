package explicit

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/mapping/guard"
	"mapfs/mapping/paging"
)

// slowPages makes calls that bring pages of one mapping into memory wait, as a slow
// device would. Each call that waits is announced on waiting, and all go on when
// release is closed.
type slowPages struct {
	waiting chan string
	release chan struct{}
}

func (a *arenaTest) slow() *slowPages {
	s := &slowPages{make(chan string, 16), make(chan struct{})}
	wait := func(what string) {
		s.waiting <- what
		<-s.release
	}
	madvise, mlock := a.calls.madvise, a.calls.mlock
	a.calls.madvise = func(mem []byte, advice int) error {
		if advice == unix.MADV_POPULATE_READ || advice == unix.MADV_POPULATE_WRITE {
			wait("populate")
		}
		return madvise(mem, advice)
	}
	a.calls.mlock = func(mem []byte) error {
		wait("lock")
		return mlock(mem)
	}
	return s
}

// soon fails the test if fn does not return in good time.
func soon(t *testing.T, what string, fn func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%s waits for another mapping's pages", what)
	}
}

// changesGoOn makes, protects and removes mappings.
func changesGoOn(t *testing.T, a *arenaTest, names string) {
	t.Helper()
	var m *Mapping
	soon(t, "mmap", func() (err error) {
		m, err = a.mmap(unix.O_RDWR, Request{
			Name: names, Length: uint64(2 * paging.PageSize), Prot: unix.PROT_READ | unix.PROT_WRITE, Flags: unix.MAP_SHARED,
		})
		return err
	})
	soon(t, "mprotect", func() error { return m.Mprotect(0, paging.PageSize, unix.PROT_READ) })
	soon(t, "msync", func() error { return m.Msync(0, paging.PageSize, unix.MS_SYNC) })
	soon(t, "munmap", func() error { return m.Unmap(0, 2*paging.PageSize) })
}

// TestFetchingHoldsUpNobody: an mmap that waits for pages, and what waits for that,
// leaves other mappings alone.
func TestFetchingHoldsUpNobody(t *testing.T) {
	for _, flag := range []int{unix.MAP_POPULATE, unix.MAP_LOCKED} {
		for _, sharing := range []int{unix.MAP_SHARED, unix.MAP_PRIVATE} {
			t.Run(fmt.Sprintf("%#x", flag|sharing), func(t *testing.T) {
				a := newArenaTest(t, t.TempDir(), 4)
				pages := a.slow()
				made := make(chan error, 1)
				go func() {
					_, err := a.mmap(unix.O_RDWR, Request{
						Name: "slow", Length: uint64(4 * paging.PageSize), Prot: unix.PROT_READ | unix.PROT_WRITE, Flags: flag | sharing,
					})
					made <- err
				}()
				<-pages.waiting
				changesGoOn(t, a, "while it waits")
				slow := a.Find("slow")
				if slow == nil {
					t.Fatal("a mapping that waits for its pages is not in the list")
				}
				// Somebody wants to take it away, and waits for it: others need not.
				gone := make(chan error, 1)
				go func() { gone <- slow.Unmap(0, slow.Length()) }()
				time.Sleep(10 * time.Millisecond)
				changesGoOn(t, a, "while a munmap waits")
				select {
				case err := <-gone:
					t.Errorf("unmapped while its pages are fetched: %v", err)
				default:
				}
				close(pages.release)
				for _, c := range []chan error{made, gone} {
					if err := <-c; err != nil {
						t.Error(err)
					}
				}
				if a.Find("slow") != nil {
					t.Error("the mapping is still there after its munmap")
				}
				a.agree()
			})
		}
	}
}

// TestFetchedAsAsked: populate and locked do what mmap(2) says.
func TestFetchedAsAsked(t *testing.T) {
	a := newArenaTest(t, t.TempDir(), 4)
	private, err := a.mmap(unix.O_RDWR, Request{
		Name: "private", Length: uint64(4 * paging.PageSize), Prot: unix.PROT_READ | unix.PROT_WRITE,
		Flags: unix.MAP_PRIVATE | unix.MAP_POPULATE,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := private.CopiedPages(); got != 4 {
		t.Errorf("populate of a private mapping that can be written copied %d pages, want 4", got)
	}
	locked, err := a.mmap(unix.O_RDWR, Request{
		Name: "locked", Length: uint64(4 * paging.PageSize), Prot: unix.PROT_READ, Flags: unix.MAP_SHARED | unix.MAP_LOCKED,
	})
	if err != nil {
		t.Fatal(err)
	}
	if segments := locked.Segments(); len(segments) != 1 || !segments[0].Locked {
		t.Errorf("segments of a locked mapping: %+v", segments)
	}
	if !guard.Resident(a.memory(locked.span)) {
		t.Error("a locked mapping is not in memory")
	}
	a.agree()
	if err := locked.Munlock(0, locked.Length()); err != nil {
		t.Error(err)
	}
	a.agree()
}
