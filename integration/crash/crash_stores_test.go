package crash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

func init() { harness.AddVerb("boltcut", boltCut) }

// A store commits numbers, each in a transaction of its own, and says each when its commit
// has returned: a promise.
type store struct {
	name string
	cuts int // on each filesystem
	// commit is the command that commits numbers to a database, as many as it can; highest
	// returns the highest that is there, and fails if one below is missing or the database
	// is damaged.
	commit  func(db string) *exec.Cmd
	highest func(db string) (int, error)
	// forgets is how many promises at the end may be broken.
	forgets int
	// creates is the database's first commit, which need not be durable by itself.
	creates func(t *testing.T, db string)
}

// cutsOf is how many times the power is cut: all that a store says with MAPFS_FUZZ, a fifth
// without, for TestExplore tries the same stores.
func cutsOf(s store) int {
	if os.Getenv("MAPFS_FUZZ") != "" {
		return s.cuts
	}
	return lessIfSlow(s.cuts / 5)
}

// TestCrashStores cuts the power while stores commit: random sets of what is pending survive.
// What was promised must be there.
func TestCrashStores(t *testing.T) {
	for _, s := range []store{
		sqliteStore("EXTRA", 100, 0), sqliteStore("FULL", 20, 1), boltStore("sync", 100),
		lmdbStore(t, "sync", 100), lmdbStore(t, "writemap", 20),
	} {
		t.Run(s.name, func(t *testing.T) {
			harness.EachFS(t, func(t *testing.T, dir string) { cutStore(t, s, dir) })
		})
	}
}

func cutStore(t *testing.T, s store, dir string) {
	m := harness.Mount(t, dir, "history")
	db := m.Path("db")
	s.creates(t, db)
	harness.Run(t, harness.Binary, "ctl", m.Dir, "sync")
	random := rand.New(rand.NewPCG(1, 2))
	broken, promises := 0, 0
	cuts := cutsOf(s)
	for cut := range cuts {
		before, err := s.highest(db)
		if err != nil {
			t.Fatalf("before cut %d: %v", cut, err)
		}
		cmd := s.commit(db)
		harness.SetGroup(cmd)
		var out strings.Builder
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
		answer := powercut(t, m, fmt.Sprintf("keep=random seed=%d", random.Uint64()))
		_ = harness.WaitCmd(cmd, time.Minute) // it has met EIO, or was done
		promised := before
		for line := range strings.Lines(out.String()) {
			if n, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
				promised = n
			}
		}
		promises += promised - before
		got, err := s.highest(db)
		if err != nil || got < promised-s.forgets {
			t.Fatalf("cut %d: %d was promised and %d is there: %v\n%s", cut, promised, got, err, answer)
		}
		if got < promised {
			broken++
		}
	}
	t.Logf("%d power cuts, %d promises, %d of the newest broken", cuts, promises, broken)
	if promises < cuts/10 {
		t.Errorf("only %d promises were made: this shows little", promises)
	}
}

// sqliteStore is SQLite with a journal that is deleted, and a level of synchronous.
func sqliteStore(synchronous string, cuts, forgets int) store {
	run := func(db, script string) *exec.Cmd {
		cmd := exec.Command("sqlite3", "-batch", "-bail", db)
		cmd.Stdin = strings.NewReader("PRAGMA synchronous=" + synchronous + ";\n" + script)
		return cmd
	}
	return store{
		name: "SQLite " + synchronous, cuts: cuts, forgets: forgets,
		commit: func(db string) *exec.Cmd {
			return run(db, strings.Repeat("INSERT INTO t SELECT max(n)+1, hex(randomblob(50)) FROM t; SELECT max(n) FROM t;\n", 300))
		},
		highest: func(db string) (int, error) {
			out, err := harness.RunCmd(run(db, "PRAGMA integrity_check; SELECT max(n), count(*) FROM t;"), time.Minute)
			if err != nil {
				return 0, err
			}
			var highest, count int
			if _, err := fmt.Sscanf(strings.TrimPrefix(out, "ok\n"), "%d|%d", &highest, &count); err != nil || count != highest {
				return 0, fmt.Errorf("%q: %w", out, errors.Join(err, errors.New("damaged")))
			}
			return highest, nil
		},
		creates: func(t *testing.T, db string) {
			need.Tool(t, "sqlite3")
			if out, err := harness.RunCmd(run(db, "CREATE TABLE t(n INTEGER PRIMARY KEY, data); INSERT INTO t VALUES (1, 'x');"), time.Minute); err != nil {
				t.Fatal(err, out)
			}
		},
	}
}

