package robust

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"mapfs/integration/harness"
)

// listedEntries is how many entries TestLeakListings lists, all in all; with MAPFS_FUZZ a
// million.
func listedEntries() int {
	if os.Getenv("MAPFS_FUZZ") != "" {
		return 1_000_000
	}
	return 30_000
}

// TestLeakListings: a listing looks up each entry it shows, while others rename and remove
// them. When the kernel has forgotten them the mount knows none of them any more.
func TestLeakListings(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, top string) {
		m := harness.Mount(t, harness.SubDir(t, top, "data"))
		const files = 1000
		harness.InDir(t, m.Dir, fmt.Sprintf("mkdir a b; for i in $(seq %d); do echo $i >a/f$i; done", files))
		stop := make(chan struct{})
		var changes sync.WaitGroup
		changes.Go(func() {
			for i := 1; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				k := i%files + 1
				_, _ = harness.RunErr("sh", "-c", fmt.Sprintf("cd %s && mv a/f%d b/g 2>/dev/null; mv b/g a/f%d; rm -f a/x; echo >a/x", m.Dir, k, k))
			}
		})
		for listed := 0; listed < listedEntries(); listed += 10 * files {
			out := harness.InDir(t, m.Dir, "for i in 1 2 3 4 5 6 7 8 9 10; do ls -l a b | grep -c ' f'; done")
			for line := range strings.Lines(out) {
				if n := strings.TrimSpace(line); n != fmt.Sprint(files) && n != fmt.Sprint(files-1) {
					t.Fatalf("%s of %d entries were listed", n, files)
				}
			}
		}
		close(stop)
		changes.Wait()
		harness.InDir(t, m.Dir, "rm -r a b")
		var nodes string
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0)
			if nodes = strings.TrimSpace(harness.InDir(t, m.Dir, "sed -n 's/^nodes //p' .mapfs/status")); nodes == "1" {
				return
			}
		}
		t.Errorf("%s nodes are known of an empty directory", nodes)
	})
}
