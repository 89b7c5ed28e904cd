package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"mapfs/fs"
	"mapfs/fs/wire"
	"mapfs/mapping"
	"mapfs/mapping/paging"
)

func TestParseCommand(t *testing.T) {
	for _, c := range []struct {
		line string
		want string // verb, then the arguments in their order as key=%q
	}{
		{"msync", "msync"},
		{" msync \t\r\n", "msync"},
		{"msync offset=0 length=4096", `msync offset="0" length="4096"`},
		{"msync\toffset=0\t", `msync offset="0"`},
		{"mmap file=a=b", `mmap file="a=b"`},
		{"mmap file=", `mmap file=""`},
		{"munmap one", `munmap ="one"`},
		{`mmap file="a b"`, `mmap file="a b"`},
		{`mmap file="a \"b\" \\ \n \xff"`, `mmap file="a \"b\" \\ \n \xff"`},
		{`mmap file=""`, `mmap file=""`},
		{"mmap file=ümläut", `mmap file="ümläut"`},
		{`mmap name="a=b" file=c`, `mmap name="a=b" file="c"`},
	} {
		got, err := parseCommand(c.line)
		text := got.verb
		for _, key := range got.keys {
			text += fmt.Sprintf(" %s=%q", key, got.args[key])
		}
		if err != nil || text != c.want {
			t.Errorf("parseCommand(%q) = %s, %v; want %s", c.line, text, err, c.want)
		}
	}
	for _, line := range []string{
		"msync offset=0 offset=1", "msync a b", `msync "`, `msync x="`, `msync x="a`, `msync x=a"`, `msync x="a"b`,
		`msync x="\q"`, `"`, "\x00", "msync \x00", "\xff", `msync x="a` + "\n" + `b"`,
	} {
		if got, err := parseCommand(line); err == nil {
			t.Errorf("parseCommand(%q) = %+v, want an error", line, got)
		}
	}
}

// commandSeeds are lines that were worth a thought.
var commandSeeds = []string{
	"", " ", "\n", "msync", "msync offset=0 length=4096 flags=sync", "msync offset=4096", "msync offset=100",
	"msync offset=-1", "msync offset=9223372036854775807", "msync length=9223372036854775807",
	"msync offset=4611686018427387904 length=9223372036854775807", "msync offset=18446744073709551615",
	"msync flags=sync,async", "msync flags=async,invalidate", "msync flags=", "msync flags=,", "msync offset=0 offset=0",
	"madvise advice=dontneed", "madvise advice=pageout length=1", "madvise advice=", "madvise advice=willneed offset=8192",
	"mlock", "munlock", "mlock offset=4096 length=4096\nmsync flags=invalidate\nmunlock", "mlock\nmunlock offset=4096",
	"msync\nmsync\n\n msync", "msync\nnonsense\nmsync", `msync offset="0"`, `msync offset="`, "\x00\xff", "msync\r\n",
	"mmap name=m file=f", "mmap name=m file=f\nmunmap name=m", "mmap name=m file=f flags=private prot=rw open=ro length=4096",
	"mmap name=m file=f addr=1000 flags=shared,fixed", "mmap name=m file=f offset=8192 length=99999 flags=private,populate",
	"mmap name=m file=f prot=none\nmmap name=m file=f", "mmap name=.. file=../f", `mmap name="a b\n" file="f"`, "mmap file=f name=a/b",
	"mmap name=m file=/f", "mmap name=m file=f//", "mmap name=m file=.", "mmap name=m file=.mapfs/status", "mmap name=m file=f prot=rwxr",
	"mmap name=m file=f prot=", "mmap name=m file=f length=9223372036854775807", "mmap name=m file=f offset=9223372036854771712 length=1",
	"mmap name=m file=f addr=ffffffffffffffff", "mmap name=m file=f addr=-1", "mmap name=m file=f addr=10000000000000000",
	"mmap name=m file=f flags=shared,private", "mmap name=m file=f flags=fixed", "mmap name=m file=f open=wo", "mmap name=m file=f flags=shared,locked",
	"munmap name=m", "munmap addr=0 length=0", "munmap addr=7f0000000000 length=18446744073709551615", "munmap name=m addr=0",
	"mprotect addr=0 length=4096 prot=r", "mprotect prot=r offset=4096 length=1", "msync addr=0 length=4096 flags=async", "mlock addr=zz length=1",
	"munmap offset=4096 length=4096\nmsync\nmlock\nmadvise advice=dontneed\nmunmap\nmsync",
	"sync", `"msync"`, "=", "msync =", "msync ==", `msync x="\u202e"`, "msync \u00a0", "msync offset=٣",
}

