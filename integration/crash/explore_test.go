package crash

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/fs/crash/explore"
	"mapfs/integration/harness"
	"mapfs/internal/need"
)

func init() { harness.AddVerb("msynccut", msyncCut) }

// workload is a program of which it is known whether a power cut breaks it.
type workload struct {
	name string
	// from makes the tree to begin with, run and check are scripts.
	from, run, check string
	// lost is by each model that it is tried by what is lost in the findings, none for a program that survives
	// all; each is the kinds and paths of the lost operations that come first.
	lost map[string][]string
}

// The check of a file that is saved: it has old or new bytes, and new ones if they were
// promised. That of a store: the numbers that were promised are there, which highest prints.
const (
	savedCheck = `case $(cat f) in new) ;; old) ! read promise;; *) echo "f is damaged"; exit 1;; esac`
	storeCheck = `promised=$(sed -n "s/^$said//p" | tail -n 1); there=$(highest) || { echo damaged; exit 2; }
[ "$there" -ge "${promised:-0}" ] || { echo "lost: $there of $promised"; exit 1; }`
	// The last promise may be broken here.
	storeCheckButOne = `promised=$(sed -n "s/^$said//p" | tail -n 1); there=$(highest) || { echo damaged; exit 2; }
[ "$there" -ge "$((${promised:-0} - 1))" ] || { echo "lost: $there of $promised"; exit 1; }`
	// All may be broken.
	storeCheckWhole = `there=$(highest) || { echo damaged; exit 2; }`
)

func both(lost ...string) map[string][]string {
	return map[string][]string{"posix": lost, "ext4": lost}
}

// posixOnly is for what is weaker than another workload that is tried by both models.
func posixOnly(lost ...string) map[string][]string { return map[string][]string{"posix": lost} }

// fileWorkloads are scripts that write files.
func fileWorkloads() []workload {
	const old = "echo old > f"
	return []workload{
		{"in place, fsync", old, `printf new | dd of=f conv=notrunc,fsync status=none; echo saved`, savedCheck, both()},
		{"rename", old, `echo new > t; mv t f; echo saved`, savedCheck,
			map[string][]string{"posix": {"write t", "rename t"}, "ext4": {"rename t"}}},
		{"fsync, rename", old, `echo new > t; sync t; mv t f; echo saved`, savedCheck, both("rename t")},
		{"fsync, rename, fsync of the directory", old, `echo new > t; sync t; mv t f; sync .; echo saved`, savedCheck, both()},
		{"mkdir, create, fsync of the file", "", `mkdir a; echo new > a/f; sync a/f; echo saved`, `read promise || exit 0; grep -q new a/f`,
			map[string][]string{"posix": {"create a/f", "mkdir a"}, "ext4": nil}},
		{"log, fsync when it is made", "", `: > log; sync log .; for i in 1 2 3; do printf 0005hello >> log; echo $i; done`, logCheck,
			both("write log")},
		{"log, fsync each", "", `for i in 1 2 3; do printf 0005hello >> log; sync log; echo $i; done`, logCheck,
			map[string][]string{"posix": {"create log"}, "ext4": nil}},
		{"msync MS_SYNC", "head -c 40960 /dev/zero > f", `"$CLIENT" client msynccut f sync`, mappedCheck, both()},
		{"msync MS_ASYNC", "head -c 40960 /dev/zero > f", `"$CLIENT" client msynccut f async`, mappedCheck, both("store f")},
	}
}

const (
	logCheck = `promised=$(tail -n 1); size=$(cat log 2>/dev/null | wc -c)
[ "$size" -ge "$((9 * ${promised:-0}))" ] || { echo "lost: $size bytes of $promised records"; exit 1; }`
	mappedCheck = `for n in $(cat); do [ "$(dd if=f bs=4096 skip=$n count=1 status=none | tr -d '\0')" = "page $n" ] || { echo "lost: page $n"; exit 1; }; done`
)

