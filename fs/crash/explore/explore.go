package explore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"mapfs/fs/crash"
)

// Options say what is explored, and how.
type Options struct {
	Recording *crash.Recording
	Model     crash.Model
	// Checker says which states are good; nil looks for what needs no checker: see
	// unchecked.
	Checker Checker
	// Device says that the recording is of the image of a device: its operations are no
	// business of the program's, and no missing sync is looked for.
	Device bool
	// Budget bounds the time of the search, in which the smallest losses are not looked
	// for yet.
	Budget time.Duration
	Seed   uint64
	// Torn is how many bytes of a page survive as one; 0 is the whole page.
	Torn int64
	// Jobs is how many checks run side by side.
	Jobs int
	// Of Shards parts of the states only number Shard is checked, from 1; 0 are all.
	Shard, Shards int
	// Dir is for states and contents: a directory that is empty.
	Dir string
	// Progress, if it is set, is told now and then how far the search is.
	Progress func(Progress)
}

// Progress is how far a search is.
type Progress struct {
	States, Distinct, Failures int
	Left                       time.Duration
}

// failure is a state that is not good.
type failure struct {
	point   uint64
	choice  crash.Choice
	lost    int // operations
	order   int // of all states
	verdict Verdict
	pattern map[string]bool // of the lost operations
}

// explorer is a search.
type explorer struct {
	o     *Options
	scan  *scan
	texts []string // of the promises

	states   int
	seen     map[key]bool
	progress time.Time
	deadline time.Time
	// prepared is told of each state that is out of the replay's hands.
	prepared sync.WaitGroup
	jobs     chan job

	mu       sync.Mutex
	failures []failure
	checked  int
	err      error
}

// key is what a check is told of: a tree, and how many promises were made.
type key struct {
	tree     sum
	promises int
}

// job is a state to check.
type job struct {
	tree     *tree
	losses   []*crash.Op
	promises int
	failure
}

// errBudget ends a search in time.
var errBudget = errors.New("the budget is used up")

// Run explores a recording.
func Run(ctx context.Context, o Options) (*Report, error) {
	begun := time.Now()
	s, err := scanRecording(&o)
	if err != nil {
		return nil, err
	}
	x := &explorer{o: &o, scan: s, seen: make(map[key]bool), deadline: begun.Add(o.Budget)}
	for _, p := range s.promises {
		x.texts = append(x.texts, p.text)
	}
	done, err := x.search(ctx)
	if err != nil {
		return nil, err
	}
	// In the order in which they were found by one worker.
	sort.Slice(x.failures, func(i, j int) bool { return x.failures[i].order < x.failures[j].order })
	r := x.report(done)
	if r.Findings, err = x.explain(ctx); err != nil {
		return nil, err
	}
	r.Seconds = time.Since(begun).Seconds()
	return r, nil
}

// search checks states until all are, or the budget is used up. done says that it was not.
func (x *explorer) search(ctx context.Context) (done bool, err error) {
	x.jobs = make(chan job)
	var workers sync.WaitGroup
	for n := range max(x.o.Jobs, 1) {
		dir := filepath.Join(x.o.Dir, fmt.Sprint("job-", n))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return false, err
		}
		workers.Go(func() { x.work(ctx, dir) })
	}
	defer workers.Wait()
	defer close(x.jobs)
	for _, points := range levels(x.scan.points) {
		for _, s := range strategies(x.o.Torn) {
			switch err := x.try(ctx, s, points); {
			case errors.Is(err, errBudget):
				return false, nil
			case err != nil:
				return false, err
			}
		}
	}
	return true, nil
}

// try checks the states of some strategies at some places.
func (x *explorer) try(ctx context.Context, s []strategy, points []uint64) error {
	at := 0
	look := func(p *replay) error {
		if at == len(points) || points[at] != p.reached {
			return nil
		}
		at++
		if err := x.tryAt(ctx, s, p); err != nil {
			return err
		}
		if at == len(points) {
			return errEnough
		}
		return nil
	}
	p, err := eachEvent(x.o, func(p *replay, _ *crash.Event) error { return look(p) })
	if err != nil {
		return err
	}
	defer p.close()
	if err := look(p); err != errEnough {
		return err
	}
	return nil
}

