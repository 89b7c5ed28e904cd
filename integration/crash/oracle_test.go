package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// chosen are scripts that say something of a rule of the model each.
var chosen = []string{
	"printf new > t; mv t f",
	"printf new > t; sync t; mv t f",
	"printf new > t; printf N | dd of=t conv=notrunc status=none; mv t f; sync .",
	"printf new > t; sync t .; printf N | dd of=t conv=notrunc status=none; mv t f; sync .",
	"printf new > t; sync t; mv t f; sync .",
	"printf new > t; mv t f; sync .",
	"mkdir a; printf new > a/f; sync a/f",
	"mkdir d; sync -d .",
	"mkdir e; sync .; mkdir d; sync -d .",
	"ln f h; sync -d .",
	"mkdir e; sync e .; ln f e/h; sync -d e",
	"printf x > g; sync -d g .",
	"printf new > t; printf o | dd of=f conv=notrunc status=none; sync f",
	"printf NEW | dd of=f conv=notrunc status=none",
	"printf new > f",
	"printf new > f; : > g; sync g",
	"printf a > a; printf b > b; rm f; sync b",
	"mkdir a b; printf x > a/f; sync a/f; mv a/f b/g; sync a",
	"ln f g; rm f; sync .",
	"printf x > g; sync g; mkdir d; sync g",
	"printf x > g; sync g; printf y | dd of=g conv=notrunc status=none; mkdir d; sync -d g",
	"printf x >> f; : > g; sync g",
	"printf x >> f; printf y >> f; : > g; sync g; printf z >> f",
	"printf x > g; : > h; sync h; printf y >> g; : > i; sync i",
	"fallocate -l 5000 g; : > h; sync h; printf y >> g",
	"printf x >> f; sync f; printf y >> f; chmod 600 f; mv f g",
	"truncate -s 9000 f; printf y >> f; : > g; sync g",
	"truncate -s 19950 g; truncate -s 975 g; printf y | dd of=g bs=1 seek=2369 conv=notrunc status=none; : > h; sync h",
}

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

// TestModelExt4 holds the model ext4 to ext4: what ext4 leaves of scripts, by power
// cuts of its device, must be among the states that the model has. MAPFS_FUZZ is how long it
// takes, and MAPFS_FUZZ_SEED where it begins.
func TestModelExt4(t *testing.T) {
	deviceOf(t, "ext4")
	scripts, seed := lessIfSlow(10), uint64(1)
	if text := os.Getenv("MAPFS_FUZZ_SEED"); text != "" {
		var err error
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
		if os.Getenv("MAPFS_FUZZ_SEED") == "" {
			seed = uint64(os.Getpid()) << 20 // who runs it again sees something else
		}
	}
	seen := 0
	holds := func(script string) {
		legal := leftBy(t, "model ext4", script)
		for _, state := range leftBy(t, "ext4", script) {
			seen++
			if !slices.ContainsFunc(legal, func(l string) bool { return isInFlight(state, l) }) {
				t.Fatalf("ext4 leaves %q, and the model has only\n%s\nof\n%s", state, strings.Join(legal, "\n"), script)
			}
		}
	}
	for _, script := range chosen {
		holds(script)
	}
	for i := range scripts {
		if !until.IsZero() && time.Now().After(until) {
			t.Logf("%d scripts, %d states", i, seen)
			break
		}
		script := generateScript(rand.New(rand.NewPCG(seed+uint64(i), 3)))
		t.Logf("seed %d", seed+uint64(i))
		holds(script)
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
		bytes, size := zerosOf(bytes), len(zerosOf(a[i]))
		zeros := bytes != "" && strings.Trim(bytes, ".") == "" && name == other && size == len(zerosOf(b[i]))
		if a[i] != b[i] && !zeros {
			return false
		}
	}
	return true
}

// zerosOf writes zeros as dots again.
func zerosOf(text string) string {
	return countedZeros.ReplaceAllStringFunc(text, func(counted string) string {
		n, err := strconv.Atoi(countedZeros.FindStringSubmatch(counted)[1])
		if err != nil {
			return counted
		}
		return strings.Repeat(".", n)
	})
}

var countedZeros = regexp.MustCompile(`\((\d+)_zeros\)`)