// FuzzParseCommand: whatever the line, it is refused in a sentence or taken apart
// so that it can be put together again.
func FuzzParseCommand(f *testing.F) {
	for _, seed := range commandSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c, err := parseCommand(line)
		if err != nil {
			checkSentence(t, line, err)
			return
		}
		if len(c.keys) != len(c.args) {
			t.Fatalf("%q: keys %q, arguments %q", line, c.keys, c.args)
		}
		again := c.verb
		for _, key := range c.keys {
			if _, ok := c.args[key]; !ok {
				t.Fatalf("%q: key %q has no value", line, key)
			}
			if key == "" {
				// Only a word that has no = and is no quoted one stands alone.
				if c.args[""] == "" || strings.ContainsAny(c.args[""], "=\" \t\r\n\\") {
					return
				}
				again += " " + c.args[key]
				continue
			}
			if strings.Contains(key, `"`) {
				return
			}
			again += " " + key + "=" + strconv.Quote(c.args[key])
		}
		d, err := parseCommand(again)
		if err != nil || d.verb != c.verb || !slices.Equal(d.keys, c.keys) || len(d.args) != len(c.args) {
			t.Fatalf("%q is %+v; put together, %q is %+v, %v", line, c, again, d, err)
		}
		for key, value := range c.args {
			if d.args[key] != value {
				t.Fatalf("%q: %s is %q, and then %q", line, key, value, d.args[key])
			}
		}
	})
}

// checkSentence checks that an error of a command is fit to be shown.
func checkSentence(t *testing.T, text string, err error) {
	t.Helper()
	var r *refusal
	if !errors.As(err, &r) || r.errno == 0 {
		t.Fatalf("%q: the error is %#v", text, err)
	}
	if s := r.sentence; s == "" || len(s) > 1000 || !utf8.ValidString(s) {
		t.Fatalf("%q: the sentence is %q", text, s)
	}
	for _, c := range r.sentence {
		if !strconv.IsPrint(c) {
			t.Fatalf("%q: the sentence %q cannot be printed", text, r.sentence)
		}
	}
}

// commandTest returns a tree of a session that is mounted nowhere, with a file of three
// pages, all of it unsynced.
func commandTest(t *testing.T) (*Tree, *fs.Node, string) {
	t.Helper()
	tree := unmounted(t)
	if err := os.WriteFile(tree.backingPath("f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	n, err := tree.s.Lookup(tree.s.Root(), "f", &st)
	if err != nil {
		t.Fatal(err)
	}
	f, err := tree.s.Open(n)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release(true)
	text := strings.Repeat("x", 3*int(paging.PageSize))
	if _, err := f.WriteAt([]byte(text), 0, mapping.Origin{}); err != nil {
		t.Fatal(err)
	}
	return tree, n, text
}

// unmounted returns the tree of a session on a fresh backing directory that is mounted
// nowhere. The kernel is never told that a file has changed; see changes.
func unmounted(t *testing.T) *Tree {
	t.Helper()
	tree := newTree(Options{})
	s, err := fs.New(fs.Options{Backing: t.TempDir(), Subtree: tree})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	tree.changed = func(*fs.Node) {}
	return tree
}

// backingPath returns a path in the tree's backing directory.
func (t *Tree) backingPath(names ...string) string {
	return filepath.Join(append([]string{t.s.Options().Backing}, names...)...)
}

// changes notes of which files the kernel would be told that they have changed.
func changes(t *Tree) map[*fs.Node]bool {
	told := make(map[*fs.Node]bool)
	t.changed = func(n *fs.Node) { told[n] = true }
	return told
}

// unsyncedOf is what the tree shows as unsynced.
func unsyncedOf(t *testing.T, tree *Tree, n *fs.Node) string {
	t.Helper()
	var b strings.Builder
	if err := tree.writeUnsynced(&b, &node{key: key{target: n}}, nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// FuzzFileCommand gives anything to a file's ctl. Whatever it does, it does not
// change the file, and what it does not understand changes nothing at all.
func FuzzFileCommand(f *testing.F) {
	for _, seed := range commandSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tree, n, want := commandTest(t)
		before := unsyncedOf(t, tree, n)
		h := &ctlHandle{target: n}
		answer, err := h.run(&call{t: tree}, text)
		if err != nil {
			checkSentence(t, text, err)
			errno := wire.ErrnoOf(err)
			if !slices.Contains([]syscall.Errno{syscall.EINVAL, syscall.ENOMEM, syscall.EBUSY, syscall.EPERM}, errno) {
				t.Fatalf("%q: errno %v, %v", text, errno, err)
			}
			// Of one line that is refused nothing was done.
			if got := unsyncedOf(t, tree, n); !strings.Contains(strings.TrimSpace(text), "\n") && got != before {
				t.Fatalf("%q was refused, but unsynced is %q and was %q", text, got, before)
			}
		} else {
			lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
			lines = slices.DeleteFunc(lines, func(l string) bool { return strings.TrimSpace(l) == "" })
			if answer != strings.Repeat("ok\n", len(lines)) || answer == "" {
				t.Fatalf("%q: the answer is %q", text, answer)
			}
		}
		got, err := os.ReadFile(tree.backingPath("f"))
		if err != nil || string(got) != want {
			t.Fatalf("%q changed the file: %d bytes, %v", text, len(got), err)
		}
		if f := tree.s.Files().Find(n.ID()); f == nil || f.Failure() != nil {
			t.Fatalf("%q: the file is gone or has failed", text)
		} else {
			f.Unref()
		}
	})
}

// FuzzRootCommand gives anything to the mount's ctl. Nothing of it changes the file,
// and no explicit mapping is left by a line that was refused.
func FuzzRootCommand(f *testing.F) {
	for _, seed := range commandSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tree, n, want := commandTest(t)
		before := unsyncedOf(t, tree, n)
		_, err := (&ctlHandle{}).run(&call{t: tree}, text)
		if got, err := os.ReadFile(tree.backingPath("f")); err != nil || string(got) != want {
			t.Fatalf("%q changed the file: %d bytes, %v", text, len(got), err)
		}
		if strings.TrimSpace(text) == "sync" && (err != nil || unsyncedOf(t, tree, n) != "") {
			t.Fatalf("sync: %v, and unsynced is %q", err, unsyncedOf(t, tree, n))
		}
		if err == nil {
			return
		}
		checkSentence(t, text, err)
		if left := tree.arena.Mappings(); len(left) > 0 && !strings.Contains(strings.TrimSpace(text), "\n") {
			t.Fatalf("%q was refused, and left the mapping %q", text, left[0].Name())
		}
		if got := unsyncedOf(t, tree, n); !strings.Contains(text, "sync") && got != before {
			t.Fatalf("%q was refused, but unsynced is %q and was %q", text, got, before)
		}
	})
}

