package client

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"mapfs/mapping/paging"
)

// held is what this process and the system keep of a medium.
type held struct{ files, mappings, goroutines, segments, shm int }

func holding(t testing.TB) held {
	t.Helper()
	h := held{files: openFiles(t), goroutines: runtime.NumGoroutine()}
	// The Go runtime has no shared mappings.
	h.mappings = len(mapsOf(t, " rw-s "))
	pid := strconv.Itoa(os.Getpid())
	segments, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(segments)) {
		if columns := strings.Fields(line); len(columns) > 4 && columns[4] == pid { // cpid
			h.segments++
		}
	}
	shm, err := filepath.Glob("/dev/shm/mapfs-ipc-" + pid + "*")
	if err != nil {
		t.Fatal(err)
	}
	h.shm = len(shm)
	return h
}

// leavesNothing fails the test if, after its end, more is held than now.
func leavesNothing(t *testing.T) {
	t.Helper()
	before := holding(t)
	t.Cleanup(func() {
		// Goroutines end a little after what they waited for, and those of
		// earlier tests may have.
		now := holding(t)
		for i := 0; i < 100 && now.goroutines > before.goroutines; i++ {
			time.Sleep(10 * time.Millisecond)
			now = holding(t)
		}
		now.goroutines = max(before.goroutines, now.goroutines)
		if now != before {
			t.Errorf("left behind: before %+v, now %+v", before, now)
		}
	})
}

// noFiles fails the test if dir is not empty.
func noFiles(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}

// TestIPC moves messages of every kind of size through every medium.
func TestIPC(t *testing.T) {
	for _, via := range MediaNames() {
		t.Run(via, func(t *testing.T) {
			leavesNothing(t)
			dir := t.TempDir()
			for _, size := range []int64{SmallestMessage, 9, 64, paging.PageSize - 1, paging.PageSize + 1, 3 << 20} {
				count := int64(200) // more than a ring has slots
				if size > 1<<20 {
					count = 5
				}
				got, err := RunIPC(t.Context(), via, IPC{Size: size, Count: count, Dir: dir, Peer: testPeer})
				if err != nil {
					t.Fatalf("size %d: %v", size, err)
				}
				if want := 3*count + 1; got.Sent != want || got.Whole != want || got.Torn != 0 || got.Lost != 0 {
					t.Errorf("size %d: got %+v, want %d messages, all whole", size, got, want)
				}
				if got.Via != via || got.RoundTrip <= 0 || got.BytesPerSecond <= 0 {
					t.Errorf("size %d: got %+v", size, got)
				}
			}
			noFiles(t, dir)
		})
	}
}

// TestIPCUnsynchronised checks that it ends, that the numbers fit, and that
// the kernel's media lose nothing.
func TestIPCUnsynchronised(t *testing.T) {
	leavesNothing(t)
	for _, via := range MediaNames() {
		const count = 2000
		got, err := RunIPC(t.Context(), via, IPC{
			Size: 4096, Count: count, Dir: t.TempDir(), Unsynchronised: true, Peer: testPeer,
		})
		if err != nil {
			t.Errorf("%s: %v", via, err)
			continue
		}
		if got.Sent != count || got.Whole+got.Lost != count {
			t.Errorf("%s: got %+v", via, got)
		}
		switch got.Keeper {
		case byKernel:
			if got.Whole != count || got.Torn != 0 {
				t.Errorf("%s: got %+v, want all messages whole", via, got)
			}
		case "nothing":
			// A reader that saw every single message would be a wonder.
			if got.Lost == 0 {
				t.Errorf("%s: got %+v, nothing is lost", via, got)
			}
		default:
			t.Errorf("%s: kept apart by %s", via, got.Keeper)
		}
	}
}

// TestIPCCancelled interrupts each medium in the middle.
func TestIPCCancelled(t *testing.T) {
	leavesNothing(t)
	for _, via := range MediaNames() {
		dir := t.TempDir()
		cause := errors.New("interrupted")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(100*time.Millisecond, func() { cancel(cause) })
		_, err := RunIPC(ctx, via, IPC{Size: 4096, Count: 1e6, Dir: dir, Peer: testPeer})
		if !errors.Is(err, cause) {
			t.Errorf("%s: got %v, want %v", via, err, cause)
		}
		noFiles(t, dir)
	}
}

// TestIPCPeerKilled ends the other process in the middle.
func TestIPCPeerKilled(t *testing.T) {
	leavesNothing(t)
	for _, via := range MediaNames() {
		dir := t.TempDir()
		_, err := RunIPC(t.Context(), via, IPC{Size: 4096, Count: 1e6, Dir: dir, Peer: func(argument string) *exec.Cmd {
			return otherProcess("dying-peer", argument)
		}})
		if want := via + ": the other process ended: signal: killed"; err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		noFiles(t, dir)
	}
}

