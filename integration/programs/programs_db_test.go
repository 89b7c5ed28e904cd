package programs

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

func init() {
	harness.AddVerb("bolt", clientBolt)
}

// sqliteWork fills, changes and shrinks a database in many transactions, some
// of them rolled back.
func sqliteWork(pragmas string) string {
	var b strings.Builder
	b.WriteString(pragmas)
	b.WriteString("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data BLOB);\nCREATE INDEX byname ON t(name);\n")
	for i := range 20 {
		fmt.Fprintf(&b, `BEGIN;
WITH RECURSIVE n(i) AS (SELECT %d UNION ALL SELECT i+1 FROM n WHERE i < %d)
INSERT INTO t SELECT i, 'name ' || (i * 7919 %% 2000), printf('%%0*d', i %% 500, i) FROM n;
COMMIT;
BEGIN; DELETE FROM t WHERE id %% 3 = 0; ROLLBACK;
UPDATE t SET data = data || 'x' WHERE id %% 17 = %d;
`, 1+i*100, 100+i*100, i%17)
	}
	b.WriteString("DELETE FROM t WHERE id % 5 = 0;\nVACUUM;\nPRAGMA integrity_check;\n")
	return b.String()
}

func sqlite(t testing.TB, db, script string) string {
	t.Helper()
	cmd := exec.Command("sqlite3", "-batch", "-bail", db)
	cmd.Stdin = strings.NewReader(script)
	out, err := harness.RunCmd(cmd, time.Minute)
	if err != nil {
		t.Fatalf("sqlite3 %s: %v", db, err)
	}
	return out
}

// TestSQLite runs SQLite in each of its ways to a file: pages by write(2) and a
// journal, a write-ahead log with its shared-memory index, and reads through a
// mapping of its own.
func TestSQLite(t *testing.T) {
	need.Tool(t, "sqlite3")
	for name, pragmas := range map[string]string{
		"rollback":      "PRAGMA journal_mode=DELETE;\n",
		"rollback-mmap": "PRAGMA journal_mode=TRUNCATE;\nPRAGMA mmap_size=268435456;\n",
		"wal":           "PRAGMA journal_mode=WAL;\nPRAGMA wal_autocheckpoint=20;\n",
		"wal-mmap":      "PRAGMA journal_mode=WAL;\nPRAGMA mmap_size=268435456;\n",
	} {
		t.Run(name, func(t *testing.T) {
			harness.EachFS(t, func(t *testing.T, dir string) {
				m := harness.Mount(t, dir)
				plain := filepath.Join(harness.TempDir(t), "plain.db")
				script := sqliteWork(pragmas)
				if got, want := sqlite(t, m.Path("a.db"), script), sqlite(t, plain, script); got != want {
					t.Errorf("output: got %q, want %q", got, want)
				}
				want := sqlite(t, plain, ".dump")
				if sqlite(t, m.Path("a.db"), ".dump") != want {
					t.Error("on the mount the database has another content than in a plain directory")
				}
				m.Unmount()
				if sqlite(t, filepath.Join(dir, "a.db"), ".dump") != want {
					t.Error("in BACKING the database has another content than in a plain directory")
				}
			})
		})
	}
}

