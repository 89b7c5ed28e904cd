package fs

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
)

// TestLimitsAddUp: what clients can take together, and the work on requests, never
// needs more descriptors than there are.
func TestLimitsAddUp(t *testing.T) {
	for _, descriptors := range []int{256, 1024, 4096, 20000, 1 << 20} {
		l := limitsOf(descriptors, 1<<40)
		sum := int(l.handles) + l.dirs + l.removed + l.workers*descriptorsPerRequest + ownDescriptors(descriptors)
		if sum > descriptors {
			t.Errorf("%d descriptors: up to %d can be open: %+v", descriptors, sum, l)
		}
		if l.handles < int64(descriptors)/4 || l.idle < 4 || l.workers < 8 {
			t.Errorf("%d descriptors: %+v leaves too little", descriptors, l)
		}
	}
}

// TestAdmission: a user who takes all he can leaves handles to others, and gets ENFILE
// himself.
func TestAdmission(t *testing.T) {
	s := unmounted(t)
	s.limits = limitsOf(256, 1<<40)
	s.admission = newAdmission(s.limits, true)
	taken := int64(0)
	for {
		if err := s.admit(1000); err != nil {
			if wire.ErrnoOf(err) != syscall.ENFILE {
				t.Errorf("refused with %v, want ENFILE", err)
			}
			break
		}
		taken++
	}
	if want := s.limits.handles * 4 / 5; taken < want-1 || taken > want+1 {
		t.Errorf("one user has %d of %d handles, want about %d", taken, s.limits.handles, want)
	}
	if err := s.admit(2000); err != nil {
		t.Errorf("another user: %v", err)
	}
	for range taken {
		s.dismiss(1000)
	}
	if err := s.admit(1000); err != nil {
		t.Errorf("after all was closed: %v", err)
	}
}