// TestIPCCannot has what fails before a message moves.
func TestIPCCannot(t *testing.T) {
	leavesNothing(t)
	dir := t.TempDir()
	with := func(peer func(string) *exec.Cmd) IPC { return IPC{Size: 64, Count: 1, Dir: dir, Peer: peer} }
	if _, err := RunIPC(t.Context(), "smoke", with(testPeer)); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("unknown medium: got %v", err)
	}
	nowhere := with(testPeer)
	nowhere.Dir = filepath.Join(dir, "no")
	if _, err := RunIPC(t.Context(), "mapping", nowhere); !errors.Is(err, ErrUnavailable) {
		t.Errorf("no directory: got %v", err)
	}
	for _, via := range MediaNames() {
		_, err := RunIPC(t.Context(), via, with(func(string) *exec.Cmd { return exec.Command(filepath.Join(dir, "no")) }))
		if err == nil || !strings.Contains(err.Error(), "start the other process") {
			t.Errorf("%s: no program: got %v", via, err)
		}
		_, err = RunIPC(t.Context(), via, with(func(string) *exec.Cmd { return exec.Command("sh", "-c", "echo no luck >&2; exit 3") }))
		if want := via + ": no luck"; err == nil || err.Error() != want {
			t.Errorf("%s: the other process fails: got %v, want %s", via, err, want)
		}
	}
	noFiles(t, dir)
}

// TestPeerAlone checks that the other process ends with the first.
func TestPeerAlone(t *testing.T) {
	leavesNothing(t)
	o, err := openSysvShm(peerConfig{Via: "sysv-shm", Size: 64, Count: 10}, "")
	if err != nil {
		t.Fatal(err)
	}
	defer o.discard()
	var said strings.Builder
	argument := `{"Via":"sysv-shm","Size":64,"Count":10,"ID":` + strconv.Itoa(o.config.ID) + `}`
	err = RunPeer(t.Context(), argument, strings.NewReader(""), &said)
	if err == nil || err.Error() != "the first process has ended" || said.String() != "\"ready\"\n" {
		t.Errorf("got %v after %q", err, said.String())
	}
	for _, argument := range []string{"", "{}", `{"Via":"sysv-shm","Size":64,"ID":-1}`} {
		if err := RunPeer(t.Context(), argument, strings.NewReader(""), &said); err == nil {
			t.Errorf("argument %q: got no error", argument)
		}
	}
}

// TestSharedMemoryVanishes cuts the file under the messages.
func TestSharedMemoryVanishes(t *testing.T) {
	leavesNothing(t)
	dir := t.TempDir()
	o, err := openMapping(peerConfig{Via: "mapping", Size: 4096, Count: 10}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer o.discard()
	if err := os.Truncate(o.config.Name, 0); err != nil {
		t.Fatal(err)
	}
	err = o.shared.guard(func() error { return o.pass(t.Context(), newPattern(4096), 1) })
	if err == nil || !strings.Contains(err.Error(), "a fault at byte") {
		t.Errorf("got %v, want a fault", err)
	}
}

func TestGeometry(t *testing.T) {
	for _, size := range []int64{SmallestMessage, 63, 64, 65, 4096, 1 << 20, LargestMessage} {
		g := newGeometry(size)
		s := newSharedMemory(make([]byte, g.total), size)
		end := paging.PageSize
		for way := range int64(2) {
			for i := range g.slots {
				slot := s.slot(way, i)
				if begin := int64(addressOf(slot) - addressOf(s.mem)); begin < end || int64(len(slot)) != size {
					t.Fatalf("size %d: slot %d of way %d begins at %d, the one before ends at %d", size, i, way, begin, end)
				}
				end = int64(addressOf(slot)-addressOf(s.mem)) + size
			}
		}
		if g.slots < 2 || g.slots > mostSlots || end > g.total {
			t.Errorf("size %d: %+v", size, g)
		}
	}
}

// TestPattern checks that no change of a message goes unseen.
func TestPattern(t *testing.T) {
	const size = 100
	p := newPattern(size)
	msg, other := make([]byte, size), make([]byte, size)
	if p.is(msg, 1) {
		t.Error("zeros are message 1")
	}
	for n := uint64(1); n < 3*stripes; n += 7 {
		p.fill(msg, n)
		if !p.is(msg, n) || p.is(msg, n+1) {
			t.Fatalf("message %d is not itself", n)
		}
		for i := range msg {
			msg[i] ^= 1
			if p.is(msg, n) {
				t.Fatalf("message %d: byte %d can change", n, i)
			}
			msg[i] ^= 1
		}
		// The first bytes of one message and the rest of the next.
		p.fill(other, n+1)
		for cut := headSize; cut < size-4; cut++ {
			torn := append(append([]byte{}, other[:cut]...), msg[cut:]...)
			if p.whole(torn) {
				t.Fatalf("messages %d and %d, torn at %d, pass for a whole one", n, n+1, cut)
			}
		}
	}
}
