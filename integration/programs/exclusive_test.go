package programs

import (
	"fmt"
	"testing"
	"time"

	"mapfs/integration/harness"
)

// TestExclusiveAsksNothing: what the kernel knows of a tree it does not ask again, when
// nobody else changes it.
func TestExclusiveAsksNothing(t *testing.T) {
	const files = 200
	requests := func(t *testing.T, options ...string) (again, reads float64) {
		addr := harness.FreeAddr(t)
		dir := harness.SubDir(t, harness.TempDir(t), "data")
		harness.InDir(t, dir, fmt.Sprintf("mkdir a b; for i in $(seq %d); do echo $i >a/$i; echo $i >b/$i; done", files))
		m := harness.MountWith(t, dir, harness.MountConfig{Opts: options, Args: []string{"--metrics-addr", addr}})
		// Each file by its name: whoever lists a directory is told of all that is in it at
		// once. The first look after a file was closed asks for the blocks it takes: the
		// kernel collects writes and does not know.
		walk, read := fmt.Sprintf("seq %d | sed 's:.*:a/& b/&:' | xargs stat -c %%s,%%b | sort | uniq -c", files), "cat a/* b/* | wc -c"
		harness.InDir(t, m.Dir, read)
		first, bytes := harness.InDir(t, m.Dir, walk), harness.InDir(t, m.Dir, read)
		harness.InDir(t, m.Dir, walk)
		time.Sleep(1500 * time.Millisecond) // longer than the kernel keeps what it may not rely on
		before := harness.Metric(t, addr, "mapfs_requests_total")
		if second := harness.InDir(t, m.Dir, walk); second != first {
			t.Errorf("the second walk says %q, the first %q", second, first)
		}
		again = harness.Metric(t, addr, "mapfs_requests_total") - before
		if second := harness.InDir(t, m.Dir, read); second != bytes {
			t.Errorf("read again: %q, first %q", second, bytes)
		}
		// What a client has just written the kernel has, too.
		harness.InDir(t, m.Dir, fmt.Sprintf("mkdir c; for i in $(seq %d); do echo $i >c/$i; done", files))
		before = harness.Metric(t, addr, "mapfs_reads_total")
		harness.InDir(t, m.Dir, "cat c/*; rm -r c")
		reads = harness.Metric(t, addr, "mapfs_reads_total") - before
		// What a client changes is seen at once all the same.
		if got := harness.InDir(t, m.Dir, "rm a/1; echo new >a/new; mv b/1 b/one; ls a b | grep -c '^1$\\|new\\|one'; cat b/one a/new"); got != "2\n1\nnew\n" {
			t.Errorf("after changes: %q", got)
		}
		return again, reads
	}
	// The kernel may drop a page of its cache whenever it likes; some machines
	// make it do so.
	if again, reads := requests(t, "exclusive"); again > 10 || reads > files/2 {
		t.Errorf("a second walk makes %v requests, and there are %v reads of what was just written", again, reads)
	}
	if again, reads := requests(t); again < 2*files || reads < files {
		t.Errorf("%v requests and %v reads without the option: the check shows nothing", again, reads)
	}
}

// TestProgramsExclusive: programs find their files as they left them, and so does
// BACKING when the mount has ended.
func TestProgramsExclusive(t *testing.T) { programsKeep(t, "exclusive") }
