package explore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
	"mapfs/fs/crash/explore"
	"mapfs/fs/crash/oracle"
)

// page is small writes' unit in the histories here: they are of a few thousand bytes.
const scale = 700

// makeRecording records a random history.
func makeRecording(t *testing.T, model crash.Model, seed uint64, steps int) (dir string) {
	t.Helper()
	dir, _ = makeHistory(t, model, seed, steps)
	return dir
}

// makeHistory is makeRecording with what the slow model knows of it.
func makeHistory(t *testing.T, model crash.Model, seed uint64, steps int) (dir string, slow *oracle.Model) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(crash.InitialDir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	log, err := crash.New(crash.Options{Model: model, PageSize: 4096, MaxMemory: 1 << 20, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Record(dir); err != nil {
		t.Fatal(err)
	}
	r := &recording{t: t, log: log, player: oracle.NewPlayer(seed, scale), random: rand.New(rand.NewPCG(seed, 2))}
	r.slow = oracle.Model{Name: model.Name(), Page: 4096}
	r.player.Page = 4096
	for range steps {
		r.step()
	}
	log.Promise("the last one")
	if err := log.EndRecording(); err != nil {
		t.Fatal(err)
	}
	log.Close()
	return dir, &r.slow
}

// recording is a history that is being recorded.
type recording struct {
	t      *testing.T
	log    *crash.Log
	player *oracle.Player
	slow   oracle.Model
	random *rand.Rand
	made   int
}

func (r *recording) step() {
	switch r.random.IntN(8) {
	case 0:
		var files []crash.Inode
		for i := range r.player.Now.Files {
			files = append(files, i)
		}
		if len(files) > 0 {
			// Of a map, in no order: the recording has which it was.
			r.sync(crash.Sync{Inode: files[r.random.IntN(len(files))], DataOnly: r.random.IntN(2) == 0})
		}
	case 1:
		dirs := r.player.Dirs()
		r.sync(crash.Sync{Inode: oracle.Pick(r.random, dirs), IsDir: true})
	case 2:
		r.made++
		r.log.Promise(fmt.Sprint("promise ", r.made))
	default:
		r.op()
	}
}

func (r *recording) op() {
	op, data, ok := r.player.Step()
	if !ok {
		return
	}
	switch op.Kind {
	case crash.Create:
		op.Made = &crash.Made{Mode: unix.S_IFREG | 0o644}
	case crash.Mkdir:
		op.Made = &crash.Made{Mode: unix.S_IFDIR | 0o755}
	case crash.Chmod:
		for _, value := range []*[]byte{&op.Old, &op.New} {
			mode := uint32(unix.S_IFREG | 0o644)
			if op.IsDir {
				mode = unix.S_IFDIR | 0o755
			}
			if len(*value) > 0 {
				mode = mode&^0o777 | 0o700 | uint32((*value)[0]-'0')
			}
			*value = crash.ModeValue(mode, uint32(os.Getuid()), uint32(os.Getgid()))
		}
	}
	r.slow.Add(op, data)
	if op.Kind.HasBytes() {
		var err error
		if op.Bytes, err = r.log.Keep(data); err != nil {
			r.t.Fatal(err)
		}
	}
	r.log.Add(&op)
}

func (r *recording) sync(y crash.Sync) {
	r.log.Sync(y)
	r.slow.Sync(y)
}

// lister is a checker that lists each state, with the promises.
type lister struct {
	mu     sync.Mutex
	states map[string]int
	bad    func(listing string, promises []string) bool
}

func (l *lister) Check(_ context.Context, dir string, promises []string) (explore.Verdict, error) {
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s %v", strings.TrimPrefix(path, dir), info.Mode())
		if !d.IsDir() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", text)
		}
		lines = append(lines, line)
		return nil
	})
	listing := strings.Join(lines, "\n")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states[fmt.Sprintf("%s\n%d promises", listing, len(promises))]++
	return explore.Verdict{Good: l.bad == nil || !l.bad(listing, promises)}, err
}