// TestSQLiteTogether has several processes write one database at once: locks
// and, with a log, shared memory are between them.
func TestSQLiteTogether(t *testing.T) {
	need.Tool(t, "sqlite3")
	const writers, rows = 3, 40
	for _, mode := range []string{"DELETE", "WAL"} {
		t.Run(mode, func(t *testing.T) {
			harness.EachFS(t, func(t *testing.T, dir string) {
				m := harness.Mount(t, dir)
				db := m.Path("a.db")
				sqlite(t, db, "PRAGMA journal_mode="+mode+"; CREATE TABLE t(writer, n);")
				errs := make(chan error, writers)
				for w := range writers {
					script := ".timeout 60000\n" + strings.Repeat(fmt.Sprintf("INSERT INTO t SELECT %d, count(*) FROM t;\n", w), rows)
					go func() {
						cmd := exec.Command("sqlite3", "-batch", "-bail", db)
						cmd.Stdin = strings.NewReader(script)
						_, err := harness.RunCmd(cmd, 2*time.Minute)
						errs <- err
					}()
				}
				for range writers {
					if err := <-errs; err != nil {
						t.Error(err)
					}
				}
				// Each insert counted the rows before it: no two saw the same.
				got := sqlite(t, db, "SELECT count(*), count(DISTINCT n), max(n) FROM t; PRAGMA integrity_check;")
				if want := fmt.Sprintf("%d|%[1]d|%d\nok\n", writers*rows, writers*rows-1); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		})
	}
}

// TestLMDB writes with write(2) and reads through a shared mapping of the whole
// file: it depends on the kernel keeping the two the same.
func TestLMDB(t *testing.T) {
	for _, tool := range []string{"mdb_load", "mdb_dump", "mdb_stat", "mdb_copy"} {
		need.Tool(t, tool)
	}
	load := func(round int) string {
		var b strings.Builder
		b.WriteString("VERSION=3\nformat=print\ntype=btree\nmapsize=268435456\nHEADER=END\n")
		for i := range 3000 {
			fmt.Fprintf(&b, " key %d\n value %d %s\n", i*7919%4000, i, strings.Repeat(string(rune('a'+round)), 50+i%300))
		}
		b.WriteString("DATA=END\n")
		return b.String()
	}
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		mounted, plain := m.Path("db"), harness.SubDir(t, harness.TempDir(t), "db")
		harness.Run(t, "mkdir", mounted)
		for round := range 3 {
			for _, db := range []string{mounted, plain} {
				cmd := exec.Command("mdb_load", db)
				cmd.Stdin = strings.NewReader(load(round))
				if _, err := harness.RunCmd(cmd, time.Minute); err != nil {
					t.Fatalf("mdb_load: %v", err)
				}
			}
		}
		want := harness.Run(t, "mdb_dump", plain)
		if harness.Run(t, "mdb_dump", mounted) != want {
			t.Error("mdb_dump on the mount differs from the one in a plain directory")
		}
		if got, want := harness.Run(t, "mdb_stat", "-e", mounted), harness.Run(t, "mdb_stat", "-e", plain); got != want {
			t.Errorf("mdb_stat: got\n%s\nwant\n%s", got, want)
		}
		harness.Run(t, "mkdir", m.Path("copy"))
		harness.Run(t, "mdb_copy", "-c", mounted, m.Path("copy"))
		if harness.Run(t, "mdb_dump", m.Path("copy")) != want {
			t.Error("mdb_dump of the compacted copy differs")
		}
		m.Unmount()
		if harness.Run(t, "mdb_dump", filepath.Join(dir, "db")) != want {
			t.Error("mdb_dump in BACKING differs from the one in a plain directory")
		}
	})
}

// TestBolt is the same idea as LMDB's with a Go program, which grows its file
// and maps it anew.
func TestBolt(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		plain := filepath.Join(harness.TempDir(t), "plain.db")
		got, want := harness.Client(t, "bolt", m.Path("a.db"), "write"), harness.Client(t, "bolt", plain, "write")
		if got != want {
			t.Errorf("after writing: got %s, want %s", got, want)
		}
		if got := harness.Client(t, "bolt", m.Path("a.db"), "check"); got != want {
			t.Errorf("opened again: got %s, want %s", got, want)
		}
		m.Unmount()
		if got := harness.Client(t, "bolt", filepath.Join(dir, "a.db"), "check"); got != want {
			t.Errorf("in BACKING: got %s, want %s", got, want)
		}
	})
}

// clientBolt is `bolt FILE write|check`: it writes, changes and deletes keys in
// many transactions, or only opens; then checks the database and prints a
// digest of its content.
func clientBolt(args []string) (err error) {
	db, err := bolt.Open(args[0], 0o644, &bolt.Options{Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer func() {
		if e := db.Close(); err == nil {
			err = e
		}
	}()
	if args[1] == "write" {
		for round := range 30 {
			if err := db.Update(func(tx *bolt.Tx) error { return boltRound(tx, round) }); err != nil {
				return err
			}
		}
	}
	return db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		sum, keyN := sha256.New(), 0
		err := tx.Bucket([]byte("b")).ForEach(func(k, v []byte) error {
			keyN++
			fmt.Fprintf(sum, "%d %s %d %s\n", len(k), k, len(v), v)
			return nil
		})
		fmt.Fprintf(os.Stdout, "%d keys %x\n", keyN, sum.Sum(nil))
		return err
	})
}

// boltRound writes 100 keys of up to three pages each and deletes some old ones.
func boltRound(tx *bolt.Tx, round int) error {
	b, err := tx.CreateBucketIfNotExists([]byte("b"))
	if err != nil {
		return err
	}
	for i := range 100 {
		key := fmt.Appendf(nil, "key %d", (round*100+i)*7919%2500)
		if i%4 == 3 {
			err = b.Delete(key)
		} else {
			err = b.Put(key, bytes.Repeat([]byte{byte('a' + round%26)}, 1+(round*i*31)%12000))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
