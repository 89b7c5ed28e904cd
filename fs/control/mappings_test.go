package control

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/fs"
	"mapfs/fs/wire"
	"mapfs/internal/need"
	"mapfs/mapping"
	"mapfs/mapping/explicit"
	"mapfs/mapping/paging"
)

// command gives lines to the root's ctl and returns the answer, or the sentence.
func (tree *Tree) command(t *testing.T, text string) (string, syscall.Errno) {
	t.Helper()
	answer, err := (&ctlHandle{}).run(&call{t: tree}, text)
	if err != nil {
		checkSentence(t, text, err)
		return err.Error(), wire.ErrnoOf(err)
	}
	return strings.TrimSuffix(answer, "\n"), 0
}

// mmapTest is command of an mmap that must succeed.
func (tree *Tree) mmapTest(t *testing.T, arguments string) *explicit.Mapping {
	t.Helper()
	answer, errno := tree.command(t, "mmap "+arguments)
	c, err := parseCommand("mmap " + arguments)
	if errno != 0 || err != nil {
		t.Fatalf("mmap %s: %s", arguments, answer)
	}
	m := tree.arena.Find(c.args["name"])
	if m == nil || fmt.Sprintf("%x", m.Start()) != answer {
		t.Fatalf("mmap %s: the answer is %q, the mapping %+v", arguments, answer, m)
	}
	return m
}