// lmdbStore is LMDB with or without msync of its mapping, or without any sync.
func lmdbStore(t *testing.T, how string, cuts int) store {
	program := lmdbClient(t)
	return store{
		name: "LMDB " + how, cuts: cuts,
		commit: func(db string) *exec.Cmd { return exec.Command(program, db, how, "300") },
		highest: func(db string) (int, error) {
			out, err := harness.RunErr(program, db, how, "0")
			if err != nil {
				return 0, err
			}
			return strconv.Atoi(strings.TrimSpace(out))
		},
		creates: func(t *testing.T, db string) { harness.Run(t, program, db, how, "1") },
	}
}

// boltStore is bbolt.
func boltStore(how string, cuts int) store {
	return store{
		name: "bbolt " + how, cuts: cuts,
		commit: func(db string) *exec.Cmd { return harness.ClientCmd("boltcut", db, how, "300") },
		highest: func(db string) (int, error) {
			out, err := harness.RunCmd(harness.ClientCmd("boltcut", db, how, "0"), time.Minute)
			if err != nil {
				return 0, err
			}
			return strconv.Atoi(strings.TrimSpace(out))
		},
		creates: func(t *testing.T, db string) { harness.Client(t, "boltcut", db, how, "1") },
	}
}

// boltCut commits numbers to a bbolt database, or prints the highest that is there.
func boltCut(args []string) error {
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	db, err := bolt.Open(args[0], 0o644, &bolt.Options{Timeout: 10 * time.Second, NoSync: args[1] == "nosync", NoGrowSync: args[1] == "nogrowsync"})
	if err != nil {
		return err
	}
	highest := uint64(0)
	err = db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		b := tx.Bucket([]byte("b"))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			if highest++; binary.BigEndian.Uint64(k) != highest || len(v) != 100 {
				return fmt.Errorf("key %d is missing or damaged", highest)
			}
			return nil
		})
	})
	if err != nil || count == 0 {
		fmt.Println(highest)
		return err
	}
	for range count {
		highest++
		err := db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			return b.Put(binary.BigEndian.AppendUint64(nil, highest), make([]byte, 100))
		})
		if err != nil {
			return err
		}
		fmt.Println(highest)
	}
	return nil // without a close, which is no part of the promise
}

// lmdbClient builds the LMDB client.
func lmdbClient(t *testing.T) string {
	t.Helper()
	need.Tool(t, "gcc")
	program := filepath.Join(harness.TempDir(t), "lmdbcut")
	if out, err := harness.RunErr("gcc", "-Wall", "-o", program, harness.Repo("integration", "crash", "testdata", "lmdbcut.c"), "-llmdb"); err != nil {
		need.Missing(t, "liblmdb", "the client does not compile: %v %s", err, out)
	}
	return program
}

// TestCrashStoresWithoutSync shows what is lost without syncs, and that pending names it
// before.
func TestCrashStoresWithoutSync(t *testing.T) {
	for _, c := range []struct {
		store
		names string // a line of pending, without its number
	}{
		{sqliteStore("OFF", 0, 0), "write db 4096 4096 needs fsync db"},
		{sqliteStore("FULL", 0, 0), "unlink db-journal needs fsync ."},
		{boltStore("nosync", 0), "write db 0 4096 needs fsync db"},
		{lmdbStore(t, "nosync", 0), "write db 32 120 needs fsync db"},
	} {
		t.Run(c.name, func(t *testing.T) {
			harness.EachFS(t, func(t *testing.T, dir string) {
				m := harness.Mount(t, dir, "history")
				db := m.Path("db")
				c.creates(t, db)
				harness.Run(t, harness.Binary, "ctl", m.Dir, "sync")
				before, err := c.highest(db)
				if err != nil {
					t.Fatal(err)
				}
				if out, err := harness.RunCmd(c.commit(db), time.Minute); err != nil {
					t.Fatal(err, out)
				}
				named := false
				for line := range strings.Lines(pending(t, m)) {
					_, what, _ := strings.Cut(strings.TrimSpace(line), " ")
					named = named || strings.HasPrefix(what, c.names)
				}
				if !named {
					t.Errorf("pending does not name %q:\n%s", c.names, pending(t, m))
				}
				powercut(t, m, "")
				after, err := c.highest(db)
				if err != nil || after > before+299 {
					t.Errorf("%d is there after the cut, %d was before the commits: %v", after, before, err)
				}
				t.Logf("%d of 300 commits are lost", before+300-after)
			})
		})
	}
}
