package programs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// gitEnv makes git's commits the same everywhere and deaf to the user's settings.
var gitEnv = []string{
	"HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1",
	"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_AUTHOR_DATE=2024-01-02T03:04:05Z",
	"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org", "GIT_COMMITTER_DATE=2024-01-02T03:04:05Z",
}

// TestGit clones a repository onto the mount, works in it, packs and checks it.
// git maps its packs and index and writes by rename and link.
func TestGit(t *testing.T) {
	need.Tool(t, "git")
	const work = `
cd clone
test -z "$(git status --porcelain)"
for i in $(seq 60); do echo "changed $i" >>dir$((i % 7))/file$i; done
git mv dir1/file8 moved
ln -s moved link
chmod +x dir2/file9
git add -A
git commit -qm two
git checkout -q -b side HEAD~1
echo side >side
git add side
git commit -qm side
git checkout -q -
git merge -q -m merge side
git gc -q --aggressive --prune=now
git fsck --full --strict
test -z "$(git status --porcelain)"
git rev-parse HEAD`
	harness.EachFS(t, func(t *testing.T, dir string) {
		origin := harness.SubDir(t, harness.TempDir(t), "origin")
		harness.InDir(t, origin, `
git init -q .
for i in $(seq 200); do
	mkdir -p dir$((i % 7))
	seq $((i * 50)) >dir$((i % 7))/file$i
done
head -c 3000000 /dev/urandom >big
git add -A
git commit -qm one`, gitEnv...)
		m := harness.Mount(t, dir)
		plain := harness.SubDir(t, harness.TempDir(t), "plain")
		var heads []string
		for _, where := range []string{m.Dir, plain} {
			harness.InDir(t, where, "git clone -q '"+origin+"' clone", gitEnv...)
			heads = append(heads, harness.InDir(t, where, work, gitEnv...))
		}
		if heads[0] != heads[1] {
			t.Errorf("HEAD: got %s, want %s", heads[0], heads[1])
		}
		m.Unmount()
		harness.InDir(t, filepath.Join(dir, "clone"), `git fsck --full --strict; test -z "$(git status --porcelain)"`, gitEnv...)
	})
}

// TestGoBuild builds this project in a copy of it on the mount and runs what
// came out, from the mount.
func TestGoBuild(t *testing.T) {
	need.Tool(t, "go")
	source := harness.Repo()
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		harness.InDir(t, source, "cp -a go.mod go.sum client cmd docs fs internal mapping "+m.Dir)
		harness.InDir(t, m.Dir, "go build -trimpath -buildvcs=false -o out/mapfs ./cmd/mapfs", "GOFLAGS=-mod=mod")
		harness.Run(t, m.Path("out", "mapfs"), "version")
		// The same sources and flags make the same bytes wherever they lie.
		plain := filepath.Join(harness.TempDir(t), "mapfs")
		harness.InDir(t, source, "go build -trimpath -buildvcs=false -o "+plain+" ./cmd/mapfs", "GOFLAGS=-mod=mod")
		harness.Run(t, "cmp", plain, m.Path("out", "mapfs"))
		harness.Run(t, "sync", m.Path("out", "mapfs"))
		harness.Run(t, "cmp", plain, filepath.Join(dir, "out", "mapfs"))
	})
}

// makeTree fills a plain directory with what an archive has to keep: modes,
// owners, times, hard and symbolic links, holes, odd names.
func makeTree(t testing.TB, dir string) {
	t.Helper()
	harness.InDir(t, dir, `
mkdir -p a/b/c empty
chmod 700 a/b
seq 10000 >a/numbers
ln a/numbers a/b/hard
ln a/numbers hard2
ln -s ../numbers a/b/soft
ln -s /nowhere/at/all dangling
printf x >'a name with spaces'
printf y >"$(printf 'new\nline')"
printf z >"$(printf '\377\376')"
printf w >"$(printf '%0255d' 0)"
: >zero
echo ro >readonly; chmod 400 readonly
echo prog >setid; chmod 6755 setid
mkdir sticky; chmod 1777 sticky
mkfifo fifo
truncate -s 20000000 sparse
printf data | dd of=sparse bs=1 seek=9999999 conv=notrunc status=none
touch -d '1999-12-31 23:59:59.123456789' a/numbers
# Not of the second in which they are copied: rsync takes those as right.
touch -h -d '2001-02-03 04:05:06.5' dangling a/b/soft fifo
for i in $(seq 300); do head -c $((i * 37)) /dev/urandom >a/b/c/$i; done`)
	if os.Geteuid() == 0 {
		// chown clears the set-id bits.
		harness.InDir(t, dir, "chown 12345:54321 a/b/hard zero; chown -h 12345:54321 dangling; chown 12345 setid; chmod 6755 setid")
	}
	harness.InDir(t, dir, "touch -d '2002-03-04 05:06:07.25' a/b/c a/b a empty sticky")
}

