package programs

import (
	"os"
	"path/filepath"
	"testing"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// programsOfAll is what programs do in the modes that copy: git, SQLite and tar
// rename, lock, map, extend, cut and read back. It prints a sum of what it made.
const programsOfAll = `
set -e
git init -q r
(cd r; for i in $(seq 100); do seq $((i * 50)) >f$i; done; git add -A; git commit -qm x; git gc -q
git fsck --full --strict; test -z "$(git status --porcelain)") >&2
sqlite3 db 'pragma journal_mode=wal; create table t(a, b)' >&2
for i in $(seq 10); do
	sqlite3 db 'insert into t select value, randomblob(100) from generate_series(1, 100)'
done
test "$(sqlite3 db 'pragma integrity_check; select count(*) from t' | tr '\n' ' ')" = 'ok 1000 '
sqlite3 db2 'create table t(a, b); insert into t select value, randomblob(1000) from generate_series(1, 1000); delete from t where a % 2; vacuum'
test "$(sqlite3 db2 'pragma integrity_check; select count(*) from t' | tr '\n' ' ')" = 'ok 500 '
tar -C r -cf t.tar .
mkdir x
tar -C x -xf t.tar
diff -r r x
head -c 3000000 /dev/urandom >random
cp random copy
cmp random copy
dd if=random of=copy bs=1000 seek=500 conv=notrunc status=none
cat random t.tar db2 copy | md5sum
`

// TestProgramsStaged: programs find their files as they left them, and so does
// BACKING when the mount has ended.
func TestProgramsStaged(t *testing.T) {
	// So little memory that it is written back on the way.
	programsKeep(t, "mode=staged", "dirty_limit=2M")
}

// programsKeep runs the programs on a mount with the given options, and looks at what
// they made through it and in BACKING.
func programsKeep(t *testing.T, opts ...string) {
	t.Helper()
	need.Tool(t, "git")
	need.Tool(t, "sqlite3")
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir, opts...)
		sum := harness.InDir(t, m.Dir, programsOfAll, gitEnv...)
		m.Unmount()
		if got := harness.InDir(t, dir, "cat random t.tar db2 copy | md5sum"); got != sum {
			t.Errorf("BACKING: got %s, want %s", got, sum)
		}
		harness.InDir(t, dir, `diff -r r x; test "$(sqlite3 db 'pragma integrity_check')" = ok`)
		harness.InDir(t, dir, `cd r; git fsck --full --strict; test -z "$(git status --porcelain)"`, gitEnv...)
	})
}

// TestProgramsPrivate: the same, and nothing but names reaches BACKING.
func TestProgramsPrivate(t *testing.T) {
	need.Tool(t, "git")
	need.Tool(t, "sqlite3")
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir, "mode=private")
		harness.InDir(t, m.Dir, programsOfAll, gitEnv...)
		m.Unmount()
		err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			if err == nil && info.Mode().IsRegular() && info.Size() > 0 {
				t.Errorf("%s has %d bytes", path, info.Size())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}
