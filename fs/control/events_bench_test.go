package control

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/fs"
	"mapfs/fs/mountpoint"
	"mapfs/internal/need"
	"mapfs/mapping"
)

// sink is an outlet for reads that costs next to nothing: /dev/null takes the
// bytes without a copy.
type sink struct {
	fd     int
	header [16]byte
}

func (n *sink) Begin(int) (int, []byte) { return n.fd, n.header[:] }

// benchEngine returns what loads the next 4 KiB of a warm file of 16 MiB, the
// engine's part of a read(2), with the given observer or none.
func benchEngine(b *testing.B, observer mapping.Observer) (read func()) {
	b.Helper()
	const size = 16 << 20
	path := filepath.Join(b.TempDir(), "f")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		b.Fatal(err)
	}
	table := mapping.NewTable(mapping.Config{Observer: observer})
	b.Cleanup(table.Close)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		b.Fatal(err)
	}
	f, err := table.Open(fd, &st, true, true)
	if err != nil {
		b.Fatal(err)
	}
	f.SetName("some/file")
	null, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Release(false); unix.Close(null) })
	out := &sink{fd: null}
	i := int64(0)
	return func() {
		i = (i + 7) % (size >> 12)
		if _, err := f.ReadTo(out, i<<12, 4<<10, false); err != nil {
			b.Fatal(err)
		}
	}
}

// benchMountedRead returns how long a client's read(2) of 4 KiB takes through a
// mount, from the engine and not from the kernel's cache. It is the shortest time
// of several tries.
func benchMountedRead(b *testing.B) time.Duration {
	b.Helper()
	need.FUSE(b)
	dir := b.TempDir()
	opts := fs.Options{Backing: filepath.Join(dir, "backing"), Mountpoint: filepath.Join(dir, "mnt"), DefaultPermissions: true}
	for _, d := range []string{opts.Backing, opts.Mountpoint} {
		if err := os.Mkdir(d, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	const reads = 4096
	if err := os.WriteFile(filepath.Join(opts.Backing, "f"), make([]byte, reads<<12), 0o600); err != nil {
		b.Fatal(err)
	}
	s, err := Mount(Options{Options: opts})
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	defer func() {
		if err := mountpoint.Unmount(opts.Mountpoint, false); err != nil {
			b.Error(err)
			_ = mountpoint.Unmount(opts.Mountpoint, true)
		}
		<-served
	}()
	best := time.Hour
	for range 6 {
		start := time.Now()
		cmd := exec.Command("timeout", "60", "dd", "if="+opts.Mountpoint+"/f", "of=/dev/null", "bs=4k", "iflag=direct", "status=none")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("dd: %v %s", err, out)
		}
		best = min(best, time.Since(start))
	}
	return best / reads
}

// BenchmarkEventPerRead is what the events cost a read of 4 KiB while nobody reads
// them: the engine's read with the event log behind it less the same with
// nothing, in turns, so that both have the machine at its best. The metrics are
//
//	silent-ns    the engine's read without an observer
//	event-ns     what the event adds
//	read-ns      a client's read(2) through a mount, events and all
//	event-%      event-ns of read-ns: what a client could notice
func BenchmarkEventPerRead(b *testing.B) {
	silent, observed := benchEngine(b, nil), benchEngine(b, newEventLog())
	const turn = 2000
	best := map[bool]time.Duration{false: time.Hour, true: time.Hour}
	measure := func(watched bool, read func()) {
		start := time.Now()
		for range turn {
			read()
		}
		best[watched] = min(best[watched], time.Since(start))
	}
	for range 50 { // always: the shortest of few says little
		measure(false, silent)
		measure(true, observed)
	}
	for b.Loop() {
		observed()
	}
	event := float64(best[true]-best[false]) / turn
	whole := benchMountedRead(b)
	b.ReportMetric(float64(best[false])/turn, "silent-ns")
	b.ReportMetric(event, "event-ns")
	b.ReportMetric(float64(whole), "read-ns")
	b.ReportMetric(100*event/float64(whole), "event-%")
}

// BenchmarkObserve is the cost of one event alone, with nobody reading.
func BenchmarkObserve(b *testing.B) {
	l := newEventLog()
	e := mapping.Event{Kind: mapping.EventRead, Name: "some/file", Off: 4096, Length: 4096}
	b.ReportAllocs()
	for b.Loop() {
		l.Observe(e)
	}
}