// msyncCut stores into the pages of a mapped file and says each that it has called msync(2)
// for.
func msyncCut(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, 10*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	flags := unix.MS_SYNC
	if args[1] == "async" {
		flags = unix.MS_ASYNC
	}
	for n := range 4 {
		page := mem[n*4096:][:4096]
		copy(page, fmt.Sprint("page ", n))
		if err := unix.Msync(page, flags); err != nil {
			return err
		}
		fmt.Println(n)
	}
	return nil
}

// sqliteWorkload is SQLite with a journal mode and a level of synchronous.
func sqliteWorkload(journal, synchronous, more, check string, lost map[string][]string) workload {
	pragma := fmt.Sprintf("PRAGMA journal_mode=%s; PRAGMA synchronous=%s; %s", journal, synchronous, more)
	return workload{
		name: strings.TrimSpace("SQLite " + journal + " " + synchronous + " " + more),
		from: `sqlite3 db "CREATE TABLE t(n INTEGER PRIMARY KEY, data)"`,
		run: `{ echo "` + pragma + `"; for i in 1 2; do
echo "INSERT INTO t VALUES ($i, hex(randomblob(2000))); SELECT 'committed ' || max(n) FROM t;"; done; } | sqlite3 -batch -bail db`,
		check: `said='committed '; highest() { sqlite3 db "PRAGMA integrity_check; SELECT coalesce(max(n), 0), count(*) FROM t" | { read ok && [ "$ok" = ok ] &&
IFS='|' read max count && [ "$max" = "$count" ] && echo "$max"; }; }
` + check,
		lost: lost,
	}
}

// storeWorkload is a store whose client commits numbers, and prints the highest one if it is
// to commit none.
func storeWorkload(name, client, how, check string, lost map[string][]string) workload {
	return workload{
		name: name + " " + how, from: client + " db " + how + " 1",
		run:   client + " db " + how + " 3",
		check: `said=; highest() { ` + client + ` db ` + how + ` 0; }` + "\n" + check,
		lost:  lost,
	}
}

func storeWorkloads(t *testing.T) []workload {
	need.Tool(t, "sqlite3")
	lmdb, bolt := lmdbClient(t), `"$CLIENT" client boltcut`
	unlink := both("unlink db-journal")
	return []workload{
		sqliteWorkload("DELETE", "EXTRA", "", storeCheck, both()),
		sqliteWorkload("TRUNCATE", "FULL", "", storeCheck, both()),
		sqliteWorkload("WAL", "FULL", "", storeCheck, both()),
		sqliteWorkload("WAL", "FULL", "PRAGMA mmap_size=1000000;", storeCheck, posixOnly()),
		sqliteWorkload("DELETE", "FULL", "", storeCheck, unlink),
		sqliteWorkload("DELETE", "FULL", "", storeCheckButOne, posixOnly()),
		sqliteWorkload("WAL", "NORMAL", "", storeCheck, both("write db-wal")),
		sqliteWorkload("WAL", "NORMAL", "", storeCheckWhole, posixOnly()),
		sqliteWorkload("DELETE", "OFF", "", storeCheck, both("*")),
		storeWorkload("LMDB", lmdb, "sync", storeCheck, both()),
		storeWorkload("LMDB", lmdb, "writemap", storeCheck, both()),
		storeWorkload("LMDB", lmdb, "nometasync", storeCheck, both("write db")),
		storeWorkload("LMDB", lmdb, "nometasync", storeCheckButOne, posixOnly()),
		storeWorkload("LMDB", lmdb, "nosync", storeCheck, both("*")),
		storeWorkload("LMDB", lmdb, "mapasync", storeCheck, both("*")),
		storeWorkload("bbolt", bolt, "sync", storeCheck, both()),
		storeWorkload("bbolt", bolt, "nosync", storeCheck, both("*")),
		storeWorkload("bbolt", bolt, "nogrowsync", storeCheck, both()),
	}
}

// TestExplore holds the search to programs of which it is known what a power cut does to
// them, by both models; the stores by ext4 all with MAPFS_FUZZ, some without.
func TestExplore(t *testing.T) {
	for _, w := range fileWorkloads() {
		for _, model := range []string{"posix", "ext4"} {
			t.Run(w.name+"/"+model, func(t *testing.T) { exploreWorkload(t, w, model) })
		}
	}
	for _, w := range storeWorkloads(t) {
		t.Run(w.name+"/posix", func(t *testing.T) { exploreWorkload(t, w, "posix") })
		_, known := w.lost["ext4"]
		if known && (os.Getenv("MAPFS_FUZZ") != "" || slices.Contains(someStores, w.name)) {
			t.Run(w.name+"/ext4", func(t *testing.T) { exploreWorkload(t, w, "ext4") })
		}
	}
}

