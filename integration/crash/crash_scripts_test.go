package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mapfs/integration/harness"
)

// powercut gives the command with its arguments and returns the answer.
func powercut(t *testing.T, m *harness.Mounted, args string) string {
	t.Helper()
	return harness.Run(t, harness.Binary, "ctl", m.Dir, strings.TrimSpace("powercut "+args))
}

// pending returns the lines of the mount's pending, without the processes.
func pending(t *testing.T, m *harness.Mounted) string {
	t.Helper()
	text := harness.Run(t, harness.Binary, "pending", m.Dir)
	return regexp.MustCompile(` pid=\d+`).ReplaceAllString(text, "")
}

// tree is a script that prints every file with its first bytes, and every other entry.
const tree = `find . -mindepth 1 -path ./.mapfs -prune -o -mindepth 1 -not -name lost+found -print | sort | while read -r f; do
	if [ -f "$f" ]; then echo "$f=$(head -c 20 "$f" | tr '\0' '.')"; else echo "$f"; fi; done`

// TestCrashScripts runs short scripts, looks at what is pending, and cuts the power.
func TestCrashScripts(t *testing.T) {
	const before = "printf old > f; sync f .; "
	scripts := []struct {
		name, model, script string
		pending             string // without numbers
		left                string // by powercut
	}{
		{"save by rename without a sync", "posix", "printf new > t; mv t f",
			"create t needs fsync .; write t 0 3 needs fsync t; rename t f needs fsync .", "./f=old"},
		{"save by rename without a sync", "ext4", "printf new > t; mv t f",
			"create t needs fsync .; write t 0 3 needs fsync t; rename t f needs fsync .", "./f=old"},
		{"the file is synced, the name is not", "posix", "printf new > t; sync t; mv t f",
			"create t needs fsync .; rename t f needs fsync .", "./f=old"},
		{"the file is synced, the name is not", "ext4", "printf new > t; sync t; mv t f",
			"rename t f needs fsync .", "./f=old ./t=new"},
		{"all is synced", "posix", "printf new > t; sync t; mv t f; sync .", "", "./f=new"},
		{"all is synced", "ext4", "printf new > t; sync t; mv t f; sync .", "", "./f=new"},
		{"the name alone is synced", "posix", "printf new > t; mv t f; sync .", "write t 0 3 needs fsync t", "./f="},
		{"ext4 writes the bytes before the name", "ext4", "printf new > t; mv t f; sync .", "", "./f=new"},
		{"a file in a new directory", "posix", "mkdir a; printf new > a/f; sync a/f",
			"mkdir a needs fsync .; create a/f needs fsync a", "./f=old"},
		{"a file in a new directory", "ext4", "mkdir a; printf new > a/f; sync a/f", "", "./a ./a/f=new ./f=old"},
		{"another file is synced", "ext4", "printf new > t; printf o | dd of=f conv=notrunc status=none; sync f",
			"write t 0 3 needs fsync t", "./f=old ./t="},
		{"a write in place", "posix", "printf NEW | dd of=f conv=notrunc status=none", "write f 0 3 needs fsync f", "./f=old"},
		{"a truncating save", "posix", "printf new > f", "truncate f from=3 to=0 needs fsync f; write f 0 3 needs fsync f", "./f=old"},
		{"a truncating save, and a sync of another", "ext4", "printf new > f; echo > g; sync g", "", "./f=new ./g="},
		{"a rename between directories", "posix", "mkdir a b; printf x > a/f; sync a/f a b .; mv a/f b/g; sync a",
			"rename a/f b/g needs fsync b", "./a ./a/f=x ./b ./f=old"},
		{"a rename between directories, both synced", "posix", "mkdir a b; printf x > a/f; sync a/f a b .; mv a/f b/g; sync b a",
			"", "./a ./b ./b/g=x ./f=old"},
		{"a directory with pending children is renamed", "posix", "mkdir a; sync .; printf x > a/f; sync a/f; mv a b",
			"create a/f needs fsync a; rename a b needs fsync .", "./a ./f=old"},
		{"a directory over an empty one", "posix", "mkdir a b; printf x > a/f; sync a/f a .; mv -T a b",
			"rename a b needs fsync .", "./a ./a/f=x ./b ./f=old"},
		{"a hard link", "posix", "ln f g; sync .; printf X | dd of=g conv=notrunc status=none; rm f",
			"write g 0 1 needs fsync g; unlink f needs fsync .", "./f=old ./g=old"},
		{"both names of a file are removed", "posix", "ln f g; sync .; rm f g",
			"unlink f needs fsync .; unlink g needs fsync .", "./f=old ./g=old"},
		{"a symbolic link and a fifo", "posix", "ln -s f l; mkfifo p",
			"symlink l needs fsync .; mknod p needs fsync .", "./f=old"},
		{"a removed directory", "posix", "mkdir d; sync .; rmdir d", "rmdir d needs fsync .", "./d ./f=old"},
		{"attributes", "posix", "chmod 600 f; setfattr -n user.a -v b f; chown 1:2 f",
			"chmod f 0600 needs fsync f; setxattr f user.a needs fsync f; chown f 1 2 needs fsync f", "./f=old"},
		// fallocate(1) calls fsync(2) itself.
		{"a hole", "posix", "head -c 12288 /dev/zero | tr '\\0' x > h; sync h .; fallocate -p -o 4096 -l 4096 h; truncate -s 100 h",
			"truncate h from=12288 to=100 needs fsync h", "./f=old ./h=xxxxxxxxxxxxxxxxxxxx"},
		{"a name with a space", "posix", "printf x > 'a b'",
			`create "a b" needs fsync .; write "a b" 0 1 needs fsync "a b"`, "./f=old"},
	}
	harness.EachFS(t, func(t *testing.T, dir string) {
		for _, s := range scripts {
			t.Run(s.model+" "+s.name, func(t *testing.T) {
				backing := harness.SubDir(t, dir, strings.ReplaceAll(t.Name(), "/", "_"))
				m := harness.Mount(t, backing, "history="+s.model)
				harness.InDir(t, m.Dir, before+s.script)
				var got []string
				for line := range strings.Lines(pending(t, m)) {
					_, what, _ := strings.Cut(strings.TrimSpace(line), " ")
					got = append(got, what)
				}
				harness.Expect(t, strings.Join(got, "; "), s.pending, "pending")
				now := harness.InDir(t, m.Dir, tree)
				durable := harness.InDir(t, m.Path(".mapfs", "durable"), tree)
				harness.Expect(t, strings.Join(strings.Fields(durable), " "), s.left, "durable")
				answer := powercut(t, m, "")
				lost := len(got)
				if want := fmt.Sprintf("%d of %d pending operations lost (model %s)", lost, lost, s.model); !strings.Contains(answer, want) {
					t.Errorf("the answer is %q, want %q in it", answer, want)
				}
				after := harness.InDir(t, m.Dir, tree)
				harness.Expect(t, after, durable, "the mount after the cut")
				harness.Expect(t, harness.InDir(t, backing, tree), durable, "BACKING after the cut")
				if lost == 0 {
					harness.Expect(t, after, now, "nothing was pending, so nothing")
				}
				harness.Expect(t, pending(t, m), "", "pending after the cut")
				// A second cut changes nothing.
				powercut(t, m, "")
				harness.Expect(t, harness.InDir(t, m.Dir, tree), durable, "the mount after a second cut")
				// The mount goes on.
				harness.InDir(t, m.Dir, "printf again > f; rm -rf a b; mkdir a; mv f a")
				harness.Expect(t, harness.Run(t, "cat", m.Path("a", "f")), "again", "a file of the time after")
				m.Unmount()
				harness.Expect(t, harness.Run(t, "cat", filepath.Join(backing, "a", "f")), "again", "BACKING after the unmount")
				if left, err := os.ReadDir(filepath.Join(backing, ".mapfs")); err == nil {
					t.Errorf("the stash is left: %v", left)
				}
			})
		}
	})
}