// FuzzMappingCommand gives anything to an explicit mapping's ctl. Whatever it does,
// the file stays what it was.
func FuzzMappingCommand(f *testing.F) {
	for _, seed := range commandSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tree, _, want := commandTest(t)
		if _, err := (&ctlHandle{}).run(&call{t: tree}, "mmap name=m file=f"); err != nil {
			t.Fatal(err)
		}
		m := tree.arena.Find("m")
		before := m.Segments()
		if _, err := (&ctlHandle{explicit: m}).run(&call{t: tree}, text); err != nil {
			checkSentence(t, text, err)
			if !strings.Contains(strings.TrimSpace(text), "\n") && !slices.Equal(m.Segments(), before) {
				t.Fatalf("%q was refused, and left %+v", text, m.Segments())
			}
		}
		if got, err := os.ReadFile(tree.backingPath("f")); err != nil || string(got) != want {
			t.Fatalf("%q changed the file: %d bytes, %v", text, len(got), err)
		}
	})
}

// TestInvalidateNotifies: after msync with MS_INVALIDATE the kernel is told to
// drop what it has cached, by the notifier and not by the request.
func TestInvalidateNotifies(t *testing.T) {
	for text, want := range map[string]bool{
		"msync": false, "msync flags=async": false, "madvise advice=dontneed": false,
		"msync flags=invalidate": true, "msync flags=sync,invalidate": true,
		"msync offset=100 flags=invalidate": false,
	} {
		tree, n, _ := commandTest(t)
		told := changes(tree)
		_, _ = (&ctlHandle{target: n}).run(&call{t: tree}, text)
		if got := told[n]; got != want {
			t.Errorf("%q: the kernel is told: %v, want %v", text, got, want)
		}
	}
}

// TestCtlAnswer: the answer is read from where the descriptor's offset is after
// the write, in pieces of any size.
func TestCtlAnswer(t *testing.T) {
	tree, n, _ := commandTest(t)
	w := &call{t: tree}
	h := &ctlHandle{target: n}
	for _, c := range []struct {
		text string
		off  int64 // where the write leaves the descriptor
		want string
	}{
		{"msync\nmsync\n", 12, "ok\nok\n"},
		{"nonsense", 12, "unknown command \"nonsense\"; a file's are msync, mode, madvise, mlock, munlock\n"},
		{"msync", 17, "ok\n"},
	} {
		_, err := h.write(w, []byte(c.text), 0)
		if (err == nil) != strings.HasPrefix(c.want, "ok") {
			t.Errorf("write of %q: %v", c.text, err)
		}
		for _, size := range []int{1, 2, 1000} {
			got, at := "", c.off
			for {
				b, err := h.read(w, at, size)
				if err != nil {
					t.Fatal(err)
				}
				if len(b) == 0 {
					break
				}
				got += string(b)
				at += int64(len(b))
			}
			if got != c.want {
				t.Errorf("answer to %q in pieces of %d: %q, want %q", c.text, size, got, c.want)
			}
		}
	}
}