// someStores are those of the stores that are tried in each run of the tests by the model ext4,
// and on ext4 itself: the others are with MAPFS_FUZZ.
var someStores = []string{"SQLite DELETE EXTRA", "SQLite WAL NORMAL", "LMDB nosync"}

// TestExploreReal holds ext4 itself to what the model ext4 says of the same programs: those
// that a power cut breaks, and those that none breaks.
func TestExploreReal(t *testing.T) {
	deviceOf(t, "ext4")
	files, stores := fileWorkloads(), storeWorkloads(t)
	budget := "1s"
	if os.Getenv("MAPFS_FUZZ") != "" {
		budget = "20s"
	} else {
		stores = slices.DeleteFunc(stores, func(w workload) bool { return !slices.Contains(someStores, w.name) })
	}
	for _, w := range append(files, stores...) {
		lost, known := w.lost["ext4"]
		if !known {
			continue
		}
		t.Run(w.name, func(t *testing.T) {
			budget := budget
			if len(lost) > 0 && os.Getenv("MAPFS_FUZZ") == "" {
				budget = "4s" // it must be found
			}
			r := exploreScript(t, w, "--fs", "ext4", "--budget", budget)
			if breaks := len(lost) > 0; breaks != (r.Failures > 0) || r.Checked == 0 {
				t.Errorf("a power cut breaks it: %v, by the model: %v\n%+v", r.Failures > 0, breaks, r)
			}
			t.Logf("%d states, %d not good", r.Checked, r.Failures)
		})
	}
}

func exploreWorkload(t *testing.T, w workload, model string) {
	begun := time.Now()
	want := w.lost[model]
	budget := "2m" // of all
	if len(want) > 0 {
		budget = "2s" // what is lost is found soon
	}
	r := exploreScript(t, w, "--model", model, "--budget", budget)
	var lost []string
	for _, f := range r.Findings {
		lost = append(lost, firstLost(&f))
	}
	same := len(lost) == len(want)
	for _, l := range want {
		same = same && strings.Contains("\n"+strings.Join(lost, "\n")+"\n", "\n"+l+"\n")
	}
	if len(want) == 1 && want[0] == "*" {
		same = len(lost) > 0
	}
	if !same {
		t.Errorf("lost in the findings: %q, want %q", lost, want)
	}
	if len(want) == 0 && !r.Complete {
		t.Errorf("the search is not complete after %v", time.Since(begun))
	}
	if !same || testing.Verbose() {
		text, err := json.MarshalIndent(r, "", " ")
		t.Log(string(text), err)
	}
}

// exploreScript explores a workload and returns the report.
func exploreScript(t *testing.T, w workload, flags ...string) *explore.Report {
	t.Helper()
	dir := harness.TempDir(t)
	from := filepath.Join(dir, "from")
	if err := os.Mkdir(from, 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CLIENT", exe)
	if w.from != "" {
		harness.InDir(t, from, w.from)
	}
	report := filepath.Join(dir, "report.json")
	args := append([]string{"crash", "--from", from, "--check", w.check, "--json", report}, flags...)
	out, err := harness.RunCmd(exec.Command(harness.Binary, append(args, "--", "sh", "-ec", w.run)...), 3*time.Minute)
	if code := harness.ExitCode(err); code != 0 && code != 3 {
		t.Fatalf("mapfs crash: %v\n%s", err, out)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	r := new(explore.Report)
	if err := json.Unmarshal(text, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// firstLost is the kind and the path of the first operation that a finding has lost.
func firstLost(f *explore.Finding) string {
	if len(f.Lost) == 0 {
		return ""
	}
	words := strings.SplitN(f.Lost[0].What, " ", 3)
	return words[0] + " " + words[1]
}
