package control

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"mapfs/fs"
	"mapfs/fs/mountpoint"
	"mapfs/internal/need"
)

// mounted serves a fresh backing directory from this process. Whoever uses the
// mount must be another process: this one could wait for itself.
func mounted(t *testing.T, opts fs.Options) (backing, mnt string) {
	t.Helper()
	need.FUSE(t)
	dir := t.TempDir()
	opts.Backing, opts.Mountpoint = filepath.Join(dir, "backing"), filepath.Join(dir, "mnt")
	for _, d := range []string{opts.Backing, opts.Mountpoint} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Mount(Options{Options: opts})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		if err := mountpoint.Unmount(opts.Mountpoint, false); err != nil {
			t.Errorf("unmount: %v", err)
			if err := mountpoint.Unmount(opts.Mountpoint, true); err != nil {
				t.Errorf("lazy unmount: %v", err)
			}
		}
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Serve does not return after the unmount")
		}
	})
	return opts.Backing, opts.Mountpoint
}

// shell runs a command in a directory as a client of a mount and returns what it
// printed. The shell goes to the directory by itself: between fork and exec the
// client still is this process, which could then wait for itself.
func shell(t *testing.T, dir, command string) string {
	t.Helper()
	cmd := exec.Command("timeout", "60", "sh", "-ec", "cd '"+dir+"'; "+command)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// TestRequestsDoNotAllocate: a read, a write, a look at a file and a lookup of its name
// leave nothing for the garbage collector. What there is to see is the start of the client
// and the few requests around its own, spread over all of them.
func TestRequestsDoNotAllocate(t *testing.T) {
	_, mnt := mounted(t, fs.Options{DefaultPermissions: true}) // the kernel keeps nothing
	shell(t, mnt, "mkdir d; dd if=/dev/zero of=d/f bs=1M count=4 status=none; dd if=/dev/zero of=d/f bs=4k conv=notrunc status=none count=1024; cat d/f >/dev/null")
	const requests = 1024
	for name, command := range map[string]string{
		"read":            "dd if=d/f of=/dev/null bs=4k iflag=direct status=none",
		"write":           "dd if=/dev/zero of=d/f bs=4k count=1024 oflag=direct conv=notrunc status=none",
		"lookup and stat": "yes d/f | head -n 1024 | xargs -n 1024 stat -c %s >/dev/null",
		"missing":         "yes d/no | head -n 1024 | xargs -n 1024 stat -c %s >/dev/null 2>&1 || true",
	} {
		shell(t, mnt, command) // pages and pools are warm from here on
		const rounds = 4
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			shell(t, mnt, command)
		}
		runtime.ReadMemStats(&after)
		each := float64(after.Mallocs-before.Mallocs) / (rounds * requests)
		t.Logf("%s: %.2f allocations per request, %.0f bytes", name, each, float64(after.TotalAlloc-before.TotalAlloc)/(rounds*requests))
		if each > 0.5 && !raceEnabled {
			t.Errorf("%s: %.2f allocations per request, want none", name, each)
		}
	}
}

// TestNothingIsLeft: after an unmount the process has the descriptors, the
// goroutines and the mappings that it had before the mount.
func TestNothingIsLeft(t *testing.T) {
	count := func() (descriptors, goroutines, mapped int) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds), runtime.NumGoroutine(), strings.Count(string(maps), "/backing/")
	}
	once := func(t *testing.T) {
		_, mnt := mounted(t, fs.Options{DefaultPermissions: true})
		shell(t, mnt, `mkdir -p a/b; for i in 1 2 3 4 5; do echo $i > a/b/$i; cat a/b/$i a/b/$i > /dev/null; done
			mv a/b/1 a/1; rm a/b/2; ls -lR . > /dev/null; cat .mapfs/status .mapfs/files/a/b/3/pages > /dev/null
			timeout 0.2 cat .mapfs/events > /dev/null || true; sync a/b/3; truncate -s 100000 a/b/4; cat a/b/4 > /dev/null
			echo 'mmap name=one file=a/b/3' > .mapfs/ctl; echo 'mmap name=two file=a/b/4 flags=private' > .mapfs/ctl
			for i in one two; do printf x | dd of=.mapfs/mappings/$i/memory status=none; done; rm a/b/3; rmdir .mapfs/mappings/two`)
	}
	t.Run("warm-up", once)
	descriptors, goroutines, mapped := count()
	t.Run("measured", once)
	deadline := time.Now().Add(10 * time.Second)
	for {
		d, g, m := count()
		if d <= descriptors && g <= goroutines && m <= mapped {
			return
		}
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("descriptors %d to %d, goroutines %d to %d, mappings %d to %d\n%s",
				descriptors, d, goroutines, g, mapped, m, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestManySessions mounts and unmounts at once, with requests of every kind of
// wait under way at the end.
func TestManySessions(t *testing.T) {
	for i := range 25 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			_, mnt := mounted(t, fs.Options{DefaultPermissions: true})
			shell(t, mnt, "echo x > f & sync . & timeout 0.05 cat .mapfs/events > /dev/null || true; wait")
		})
	}
}

// TestParallelClients: however workers come and go, there is one for the next
// request, and the mount does not end by itself.
func TestParallelClients(t *testing.T) {
	_, mnt := mounted(t, fs.Options{DefaultPermissions: true})
	shell(t, mnt, `mkdir d; i=0; while [ $i -lt 300 ]; do echo $i > d/$i; i=$((i+1)); done
		(timeout 6 sh -c 'while :; do cat d/* > /dev/null || exit 3; done' || [ $? = 124 ]) & a=$!
		(timeout 6 sh -c 'while :; do cat d/* > /dev/null || exit 3; done' || [ $? = 124 ]) & b=$!
		(timeout 6 sh -c 'while :; do touch x && rm x || exit 3; done' || [ $? = 124 ]) & c=$!
		(timeout 6 sh -c 'while :; do cp -r d e && rm -r e || exit 3; done' || [ $? = 124 ]) & d=$!
		wait $a; wait $b; wait $c; wait $d`)
}

// TestSlowRequestsDoNotHoldOthersUp: readers of events that wait for ever leave
// workers for everybody else.
func TestSlowRequestsDoNotHoldOthersUp(t *testing.T) {
	_, mnt := mounted(t, fs.Options{DefaultPermissions: true})
	shell(t, mnt, `for i in 1 2 3 4 5 6 7 8; do timeout 2 cat .mapfs/events > /dev/null & done
		sleep 0.2; for i in $(seq 100); do echo $i > f; [ "$(cat f)" = $i ]; done; wait`)
}

// TestMountInsideBacking: a filesystem mounted inside the backing directory
// is part of the mirror, and its inode numbers are not mistaken for others.
func TestMountInsideBacking(t *testing.T) {
	backing, mnt := mounted(t, fs.Options{DefaultPermissions: true})
	shell(t, backing, "mkdir sub; mount -t tmpfs none sub")
	t.Cleanup(func() { shell(t, backing, "umount -l sub") })
	shell(t, mnt, `echo outer > f; echo inner > sub/f; sync sub/f; echo sync > .mapfs/ctl
		[ "$(cat sub/f)" = inner ] && [ "$(cat .mapfs/files/sub/f/backing)" = inner ]`)
	if got := shell(t, mnt, "stat -c %i f sub sub/f | sort -u | wc -l"); strings.TrimSpace(got) != "3" {
		t.Errorf("three files show %s inode numbers", strings.TrimSpace(got))
	}
}