// TestCrashKeep chooses what survives.
func TestCrashKeep(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir, "history")
		harness.InDir(t, m.Dir, "printf old > f; sync f .; printf new > t; mv t f")
		numbers := strings.Fields(harness.InDir(t, m.Dir, `cut -d " " -f 1 .mapfs/pending`))
		for args, sentence := range map[string]string{
			"keep=" + numbers[2]:       "operation " + numbers[2] + " (rename t) cannot survive: it comes after operation " + numbers[0] + " (create t), on the same name, which is lost",
			"keep=999":                 "no pending operation has the number 999",
			"keep=x":                   `keep="x" is none of all, none, random, and no numbers of pending operations`,
			"seed=3":                   "seed= is for keep=random",
			"torn=512":                 "torn= is for keep=random",
			"keep=random torn=1000":    `torn="1000" is neither none nor a number of bytes that divides the page size`,
			"keep=random seed=x":       `seed="x" is no number`,
			"keep=none wrong=argument": `unknown argument "wrong"`,
		} {
			_, err := harness.RunErr(harness.Binary, "ctl", m.Dir, "powercut "+args)
			if err == nil || !strings.Contains(err.Error(), sentence) {
				t.Errorf("%s: %v; want %q", args, err, sentence)
			}
		}
		harness.Expect(t, harness.Run(t, "cat", m.Path("f")), "new", "f after what was refused")
		answer := powercut(t, m, "keep="+numbers[0]+","+numbers[2])
		if !strings.Contains(answer, "1 of 3 pending operations lost") || !strings.Contains(answer, "lost "+numbers[1]+" write t 0 3") {
			t.Errorf("the answer is %q", answer)
		}
		harness.Expect(t, harness.Run(t, "cat", m.Path("f")), "", "f: the name was kept, the bytes were not")
		harness.InDir(t, m.Dir, "printf all > f")
		powercut(t, m, "keep=all")
		harness.Expect(t, harness.Run(t, "cat", m.Path("f")), "all", "f when all is kept")
		events := harness.Run(t, harness.Binary, "events", "--no-follow", m.Dir)
		for _, want := range []string{"powercut - kept=2 lost=1 bytes=3", "powercut - kept=1 lost=0 bytes=0"} {
			if !strings.Contains(events, want) {
				t.Errorf("events have no %q:\n%s", want, events)
			}
		}
		// The same seed gives the same.
		var left []string
		for range 2 {
			harness.InDir(t, m.Dir, "rm -f ?; echo sync > .mapfs/ctl; for i in 1 2 3 4 5 6; do echo $i > $i; done")
			answer := powercut(t, m, "keep=random seed=7")
			if !strings.Contains(answer, "seed 7") {
				t.Errorf("the answer is %q", answer)
			}
			left = append(left, harness.InDir(t, m.Dir, tree))
		}
		harness.Expect(t, left[0], left[1], "what the same seed leaves")
	})
}

