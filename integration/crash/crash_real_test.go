package crash

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// realScripts are short scripts of whose end ext4 itself says what a power cut leaves. What
// ext4 flushes at a rename or a close it does not wait for: until the device has it, some
// milliseconds later, a commit finds blocks that count as not written (mount option
// dioread_nolock, the default since Linux 5.6), and a cut leaves zeros. The model takes
// what was flushed for written; inFlight is the state that a slow device can leave.
var realScripts = []struct{ script, inFlight string }{
	{"printf new > t; mv t f", ""},
	{"printf new > t; sync t; mv t f", ""},
	{"printf new > t; printf N | dd of=t conv=notrunc status=none; mv t f; sync .", "./f=..."},
	{"printf new > t; sync t .; printf N | dd of=t conv=notrunc status=none; mv t f; sync .", ""},
	{"printf new > t; sync t; mv t f; sync .", ""},
	{"printf new > t; mv t f; sync .", "./f=..."},
	{"mkdir a; printf new > a/f; sync a/f", ""},
	{"mkdir d; sync -d .", ""},
	{"mkdir e; sync .; mkdir d; sync -d .", ""},
	{"ln f h; sync -d .", ""},
	{"mkdir e; sync e .; ln f e/h; sync -d e", ""},
	{"printf x > g; sync -d g .", ""},
	{"printf new > t; printf o | dd of=f conv=notrunc status=none; sync f", ""},
	{"printf NEW | dd of=f conv=notrunc status=none", ""},
	{"printf new > f", ""},
	{"printf new > f; : > g; sync g", "./f=... ./g="},
	{"printf a > a; printf b > b; rm f; sync b", ""},
	{"mkdir a b; printf x > a/f; sync a/f; mv a/f b/g; sync a", ""},
	{"ln f g; rm f; sync .", ""},
	{"printf x > g; sync g; mkdir d; sync g", ""},
	{"printf x > g; sync g; printf y | dd of=g conv=notrunc status=none; mkdir d; sync -d g", ""},
	{"printf x >> f; : > g; sync g", ""},
	{"printf x >> f; printf y >> f; : > g; sync g; printf z >> f", ""},
	{"printf x > g; : > h; sync h; printf y >> g; : > i; sync i", ""},
	{"fallocate -l 5000 g; : > h; sync h; printf y >> g", ""},
	{"printf x >> f; sync f; printf y >> f; chmod 600 f; mv f g", ""},
	{"truncate -s 9000 f; printf y >> f; : > g; sync g", ""},
}

// TestCrashRealExt4 holds the rules of the model ext4 to ext4: its device is a file on a
// mount with a history, so a power cut there loses any of the device's writes that were not
// flushed. What ext4 makes of the rest must be one of the states that the model has for
// the same script.
func TestCrashRealExt4(t *testing.T) {
	need.Root(t)
	need.Tool(t, "mkfs.ext4")
	harness.MountImage(t, "ext4", 8<<20) // or it is said here that there are no loop devices
	const before = "printf old > f; sync f .\n"
	device := harness.Mount(t, harness.TmpfsDir(t), "history", "history_dir="+harness.TempDir(t))
	harness.InDir(t, device.Dir, "truncate -s 8M new; mkfs.ext4 -q -F new; sync new .")
	at := harness.SubDir(t, harness.TempDir(t), "ext4")
	const rounds = 2
	for number, c := range realScripts {
		script := c.script
		t.Run(script, func(t *testing.T) {
			legal := modelStates(t, before, script)
			seen := make(map[string]int)
			for round := range rounds {
				harness.InDir(t, device.Dir, "cp --sparse=always new image; sync image .")
				image := device.Path("image")
				harness.Run(t, "mount", "-o", "loop", image, at)
				ran := runIn(at, before+"sync -f .\n"+script)
				keep := "none"
				if round > 0 {
					keep = fmt.Sprintf("random seed=%d", number*rounds+round)
				}
				answer := ""
				if ran == nil {
					answer = powercut(t, device, "keep="+keep)
				}
				harness.Run(t, "umount", at) // its device answers EIO
				if ran != nil {
					t.Fatal(ran)
				}
				harness.Run(t, "mount", "-o", "loop", image, at)
				left, err := harness.RunErr("sh", "-ec", `cd "$0"`+"\n"+tree, at)
				harness.Run(t, "umount", at)
				if err != nil {
					t.Fatal(err)
				}
				left = strings.Join(strings.Fields(left), " ")
				seen[left]++
				if left == c.inFlight {
					t.Logf("the device did not have yet what was flushed: %q", left)
				} else if how, ok := legal[left]; !ok {
					t.Errorf("ext4 leaves %q, and the model has only %v\n%s", left, legal, answer)
				} else if testing.Verbose() && seen[left] == 1 {
					t.Logf("%q: the model's keep=%s", left, how)
				}
			}
		})
	}
}

// runIn runs a script in a directory.
func runIn(dir, script string) error {
	_, err := harness.RunErr("sh", "-ec", `cd "$0"`+"\n"+script, dir)
	return err
}

// modelStates returns what a power cut at the end of a script can leave by the model ext4,
// with a set of operations that leaves it.
func modelStates(t *testing.T, before, script string) map[string]string {
	backing := harness.TempDir(t)
	m := harness.Mount(t, backing, "history=ext4")
	states := make(map[string]string)
	for set := 0; ; set++ {
		harness.InDir(t, m.Dir, "rm -rf *; echo sync > .mapfs/ctl\n"+before+"echo sync > .mapfs/ctl\n"+script)
		var numbers []string
		for line := range strings.Lines(pending(t, m)) {
			number, _, _ := strings.Cut(line, " ")
			numbers = append(numbers, number)
		}
		if set >= 1<<len(numbers) {
			break
		}
		var keep []string
		for i, number := range numbers {
			if set>>i&1 != 0 {
				keep = append(keep, number)
			}
		}
		arg := strings.Join(keep, ",")
		if arg == "" {
			arg = "none"
		}
		if _, err := command(m.Dir, "powercut keep="+arg); err != nil {
			continue // not legal
		}
		left := strings.Join(strings.Fields(harness.InDir(t, m.Dir, tree)), " ")
		if _, known := states[left]; !known {
			states[left] = arg
		}
	}
	m.Unmount()
	if left, err := filepath.Glob(filepath.Join(backing, ".mapfs")); err != nil || len(left) > 0 {
		t.Errorf("the stash is left: %v, %v", left, err)
	}
	return states
}