func run(t *testing.T, recording string, model crash.Model, checker explore.Checker, more func(*explore.Options)) *explore.Report {
	t.Helper()
	r, err := crash.OpenRecording(recording)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o := explore.Options{Recording: r, Model: model, Checker: checker, Budget: time.Minute, Seed: 1, Torn: 512, Jobs: 2, Dir: t.TempDir()}
	if more != nil {
		more(&o)
	}
	report, err := explore.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// TestStatesOnce: a state is looked at once, by what it is: two that look the same are one.
func TestStatesOnce(t *testing.T) {
	for _, model := range crash.Models() {
		for seed := range uint64(3) {
			dir := makeRecording(t, model, seed, 60)
			l := &lister{states: make(map[string]int)}
			report := run(t, dir, model, l, nil)
			for state, times := range l.states {
				if times != 1 {
					t.Fatalf("%s, seed %d: looked at %d times:\n%s", model.Name(), seed, times, state)
				}
			}
			if report.Checked != len(l.states) || report.Distinct != report.Checked || !report.Complete || report.Points == 0 {
				t.Errorf("%s, seed %d: %+v, and %d states were seen", model.Name(), seed, report, len(l.states))
			}
		}
	}
}

// TestStatesLegal holds the states at the end of histories to those that the slow model has:
// all are legal, and if few operations are pending, all that are legal are looked at.
func TestStatesLegal(t *testing.T) {
	const few = 8
	compared, all := 0, 0
	for _, model := range crash.Models() {
		for seed := range uint64(15) {
			dir, slow := makeHistory(t, model, seed, 40)
			slow.Bury()
			pending := slow.Pending()
			// A fallocate(2) that zeroes and makes longer survives in parts, too, which the
			// slow model has not.
			parts := slices.ContainsFunc(slow.Ops, func(d *oracle.Done) bool {
				return d.Kind == crash.Fallocate && d.Length > 0 && d.Size > d.OldSize && slices.Contains(pending, d.Number)
			})
			if len(pending) > few || parts {
				continue
			}
			legal, sizes := make(map[string]bool), make(map[string]bool)
			for set := range 1 << len(pending) {
				keep := make(map[uint64]bool)
				for i, number := range pending {
					keep[number] = set>>i&1 != 0
				}
				if slow.Legal(keep) {
					legal[listing(slow.Left(keep))] = true
					for _, w := range slow.LeftWithSizes(keep) {
						sizes[listing(w)] = true
					}
				}
			}
			l := &lister{states: make(map[string]int)}
			report := run(t, dir, model, l, func(o *explore.Options) { o.Torn = 0 })
			last := fmt.Sprintf("\n%d promises", report.Promises)
			seen := make(map[string]bool)
			for state := range l.states {
				if tree, atEnd := strings.CutSuffix(state, last); atEnd {
					seen[withoutModes(tree)] = true
				}
			}
			for state := range seen {
				if !sizes[state] {
					t.Errorf("%s, seed %d: this is not legal:\n%s\n%v", model.Name(), seed, state, slow)
				}
			}
			for state := range legal {
				if !seen[state] {
					t.Errorf("%s, seed %d: this was not looked at:\n%s\n%v", model.Name(), seed, state, slow)
				}
			}
			if t.Failed() {
				return
			}
			compared++
			all += len(legal)
		}
	}
	t.Logf("%d histories, %d states", compared, all)
	if compared < 20 || all < 70 {
		t.Errorf("only %d histories with %d states were compared: this shows little", compared, all)
	}
}

// listing lists a tree of the slow model as lister does, without modes.
func listing(w *oracle.World) string {
	var lines []string
	w.Walk(func(path string, inode crash.Inode, _ int) {
		if w.Dirs[inode] != nil {
			lines = append(lines, path)
		} else {
			lines = append(lines, fmt.Sprintf("%s %q", path, w.Files[inode]))
		}
	})
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// withoutModes takes the modes out of a listing.
func withoutModes(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		path, rest, _ := strings.Cut(line, " ")
		if _, bytes, found := strings.Cut(rest, " "); found {
			path += " " + bytes
		}
		if path != "" {
			lines = append(lines, path)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestRunAgain: the same seed makes the same report, however many work on it.
func TestRunAgain(t *testing.T) {
	dir := makeRecording(t, crash.Posix{}, 5, 80)
	var reports []string
	for _, jobs := range []int{1, 4, 2} {
		l := &lister{states: make(map[string]int), bad: func(listing string, promises []string) bool {
			return strings.Count(listing, "\n") < len(promises)%4
		}}
		report := run(t, dir, crash.Posix{}, l, func(o *explore.Options) { o.Jobs = jobs })
		report.Seconds = 0
		text, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		reports = append(reports, string(text))
		if report.Failures == 0 || len(report.Findings) == 0 {
			t.Error("nothing was found: this shows little")
		}
	}
	if reports[0] != reports[1] || reports[0] != reports[2] {
		t.Errorf("the reports differ:\n%s", strings.Join(reports, "\n"))
	}
}

// TestShards: the shards' states are those of the whole, each in one of them.
func TestShards(t *testing.T) {
	dir := makeRecording(t, crash.Ext4{}, 9, 80)
	whole := &lister{states: make(map[string]int)}
	run(t, dir, crash.Ext4{}, whole, nil)
	parts := &lister{states: make(map[string]int)}
	var reports []*explore.Report
	for n := range 3 {
		report := run(t, dir, crash.Ext4{}, parts, func(o *explore.Options) { o.Shard, o.Shards = n+1, 3 })
		report.Shard = fmt.Sprintf("%d/3", n+1)
		reports = append(reports, report)
	}
	if len(whole.states) != len(parts.states) || len(whole.states) < 10 {
		t.Errorf("%d states in all and %d in the parts", len(whole.states), len(parts.states))
	}
	for state, times := range parts.states {
		if whole.states[state] != 1 || times != 1 {
			t.Errorf("in %d parts, and %d times in the whole:\n%s", times, whole.states[state], state)
		}
	}
	merged, err := explore.Merge(reports)
	if err != nil || merged.Checked != len(whole.states) {
		t.Errorf("merged: %+v, %v", merged, err)
	}
	for _, some := range [][]*explore.Report{reports[:2], {reports[0], reports[1], reports[1]}, {{}}} {
		if _, err := explore.Merge(some); err == nil {
			t.Errorf("%d of 3 reports are taken for all", len(some))
		}
	}
}

// TestBudget: a search ends in time, and says that it is not complete.
func TestBudget(t *testing.T) {
	dir := makeRecording(t, crash.Posix{}, 3, 3000)
	l := &lister{states: make(map[string]int)}
	begun := time.Now()
	report := run(t, dir, crash.Posix{}, l, func(o *explore.Options) { o.Budget = 300 * time.Millisecond })
	if report.Complete || time.Since(begun) > 20*time.Second || report.Checked == 0 {
		t.Errorf("after %v: %+v", time.Since(begun), report)
	}
}

// TestMany: a recording of 100,000 operations is explored within the budget, from its
// beginning to its end, in memory that does not grow with it.
func TestMany(t *testing.T) {
	const operations, files = 100_000, 50
	dir := t.TempDir()
	if err := os.Mkdir(crash.InitialDir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	log, err := crash.New(crash.Options{Model: crash.Posix{}, PageSize: 4096, MaxMemory: 1 << 20, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.Record(dir); err != nil {
		t.Fatal(err)
	}
	for i := range crash.Inode(files) {
		name := fmt.Sprint("f", i)
		log.Add(&crash.Op{
			Kind: crash.Create, Inode: 2 + i, Entry: crash.Entry{Dir: oracle.Root, Name: name}, Path: name, DirPath: ".",
			Made: &crash.Made{Mode: unix.S_IFREG | 0o644},
		})
	}
	log.Sync(crash.Sync{Inode: oracle.Root, IsDir: true})
	random := rand.New(rand.NewPCG(1, 2))
	sizes := make([]int64, files)
	for n := range operations {
		i := random.IntN(files)
		data := bytes.Repeat([]byte{byte(n)}, 100+random.IntN(4000))
		kept, err := log.Keep(data)
		if err != nil {
			t.Fatal(err)
		}
		op := &crash.Op{
			Kind: crash.Write, Inode: crash.Inode(2 + i), Off: random.Int64N(64) * 4096, Length: int64(len(data)), OldSize: sizes[i],
			Bytes: kept, Path: fmt.Sprint("f", i),
		}
		sizes[i] = max(sizes[i], op.Off+op.Length)
		op.Size = sizes[i]
		log.Add(op)
		if n%10 == 0 {
			log.Sync(crash.Sync{Inode: op.Inode})
		}
		if n%1000 == 0 {
			log.Promise(fmt.Sprint(n))
		}
	}
	if err := log.EndRecording(); err != nil {
		t.Fatal(err)
	}
	var memory runtime.MemStats
	// What can be looked at in a time depends on who else the machine works for: a busy one
	// gets more of it.
	for budget := 5 * time.Second; ; budget *= 2 {
		l := &counter{promises: make(map[int]int)}
		begun := time.Now()
		report := run(t, dir, crash.Posix{}, l, func(o *explore.Options) { o.Budget = budget })
		took := time.Since(begun)
		runtime.ReadMemStats(&memory)
		t.Logf("%v: %d states, %d looked at, after %d different numbers of promises; %d MiB", took, report.States, report.Checked, len(l.promises), memory.Sys>>20)
		if report.Operations != operations+files || took > 8*budget {
			t.Errorf("%+v", report)
		}
		if raceDetector || report.Checked >= 20 && len(l.promises) >= 10 {
			break
		}
		if budget >= 20*time.Second {
			t.Errorf("%+v", report)
			break
		}
	}
	if memory.Sys > 800<<20 {
		t.Errorf("%d MiB of memory were taken", memory.Sys>>20)
	}
}

// counter is a checker that counts states by how many promises were made.
type counter struct {
	mu       sync.Mutex
	promises map[int]int
}

func (c *counter) Check(_ context.Context, _ string, promises []string) (explore.Verdict, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.promises[len(promises)]++
	return explore.Verdict{Good: true}, nil
}

// TestBroken: what is no recording, and a checker that cannot check, are errors.
func TestBroken(t *testing.T) {
	if _, err := crash.OpenRecording(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
	dir := makeRecording(t, crash.Posix{}, 1, 30)
	events := crash.EventsFile(dir)
	text, err := os.ReadFile(events)
	if err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string]string{
		"no JSON":        string(text) + "what\n",
		"of the future":  strings.Replace(string(text), `"version":1`, `"version":99`, 1),
		"no beginning":   string(text[strings.IndexByte(string(text), '\n')+1:]),
		"a kind unknown": strings.Replace(string(text), `"kind":"create"`, `"kind":"creature"`, 1),
	} {
		if err := os.WriteFile(events, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := crash.OpenRecording(dir)
		if err == nil {
			_, err = explore.Run(t.Context(), explore.Options{Recording: r, Model: crash.Posix{}, Budget: time.Second, Jobs: 1, Dir: t.TempDir()})
			r.Close()
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// A line that is not complete is one that is being written.
	if err := os.WriteFile(events, text[:len(text)-20], 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, dir, crash.Posix{}, nil, nil)
}