// TestAdmissionTakesIdleFiles: handles come before files that nobody has open.
func TestAdmissionTakesIdleFiles(t *testing.T) {
	s := unmounted(t)
	s.limits = limitsOf(256, 1<<40)
	s.admission = newAdmission(s.limits, true)
	const files = 10
	for i := range files {
		name := fmt.Sprint(i)
		if err := os.WriteFile(s.backing(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := s.acquire(lookTest(t, s, name), accessRead)
		if err != nil {
			t.Fatal(err)
		}
		f.Release(true)
	}
	if got := s.files.Idle(); got != files {
		t.Fatalf("%d files are idle, want %d", got, files)
	}
	for s.admission.handles.Taken()+s.files.Idle() < s.limits.handles {
		if err := s.admit(uint32(s.admission.handles.Taken())); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.admit(9999); err != nil {
		t.Fatal(err)
	}
	if got := s.files.Idle(); got != files-1 {
		t.Errorf("%d files are idle after one handle too many, want %d", got, files-1)
	}
}

// holder is a subtree that holds descriptors.
type holder struct {
	Subtree
	descriptors int64
}

func (h *holder) Descriptors() int64 { return h.descriptors }

// TestAdmissionOfDescriptors: what the subtree holds and handles come out of one limit.
func TestAdmissionOfDescriptors(t *testing.T) {
	s := unmounted(t)
	s.limits.handles = 3
	s.admission = newAdmission(s.limits, false)
	held := &holder{}
	s.subtree = held
	t.Cleanup(func() { s.subtree = nil })
	for range 2 {
		if err := s.AdmitDescriptor(); err != nil {
			t.Fatal(err)
		}
		held.descriptors++
	}
	if err := s.admit(0); err != nil {
		t.Errorf("the third: %v", err)
	}
	if err := s.admit(0); wire.ErrnoOf(err) != syscall.ENFILE {
		t.Errorf("the fourth: %v, want ENFILE", err)
	}
	if err := s.AdmitDescriptor(); wire.ErrnoOf(err) != syscall.ENFILE {
		t.Errorf("a third descriptor: %v, want ENFILE", err)
	}
}

// TestChanged: after a change that the kernel has not made itself its cached bytes are
// not trusted.
func TestChanged(t *testing.T) {
	s := unmounted(t)
	if err := os.WriteFile(s.backing("f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n := lookTest(t, s, "f")
	n.rareLocked().cached.valid = true
	n.changed()
	if n.rare.cached.valid {
		t.Error("they are")
	}
}

// TestRemovedAreBounded: inodes without a name that clients keep without opening them
// take a bounded number of descriptors, and none while they are open.
func TestRemovedAreBounded(t *testing.T) {
	s := unmounted(t)
	s.nodes.maxRemoved = 3
	remove := func(name string) { removeTest(t, s, name) }
	reachable := func(n *Node) bool {
		var st unix.Stat_t
		return s.stat(n, &st) == nil
	}
	var nodes []*Node
	for i := range 5 {
		name := fmt.Sprint(i)
		if err := os.WriteFile(s.backing(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, lookTest(t, s, name))
		remove(name)
	}
	for i, n := range nodes {
		if got, want := reachable(n), i >= 2; got != want {
			t.Errorf("node %d is reachable: %v, want %v", i, got, want)
		}
		s.forget(n.id, 1)
	}
	if len(s.nodes.removedAt) != 0 || s.nodes.removed.Len() != 0 {
		t.Errorf("%d nodes are kept after all were forgotten", s.nodes.removed.Len())
	}

	if err := os.WriteFile(s.backing("open"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n := lookTest(t, s, "open")
	f, err := s.acquire(n, accessRead)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := f.Stat(&st); err != nil {
		t.Fatal(err)
	}
	n.opened(f, opening{}, &st)
	n.opened(f, opening{}, &st)
	remove("open")
	if n.rare.last >= 0 {
		t.Error("an open file without a name takes two descriptors")
	}
	s.closeFile(n, f, opening{})
	if n.rare.last >= 0 {
		t.Error("so does one with a handle left")
	}
	s.closeFile(n, f, opening{})
	f.Release(true)
	if !reachable(n) {
		t.Error("it cannot be reached after its last handle")
	}
	s.forget(n.id, 1)
}

// removeTest removes a name of the root, as a request does.
func removeTest(t *testing.T, s *Session, name string) {
	t.Helper()
	p, err := s.entry(fuse.RootID, name)
	if err != nil {
		t.Fatal(err)
	}
	defer s.leave(p)
	v, err := s.victim(p, link{fuse.RootID, name})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unlinkat(p.dir.fd, name, 0); err != nil {
		t.Fatal(err)
	}
	s.removed(v)
}

// TestAwaitForgets: a request that finds no space waits until the kernel has forgotten a
// file that was removed just now, and no longer than that, whoever holds others.
func TestAwaitForgets(t *testing.T) {
	s := unmounted(t)
	var nodes []*Node
	for _, name := range []string{"held", "removed"} {
		if err := os.WriteFile(s.backing(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, lookTest(t, s, name))
		removeTest(t, s, name)
	}
	forgotten := make(chan struct{})
	go func() {
		time.Sleep(forgetWait / 5)
		s.forget(nodes[1].id, 1)
		close(forgotten)
	}()
	start := time.Now()
	s.awaitForgets()
	if d := time.Since(start); s.forgotten.Load() == 0 && d < forgetWait {
		t.Errorf("it waits for %v, and no file is forgotten", d)
	}
	<-forgotten
	start = time.Now()
	s.awaitForgets() // in vain: somebody holds the other one
	if d := time.Since(start); d < forgetWait || d > 10*forgetWait {
		t.Errorf("it waits for %v, want %v", d, forgetWait)
	}
	s.forget(nodes[0].id, 1)
	quick := false // a machine can be busy for a while
	for range 5 {
		start = time.Now()
		s.awaitForgets()
		quick = quick || time.Since(start) < forgetWait
	}
	if !quick {
		t.Error("it waits though nothing is removed")
	}
}
