package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mapfs/fs/crash/image"
	"mapfs/internal/need"
)

// generated are the lines of generated scripts: A and B stand for names, N for a number. A line
// that cannot be done is left out by the shell.
var generated = []string{
	"echo N > A", "echo N > A", "printf N >> A", "mv A B", "mv A B", "rm A", "ln A B", "mkdir d", "rmdir d", "mv A d/B", "mv d/A B",
	"truncate -s N0 A", "printf N | dd of=A conv=notrunc status=none", "printf N | dd of=A bs=1 seek=5000 conv=notrunc status=none",
	"chmod 6N0 A", "sync A", "sync A", "sync -d A", "sync .", "sync d", "cp A B",
}

// generateScript returns a script of a few lines, with a moment after each: a mount by FUSE is
// told of a close(2) just after that has returned.
func generateScript(random *rand.Rand) string {
	names := []string{"f", "g", "h"}
	var lines []string
	for n := range 2 + random.IntN(5) {
		a, b := names[random.IntN(3)], names[random.IntN(3)]
		line := generated[random.IntN(len(generated))]
		lines = append(lines, strings.NewReplacer("A", a, "B", b, "N", fmt.Sprint(n+1)).Replace(line)+" 2>/dev/null || :")
	}
	return strings.Join(lines, "\nsleep 0.01\n")
}

// TestModelExt4 holds the model ext4 to ext4: what ext4 leaves of generated scripts, by power
// cuts of its device, must be among the states that the model has. MAPFS_FUZZ is how long it
// takes, and MAPFS_FUZZ_SEED where it begins.
func TestModelExt4(t *testing.T) {
	ext4, err := image.Of("ext4")
	if err != nil {
		t.Fatal(err)
	}
	if err := ext4.Missing(); err != nil {
		need.Missing(t, "ext4", "%v", err)
	}
	scripts, seed := lessIfSlow(10), uint64(os.Getpid())<<20 // who runs it again sees something else
	if text := os.Getenv("MAPFS_FUZZ_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	until := time.Time{}
	if text := os.Getenv("MAPFS_FUZZ"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		until, scripts = time.Now().Add(d), 1<<30
	}
	seen := 0
	for i := range scripts {
		if !until.IsZero() && time.Now().After(until) {
			t.Logf("%d scripts, %d states", i, seen)
			break
		}
		script := generateScript(rand.New(rand.NewPCG(seed+uint64(i), 3)))
		legal := leftBy(t, "model ext4", script)
		for _, state := range leftBy(t, "ext4", script) {
			seen++
			if !slices.ContainsFunc(legal, func(l string) bool { return isInFlight(state, l) }) {
				t.Fatalf("seed %d: ext4 leaves %q, and the model has only\n%s\nof\n%s", seed+uint64(i), state, strings.Join(legal, "\n"), script)
			}
		}
	}
}

// isInFlight reports whether a state is one of the model's, but for files that have zeros
// of the right number: what ext4 flushes at a rename or a close it does not wait for, and the
// model takes it for written.
func isInFlight(state, legal string) bool {
	a, b := strings.Split(state, " "), strings.Split(legal, " ")
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		name, bytes, _ := strings.Cut(a[i], "=")
		other, _, _ := strings.Cut(b[i], "=")
		zeros := bytes != "" && strings.Trim(bytes, ".") == "" && name == other && len(a[i]) == len(b[i])
		if a[i] != b[i] && !zeros {
			return false
		}
	}
	return true
}
