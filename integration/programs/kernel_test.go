package programs

import (
	"strings"
	"testing"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// What follows is shown by the programs that people type, on the mount and on BACKING.

// TestProgramsSparse: holes stay holes, and data stays data, in what cp and tar copy.
func TestProgramsSparse(t *testing.T) {
	for _, mode := range []string{"shared", "private", "staged"} {
		t.Run(mode, func(t *testing.T) {
			harness.EachFS(t, func(t *testing.T, top string) {
				dir := harness.SubDir(t, top, "data")
				m := harness.Mount(t, dir, "mode="+mode)
				out := harness.InDir(t, m.Dir, `
					truncate -s 64M f
					echo first | dd of=f bs=1 seek=1M conv=notrunc status=none
					echo last | dd of=f bs=1 seek=40M conv=notrunc status=none
					cp --sparse=always f g
					tar -cSf t.tar f
					[ $(stat -c %s t.tar) -lt 1000000 ] && echo a short archive
					mkdir out && tar -xSf t.tar -C out
					cmp f g && cmp f out/f && echo same
					[ $(stat -c %b out/f) -lt 2000 ] && echo a sparse copy`)
				harness.Expect(t, out, "a short archive\nsame\na sparse copy\n", "cp and tar of a sparse file")
			})
		})
	}
}

// TestProgramsReflink: a copy shares its blocks where BACKING can, and is an ordinary copy
// where it cannot.
func TestProgramsReflink(t *testing.T) {
	need.Tool(t, "filefrag")
	for _, fstype := range []string{"xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			top := harness.MountImage(t, fstype, 512<<20)
			dir := harness.SubDir(t, top, "data")
			m := harness.Mount(t, dir)
			harness.InDir(t, m.Dir, "dd if=/dev/urandom of=f bs=1M count=8 status=none; sync f; cp --reflink=auto f g; sync g; cmp f g; echo x >>g; cp f h; cmp f h")
			if out := harness.Run(t, "filefrag", "-v", dir+"/g"); !strings.Contains(out, "shared") {
				t.Errorf("no block of the copy is shared:\n%s", out)
			}
			out := harness.InDir(t, m.Dir, "printf y | dd of=g conv=notrunc status=none; head -c1 g; cmp -n 1 f h && echo ' f is as it was'")
			harness.Expect(t, out, "y f is as it was\n", "a write to the copy")
		})
	}
	harness.EachFS(t, func(t *testing.T, top string) {
		m := harness.Mount(t, harness.SubDir(t, top, "data"))
		harness.InDir(t, m.Dir, "dd if=/dev/urandom of=f bs=1M count=3 status=none; cp --reflink=auto f g; cmp f g")
	})
}

// TestProgramsOverlay: the mount can be the upper layer of an overlay filesystem, which
// needs whiteouts, O_TMPFILE and extended attributes.
func TestProgramsOverlay(t *testing.T) {
	need.Root(t)
	harness.EachFS(t, func(t *testing.T, top string) {
		m := harness.Mount(t, harness.SubDir(t, top, "data"), "allow_other,suid,dev")
		lower := harness.SubDir(t, harness.TempDir(t), "lower")
		point := harness.SubDir(t, harness.TempDir(t), "overlay")
		harness.InDir(t, lower, "echo lower >a; echo lower >b; mkdir d; echo lower >d/c")
		harness.InDir(t, m.Dir, "mkdir upper work")
		if out, err := harness.RunErr("mount", "-t", "overlay", "overlay", "-o", "lowerdir="+lower+",upperdir="+m.Path("upper")+",workdir="+m.Path("work"), point); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Cleanup(func() { _, _ = harness.RunErr("umount", point) })
		out := harness.InDir(t, point, "echo upper >a; rm b; mv d e 2>/dev/null || { mkdir e; mv d/c e/c; rmdir d; }; cat a e/c; ls")
		harness.Expect(t, out, "upper\nlower\na\ne\n", "the overlay")
		out = harness.InDir(t, m.Dir, "cat upper/a; stat -c '%F %t,%T' upper/b; ls upper")
		harness.Expect(t, out, "upper\ncharacter special file 0,0\na\nb\nd\ne\n", "the upper layer")
		harness.Run(t, "umount", point)
	})
}

// TestProgramsAttributes: lists, attributes and birth times as their programs show them.
func TestProgramsAttributes(t *testing.T) {
	need.Root(t)
	for _, tool := range []string{"lsattr", "chattr", "getfacl", "setfacl"} {
		need.Tool(t, tool)
	}
	harness.EachFS(t, func(t *testing.T, top string) {
		dir := harness.SubDir(t, top, "data")
		m := harness.Mount(t, dir, "allow_other")
		out := harness.InDir(t, m.Dir, `
			echo data >f
			chattr +i f; lsattr f | cut -c5; rm -f f 2>&1 | grep -c 'not permitted'; chattr -i f
			chattr +d f; lsattr f | cut -c7; chattr -d f
			setfacl -m u:nobody:rw f; getfacl -c f | grep nobody
			cp -a f g; getfacl -c g | grep nobody
			mkdir d; setfacl -d -m u:nobody:rwx d; touch d/in; getfacl -c d/in | grep -c nobody
			mv f h; cat h`)
		harness.Expect(t, out, "i\n1\nd\nuser:nobody:rw-\nuser:nobody:rw-\n1\ndata\n", "attributes and lists")
		birth := func(dir string) string { return harness.InDir(t, dir, "stat -c %w h") }
		harness.Expect(t, birth(m.Dir), birth(dir), "birth time")
	})
}