// listing is everything about a tree but its bytes, one line a file. The sizes
// of directories are the file system's own.
func listing(t testing.TB, dir string) string {
	t.Helper()
	return harness.InDir(t, dir, `find . -mindepth 1 -printf '%P %y %m %U %G %n %T@ %l' \( -type d -printf '\n' -o -printf ' %s\n' \) | LC_ALL=C sort`)
}

// wantTree fails the test unless dir has the bytes and everything else of want.
// Both may be on a mount.
func wantTree(t testing.TB, dir, want string) {
	t.Helper()
	if got, want := listing(t, dir), listing(t, want); got != want {
		t.Errorf("%s: got\n%s\nwant\n%s", dir, onlyIn(got, want), onlyIn(want, got))
	}
	sparse := func(after string) {
		t.Helper()
		if n := strings.TrimSpace(harness.InDir(t, dir, "du -k sparse | cut -f1")); len(n) > 4 {
			t.Errorf("after %s %s/sparse takes %s KiB: it is not sparse any more", after, dir, n)
		}
	}
	sparse("the copying")
	harness.RunFor(t, harness.ProgramLimit, "diff", "-r", "--no-dereference", "--exclude=fifo", want, dir)
	sparse("a read of it")
}

// onlyIn is the lines of a that b has not.
func onlyIn(a, b string) string {
	in := make(map[string]bool)
	for _, line := range strings.Split(b, "\n") {
		in[line] = true
	}
	var only []string
	for _, line := range strings.Split(a, "\n") {
		if !in[line] {
			only = append(only, line)
		}
	}
	return strings.Join(only, "\n")
}

// TestCopies takes a tree onto the mount and off it again by each of the usual
// programs; nothing of it may get lost.
func TestCopies(t *testing.T) {
	for _, c := range []struct{ tool, script string }{
		{"tar", `tar -C "$FROM" -cf - --format=posix --sparse . | tar -C "$TO" -xpf - --numeric-owner
			tar -C "$FROM" -cf - --format=posix . | tar -C "$TO" --compare -f - --numeric-owner`},
		{"cp", `cp -a --sparse=always "$FROM/." "$TO"`},
		{"rsync", `rsync -aHS --numeric-ids "$FROM/" "$TO/"
			test -z "$(rsync -aHSnic --numeric-ids --delete "$FROM/" "$TO/")"`},
	} {
		t.Run(c.tool, func(t *testing.T) {
			need.Tool(t, c.tool)
			harness.EachFS(t, func(t *testing.T, dir string) {
				m := harness.Mount(t, dir)
				top := harness.TempDir(t)
				source, back := harness.SubDir(t, top, "source"), harness.SubDir(t, top, "back")
				makeTree(t, source)
				copyTree := func(from, to string) {
					t.Helper()
					harness.InDir(t, "/", c.script, "FROM="+from, "TO="+to)
				}
				harness.Run(t, "mkdir", m.Path("copy"))
				copyTree(source, m.Path("copy"))
				wantTree(t, m.Path("copy"), source)
				copyTree(m.Path("copy"), back)
				wantTree(t, back, source)
				m.Unmount()
				wantTree(t, filepath.Join(dir, "copy"), source)
			})
		})
	}
}

// TestPipesOfPrograms is a day's work with small tools: sort, sed -i, split, gzip.
func TestPipesOfPrograms(t *testing.T) {
	const script = `
seq 20000 | awk '{ print $1 * 7919 % 20011, $1 }' >numbers
sort -n -S 64K -T . numbers >sorted
sed -i 's/^1/one/' sorted
split -l 1000 sorted part.
cat part.* | cmp - sorted
gzip -k sorted
zcat sorted.gz | cmp - sorted
dd if=sorted of=numbers bs=777 seek=3 conv=notrunc status=none
rm part.*
sha256sum numbers sorted`
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		plain := harness.SubDir(t, harness.TempDir(t), "plain")
		if got, want := harness.InDir(t, m.Dir, script), harness.InDir(t, plain, script); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got, want := harness.InDir(t, m.Dir, "ls"), harness.InDir(t, plain, "ls"); got != want {
			t.Errorf("ls: got %s, want %s", got, want)
		}
	})
}