// TestCrashOptions checks what a history excludes.
func TestCrashOptions(t *testing.T) {
	harness.RequireFUSE(t)
	backing, mnt := harness.TempDir(t), harness.TempDir(t)
	for options, sentence := range map[string]string{
		"history=xfs":                          "choose posix or ext4",
		"history,mode=shared":                  "it excludes mode=shared",
		"history,writeback":                    "it excludes writeback",
		"exclusive,history":                    "it excludes writeback",
		"history,writeback_interval=5":         "it excludes writeback_interval",
		"history,control=none":                 "it excludes control=none",
		"history,history_dir=tmp":              "not an absolute path",
		"history,history_dir=/nonexistent/dir": "no such file or directory",
		"history,history_memory=0":             "less than a byte",
	} {
		_, err := harness.RunErr(harness.Binary, "-f", "-o", options, backing, mnt)
		if err == nil || !strings.Contains(err.Error(), sentence) {
			t.Errorf("%s: %v; want %q", options, err, sentence)
		}
	}
	m := harness.Mount(t, backing, "history")
	harness.InDir(t, m.Dir, "printf hello > f; sync f")
	for command, sentence := range map[string]string{
		"f mode private":                       "with -o history every file is staged",
		". mmap name=m file=f prot=rw open=rw": "stores must not reach it",
	} {
		path, command, _ := strings.Cut(command, " ")
		_, err := harness.RunErr(harness.Binary, "ctl", m.Path(path), command)
		if err == nil || !strings.Contains(err.Error(), sentence) {
			t.Errorf("%s: %v; want %q", command, err, sentence)
		}
	}
	harness.Run(t, harness.Binary, "ctl", m.Dir, "mmap name=m file=f")
	powercut(t, m, "")
	if left, err := os.ReadDir(m.Path(".mapfs", "mappings")); err != nil || len(left) > 0 {
		t.Errorf("explicit mappings after a power cut: %v, %v", left, err)
	}
	without := harness.Mount(t, harness.TempDir(t))
	for _, command := range []string{"powercut", "fault op=write path=f powercut=after"} {
		_, err := harness.RunErr(harness.Binary, "ctl", without.Dir, command)
		if err == nil || !strings.Contains(err.Error(), "-o history") {
			t.Errorf("%s without a history: %v", command, err)
		}
	}
	_, err := harness.RunErr(harness.Binary, "pending", without.Dir)
	if err == nil || !strings.Contains(err.Error(), "mount with -o history") {
		t.Errorf("pending without a history: %v", err)
	}
}