func TestMmapCommandErrors(t *testing.T) {
	tree, _, _ := commandTest(t)
	if err := os.Mkdir(tree.backingPath("d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, link := range [][2]string{{"f", "link"}, {"/etc/passwd", "out"}, {"d", "dlink"}} {
		if err := os.Symlink(link[0], tree.backingPath(link[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(tree.backingPath("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tree.backingPath("empty"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tree.backingPath("d", "g"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken := tree.mmapTest(t, "name=taken file=f")
	arena := func() string { start, end := tree.arena.Bounds(); return fmt.Sprintf("%x-%x", start, end) }()
	for _, c := range []struct {
		text string
		want syscall.Errno
		says string // a part of the sentence
	}{
		{"mmap", syscall.EINVAL, "name= is missing"},
		{"mmap name=x", syscall.EINVAL, "file= is missing"},
		{"mmap name=x file=f colour=red", syscall.EINVAL, `"colour"`},
		{"mmap name= file=f", syscall.EINVAL, "name="},
		{"mmap name=.. file=f", syscall.EINVAL, `".."`},
		{"mmap name=a/b file=f", syscall.EINVAL, `"a/b"`},
		{"mmap name=" + strings.Repeat("n", 256) + " file=f", syscall.ENAMETOOLONG, "name="},
		{"mmap name=taken file=f", syscall.EEXIST, `"taken"`},
		{"mmap name=x file=nothing", syscall.ENOENT, `"nothing"`},
		{"mmap name=x file=d", syscall.ENODEV, `"d"`},
		{"mmap name=x file=fifo", syscall.ENODEV, `"fifo"`},
		{"mmap name=x file=link", syscall.ELOOP, `"link"`},
		{"mmap name=x file=out", syscall.ELOOP, `"out"`},
		{"mmap name=x file=dlink/g", syscall.ELOOP, `"dlink/g"`},
		{"mmap name=x file=f/g", syscall.ENOTDIR, `"f/g"`},
		{"mmap name=x file=/etc/passwd", syscall.EINVAL, "no path"},
		{"mmap name=x file=../f", syscall.EINVAL, "no path"},
		{"mmap name=x file=d/../f", syscall.EINVAL, "no path"},
		{"mmap name=x file=d//g", syscall.EINVAL, "no path"},
		{"mmap name=x file=", syscall.EINVAL, "no path"},
		{"mmap name=x file=.mapfs/status", syscall.EPERM, ".mapfs"},
		{"mmap name=x file=" + strings.Repeat("d/", 40000) + "f", syscall.EINVAL, "command"},
		{"mmap name=x file=f offset=100", syscall.EINVAL, "100"},
		{"mmap name=x file=f offset=-1", syscall.EINVAL, "offset"},
		{"mmap name=x file=f length=0", syscall.EINVAL, "length=0"},
		{"mmap name=x file=f offset=1048576", syscall.EINVAL, "give a length"},
		{"mmap name=x file=empty", syscall.EINVAL, "give a length"},
		{"mmap name=x file=f length=9223372036854775807", syscall.ENOMEM, "address space"},
		{"mmap name=x file=f length=4611686018427387904", syscall.ENOMEM, arena},
		{"mmap name=x file=f prot=rr", syscall.EINVAL, `"rr"`},
		{"mmap name=x file=f prot=rq", syscall.EINVAL, `"rq"`},
		{"mmap name=x file=f prot=", syscall.EINVAL, "prot"},
		{"mmap name=x file=f flags=fixed addr=0", syscall.EINVAL, "shared and private"},
		{"mmap name=x file=f flags=shared,private", syscall.EINVAL, "shared and private"},
		{"mmap name=x file=f flags=shared,anonymous", syscall.EINVAL, `"anonymous"`},
		{"mmap name=x file=f flags=shared,fixed", syscall.EINVAL, "addr="},
		{"mmap name=x file=f flags=shared,fixed addr=1000", syscall.EINVAL, arena},
		{"mmap name=x file=f flags=shared,fixed addr=0", syscall.EINVAL, arena},
		{fmt.Sprintf("mmap name=x file=f flags=shared,fixed addr=%x", taken.Start()+1), syscall.EINVAL, "page size"},
		{fmt.Sprintf("mmap name=x file=f flags=shared,fixed_noreplace addr=%x", taken.Start()), syscall.EEXIST, `"taken"`},
		{"mmap name=x file=f addr=xyz", syscall.EINVAL, `"xyz"`},
		{"mmap name=x file=f addr=10000000000000000", syscall.EINVAL, "addr"},
		{"mmap name=x file=f open=wo", syscall.EINVAL, `"wo"`},
		{"mmap name=x file=f prot=w open=ro", syscall.EACCES, "open=rw"},
		{"mmap name=x file=f prot=rw open=ro flags=shared,populate", syscall.EACCES, "open=rw"},

		{"munmap", syscall.EINVAL, "addr= is missing"},
		{"munmap name=x", syscall.ENOENT, `"x"`},
		{"munmap name=taken addr=0 length=1", syscall.EINVAL, "name="},
		{"munmap addr=1000 length=4096", syscall.EINVAL, arena},
		{fmt.Sprintf("munmap addr=%x length=4096", taken.Start()+1), syscall.EINVAL, "page size"},
		{fmt.Sprintf("munmap addr=%x length=0", taken.Start()), syscall.EINVAL, "length"},
		{fmt.Sprintf("munmap addr=%x", taken.Start()), syscall.EINVAL, "length= is missing"},
		{fmt.Sprintf("munmap addr=%x length=-1", taken.Start()), syscall.EINVAL, "length"},
		{"mprotect addr=1000 length=4096", syscall.EINVAL, "prot= is missing"},
		{"mprotect addr=1000 length=4096 prot=r", syscall.ENOMEM, arena},
		{fmt.Sprintf("mprotect addr=%x length=%d prot=r", taken.Start(), taken.Length()+1), syscall.ENOMEM, "not mapped"},
		{"msync addr=1000 length=4096", syscall.ENOMEM, arena},
		{"msync addr=1000 length=4096 flags=sync,async", syscall.EINVAL, "contradict"},
		{fmt.Sprintf("msync addr=%x length=%d", taken.Start(), 10*taken.Length()), syscall.ENOMEM, "not mapped"},
		{"madvise addr=1000 length=4096", syscall.EINVAL, "advice= is missing"},
		{"madvise addr=1000 length=4096 advice=free", syscall.EINVAL, `"free"`},
		{"mlock addr=1000 length=4096", syscall.ENOMEM, arena},
		{"munlock addr=1001 length=4096", syscall.EINVAL, "page size"},
		{"mremap addr=1000 length=4096", syscall.EINVAL, `"mremap"`},
	} {
		says, errno := tree.command(t, c.text)
		if errno != c.want || !strings.Contains(says, c.says) {
			t.Errorf("%.80q: errno %d, %s; want errno %d and %q", c.text, errno, says, c.want, c.says)
		}
		if all := tree.arena.Mappings(); len(all) != 1 || len(taken.Segments()) != 1 {
			t.Fatalf("%.80q changed something", c.text)
		}
	}
	// Nothing of the ways to files is kept.
	if _, errno := tree.command(t, "munmap name=taken"); errno != 0 {
		t.Errorf("munmap: %v", errno)
	}
	if n := tree.s.Find(mapping.ID{}); n != nil || tree.s.Nodes() != 2 { // the root and f, which the test looked up
		t.Errorf("%d nodes are known", tree.s.Nodes())
	}
}

// TestMmapCommandDefaults: what is left out is what the manual says.
func TestMmapCommandDefaults(t *testing.T) {
	tree, _, text := commandTest(t)
	page := paging.PageSize
	if err := os.Mkdir(tree.backingPath("dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"program": 0o755, "dir/a b": 0o600} {
		if err := os.WriteFile(tree.backingPath(name), []byte(text+"x"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ arguments, want string }{
		{"name=a file=f", "rw shared rw 0 3"},
		{"name=b file=f open=ro", "r shared ro 0 3"},
		{"name=c file=program", "r shared ro 0 4"},
		{"name=d file=program open=rw", "rw shared rw 0 4"},
		{`name=e file="dir/a b" offset=8192 flags=private`, fmt.Sprintf("rw private rw 8192 %d", (3*page+page-8192)/page)},
		{"name=f file=f length=1 prot=none", "none shared rw 0 1"},
		{"name=g file=f offset=1073741824 length=4097 prot=rwx flags=private,populate", fmt.Sprintf("rwx private,populate rw 1073741824 %d", (4097+page-1)/page)},
		{`name="h \xff\n" file=f prot=xr`, "rx shared rw 0 3"},
	} {
		m := tree.mmapTest(t, c.arguments)
		access := map[bool]string{true: "rw", false: "ro"}[m.Writable()]
		got := fmt.Sprintf("%s %s %s %d %d", protText(m.Segments()[0].Prot), mmapFlagNames(m.Flags()), access, m.Offset(), m.Length()/page)
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.arguments, got, c.want)
		}
		var b strings.Builder
		if err := tree.writeMappingStatus(&b, &node{key: key{explicit: m}}, nil); err != nil || !strings.Contains(b.String(), "\nprot "+strings.Fields(c.want)[0]+"\n") {
			t.Errorf("%s: %v, status\n%s", c.arguments, err, b.String())
		}
	}
}

// TestMappingCtl: the same commands by offset, which lead nowhere but to the
// mapping's own pages.
func TestMappingCtl(t *testing.T) {
	tree, n, _ := commandTest(t)
	page := paging.PageSize
	m, next := tree.mmapTest(t, "name=m file=f"), tree.mmapTest(t, "name=next file=f")
	if next.Start() != m.Start()+uintptr(m.Length()) {
		t.Fatal("they are no neighbours")
	}
	h := &ctlHandle{explicit: m}
	for _, c := range []struct {
		text string
		want syscall.Errno
	}{
		{"mprotect prot=none offset=8192 length=" + fmt.Sprint(2*page), syscall.ENOMEM},
		{"msync offset=100", syscall.EINVAL},
		{fmt.Sprintf("msync offset=%d", 3*page), syscall.ENOMEM},
		{"msync addr=0 length=1", syscall.EINVAL},
		{"munmap name=m", syscall.EINVAL},
		{"mmap name=x file=f", syscall.EINVAL},
		{"msync length=0", syscall.EINVAL},
		{fmt.Sprintf("msync length=%d", page), 0},
		{fmt.Sprintf("mprotect prot=r offset=%d", 2*page), 0},
		{"mlock", 0},
		{"msync flags=sync,invalidate", syscall.EBUSY},
		{"munlock", 0},
		{"madvise advice=willneed", 0},
		{fmt.Sprintf("munmap offset=%d length=1", page), 0},
		{"msync", syscall.ENOMEM},
		{"mprotect prot=rw", syscall.ENOMEM},
		{"munmap", 0},
		{"munmap", syscall.ESTALE},
		{"msync", syscall.ESTALE},
	} {
		if _, err := h.run(&call{t: tree}, c.text); err == nil && c.want != 0 || err != nil && wire.ErrnoOf(err) != c.want {
			t.Errorf("%q: %v, want errno %d", c.text, err, c.want)
		}
		if got := next.Segments(); len(got) != 1 || got[0].Prot != unix.PROT_READ|unix.PROT_WRITE || got[0].Locked {
			t.Fatalf("%q reached the neighbour: %+v", c.text, got)
		}
	}
	if got, want := unsyncedOf(t, tree, n), fmt.Sprintf("%d %d write\n", page, page); got != want {
		t.Errorf("unsynced %q, want %q: the page between the parts that were synced", got, want)
	}
}

// TestStoreNotifies: the kernel is told to drop what it has cached of a file that
// was stored to through a shared mapping, and only then.
func TestStoreNotifies(t *testing.T) {
	for flags, want := range map[string]bool{"shared": true, "private": false} {
		tree, n, _ := commandTest(t)
		told := changes(tree)
		m := tree.mmapTest(t, "name=m file=f flags="+flags)
		h := &mappingMemory{explicit: m}
		if count, err := h.write(&call{t: tree}, []byte("hello"), 5); count != 5 || err != nil {
			t.Fatalf("%d, %v", count, err)
		}
		if got := told[n]; got != want {
			t.Errorf("%s: the kernel is told: %v, want %v", flags, got, want)
		}
		delete(told, n)
		if _, errno := tree.command(t, fmt.Sprintf("msync addr=%x length=1 flags=invalidate", m.Start())); errno != 0 || !told[n] {
			t.Errorf("%s: after msync with invalidate the kernel is told: %v, errno %d", flags, told[n], errno)
		}
	}
}

// refused is a shell function that fails unless a command does: in a shell with -e
// a "! command" never ends the script.
const refused = `refused() { if "$@"; then echo "not refused: $*"; exit 1; fi; }
		`

// TestMappingsTakeDescriptors: each explicit mapping keeps its file open.
func TestMappingsTakeDescriptors(t *testing.T) {
	tree, _, _ := commandTest(t)
	for want, name := range []string{"a", "b"} {
		if got := tree.Descriptors(); got != int64(want) {
			t.Errorf("%d descriptors are held before mapping %s", got, name)
		}
		tree.mmapTest(t, "name="+name+" file=f")
	}
}

// TestMappingsTree walks a user's steps through the mounted tree.
func TestMappingsTree(t *testing.T) {
	_, mnt := mounted(t, fs.Options{DefaultPermissions: true})
	shell(t, mnt, refused+`head -c 16384 /dev/zero | tr '\0' a > f
		echo 'mmap name=one file=f' > .mapfs/ctl
		[ "$(ls .mapfs/mappings)" = one ]
		[ "$(ls .mapfs/mappings/one | xargs)" = "ctl map memory pages status" ]
		[ "$(stat -c '%a %s %u' .mapfs/mappings/one/memory)" = "600 16384 0" ]
		[ "$(stat -c '%a %F' .mapfs/mappings/one)" = "555 directory" ]
		[ -z "$(find .mapfs/mappings | xargs stat -c %i | sort | uniq -d)" ]
		grep -q '^arena [0-9a-f]*-[0-9a-f]*$' .mapfs/status
		grep -q '^explicit_mappings 1$' .mapfs/status
		[ $(grep -c ' f one$' .mapfs/maps) = 1 ]
		[ $(wc -l < .mapfs/maps) = $(sed -n 's/^mappings //p' .mapfs/status) ]

		# stores are seen in the file and the other way round
		cat f > /dev/null
		printf X | dd of=.mapfs/mappings/one/memory bs=1 seek=4097 status=none
		[ "$(head -c 4098 f | tail -c 2)" = aX ]
		printf Y | dd of=f bs=1 seek=8192 conv=notrunc status=none
		[ "$(dd if=.mapfs/mappings/one/memory bs=1 skip=8192 count=1 status=none)" = Y ]
		cmp f .mapfs/mappings/one/memory

		# the commands that cannot be are refused
		refused mkdir .mapfs/mappings/two
		refused touch .mapfs/mappings/two
		refused rm .mapfs/mappings/one/ctl
		refused rmdir .mapfs/mappings
		refused rmdir .mapfs/mappings/two
		refused mv .mapfs/mappings/one .mapfs/mappings/two
		refused cat .mapfs/mappings/two/status

		# rmdir is munmap; who has the memory open cannot reach it any more
		exec 3<> .mapfs/mappings/one/memory
		rmdir .mapfs/mappings/one
		[ -z "$(ls .mapfs/mappings)" ]
		refused dd bs=1 count=1 status=none <&3
		refused sh -c 'printf Z | dd bs=1 count=1 status=none >&3'
		echo 'mmap name=one file=f' > .mapfs/ctl
		refused dd bs=1 count=1 status=none <&3
		[ "$(head -c 1 .mapfs/mappings/one/memory)" = a ]
		[ "$(head -c 1 f)" = a ]
		exec 3>&-

		# a removed file is mapped all the same
		rm f
		printf B | dd of=.mapfs/mappings/one/memory bs=1 conv=notrunc status=none
		[ "$(head -c 1 .mapfs/mappings/one/memory)" = B ]
		echo munmap > .mapfs/mappings/one/ctl
		refused stat .mapfs/mappings/one`)
}

// TestMappingsManyNames: a directory of more names than one reply holds is listed
// whole, also names that are hard to show.
func TestMappingsManyNames(t *testing.T) {
	_, mnt := mounted(t, fs.Options{DefaultPermissions: true})
	got := shell(t, mnt, `echo hello > f; i=0
		while [ $i -lt 600 ]; do echo "mmap name=$(printf %0200d $i) file=f"; i=$((i+1)); done | split -l 100 --filter='dd bs=64k iflag=fullblock status=none > '"$PWD"'/.mapfs/ctl'
		printf 'mmap name="a b\\n\\xff" file=f' > .mapfs/ctl
		ls -U .mapfs/mappings | wc -l; find .mapfs/mappings -mindepth 1 -maxdepth 1 -exec rmdir {} +; ls .mapfs/mappings | wc -l`)
	if strings.Join(strings.Fields(got), " ") != "602 0" { // a newline in a name is two lines
		t.Errorf("%q", got)
	}
}

// TestMappingsOfOthers: who may not read a file learns nothing of its mappings, and
// nobody but the owner and root changes any.
func TestMappingsOfOthers(t *testing.T) {
	need.Tool(t, "setpriv")
	backing, mnt := mounted(t, fs.Options{AllowOther: true, DefaultPermissions: true})
	// Whoever it is has to get to the mount.
	for dir := filepath.Dir(backing); dir != "/"; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && st.Mode().Perm()&1 == 0 {
			if err := os.Chmod(dir, st.Mode().Perm()|0o011); err != nil {
				t.Fatal(err)
			}
		}
	}
	shell(t, mnt, `echo open > f; echo secret > s; mkdir d; echo hidden > d/h; chmod 644 f d/h; chmod 600 s; chmod 700 d
			for x in f s d/h; do echo "mmap name=m-$(basename $x) file=$x" > .mapfs/ctl; done
			cat > "$PWD.sh" <<'end'
`+refused+`			[ "$(ls .mapfs/mappings)" = m-f ]
			cat .mapfs/mappings/m-f/status .mapfs/mappings/m-f/pages > /dev/null
			for x in m-s m-h; do
				refused cat .mapfs/mappings/$x/status
				refused stat .mapfs/mappings/$x/memory
			done
			[ "$(sed 's/.* //' .mapfs/maps)" = m-f ]
			refused cat .mapfs/mappings/m-f/memory
			refused sh -c 'echo munmap > .mapfs/mappings/m-f/ctl'
			refused rmdir .mapfs/mappings/m-f
end
			setpriv --reuid=12345 --regid=12345 --clear-groups sh -ec "cd '$PWD'; . '$PWD.sh'"
			[ $(ls .mapfs/mappings | wc -l) = 3 ]`)
}

// TestMappingSurvivesStorms: clients load, store and map the same names at once.
func TestMappingSurvivesStorms(t *testing.T) {
	_, mnt := mounted(t, fs.Options{DefaultPermissions: true})
	shell(t, mnt, `head -c 40000 /dev/zero > f
		storm() { i=0; while [ $i -lt 60 ]; do i=$((i+1)); "$@" > /dev/null 2>&1 || :; done; }
		make() { echo 'mmap name=m file=f' > .mapfs/ctl; rmdir .mapfs/mappings/m; }
		use() { cat .mapfs/mappings/m/memory .mapfs/mappings/m/pages .mapfs/maps; printf x | dd of=.mapfs/mappings/m/memory bs=1 seek=9000; }
		other() { truncate -s 5000 f; truncate -s 40000 f; echo sync > .mapfs/ctl; ls -l .mapfs/mappings/m; }
		storm make & a=$!; storm use & b=$!; storm other & c=$!
		wait $a; wait $b; wait $c
		echo done > g; [ "$(cat g)" = done ]`)
}