// tryAt checks the states of some strategies at the place of the replay.
func (x *explorer) tryAt(ctx context.Context, s []strategy, p *replay) (err error) {
	defer x.prepared.Wait() // the replay goes on then
	c := &chooser{
		log: p.log, pending: p.log.PendingOps(), random: rand.New(rand.NewPCG(x.o.Seed, p.reached)),
		rounds: max(mostRandom/len(x.scan.points), leastRandom),
	}
	for _, choose := range s {
		choose(c, func(choice crash.Choice) bool {
			err = x.state(ctx, p, choice)
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// state has a state checked, unless it was seen.
func (x *explorer) state(ctx context.Context, p *replay, choice crash.Choice) error {
	x.mu.Lock()
	err := x.err
	x.mu.Unlock()
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case time.Now().After(x.deadline):
		return errBudget
	}
	state, err := p.log.Cut(choice)
	if err != nil {
		return fmt.Errorf("a state that is not legal was chosen: %w", err)
	}
	x.states++
	t := newTree(p, state)
	k := key{promises: len(p.promises)}
	if k.tree, err = t.sum(); err != nil {
		return err
	}
	x.tell()
	if x.seen[k] {
		return nil
	}
	x.seen[k] = true
	if x.o.Shards > 1 && int(k.tree[0]%uint64(x.o.Shards)) != x.o.Shard-1 {
		return nil
	}
	j := job{tree: t, promises: k.promises, failure: failure{point: p.reached, choice: choice, lost: len(state.Lost), order: x.states}}
	if x.o.Checker == nil {
		j.losses = state.Lost
		j.verdict, err = unchecked(t, x.scan.promises, k.promises)
		x.checkedOne(&j, err)
		return err
	}
	x.prepared.Add(1)
	x.jobs <- j
	return nil
}

// tell tells of the progress, but not all the time.
func (x *explorer) tell() {
	now := time.Now()
	if x.o.Progress == nil || now.Sub(x.progress) < 100*time.Millisecond {
		return
	}
	x.progress = now
	x.mu.Lock()
	failures := len(x.failures)
	x.mu.Unlock()
	x.o.Progress(Progress{x.states, len(x.seen), failures, max(x.deadline.Sub(now), 0)})
}

// work checks states in a directory of its own.
func (x *explorer) work(ctx context.Context, dir string) {
	for j := range x.jobs {
		at := filepath.Join(dir, "state")
		err := buildAt(j.tree, at)
		j.losses, j.tree = j.tree.state.Lost, nil
		x.prepared.Done()
		if err == nil {
			j.verdict, err = x.check(ctx, at, j.promises)
		}
		x.checkedOne(&j, err)
	}
}

// check has the checker look at the state in a directory, after so many promises, and removes
// it.
func (x *explorer) check(ctx context.Context, dir string, promises int) (Verdict, error) {
	v, err := x.o.Checker.Check(ctx, dir, x.texts[:promises])
	if err == nil {
		err = RemoveAll(dir)
	}
	return v, err
}

// buildAt makes a tree in a new directory.
func buildAt(t *tree, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return t.build(dir)
}

// checkedOne notes the verdict on a state.
func (x *explorer) checkedOne(j *job, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.checked++
	switch {
	case err != nil:
		x.err = errors.Join(x.err, err)
	case !j.verdict.Good:
		j.pattern = patternsOf(j.losses)
		x.failures = append(x.failures, j.failure)
	}
}

// patternsOf returns what the operations are alike in.
func patternsOf(ops []*crash.Op) map[string]bool {
	patterns := make(map[string]bool)
	for _, op := range ops {
		patterns[patternOf(op)] = true
	}
	return patterns
}
