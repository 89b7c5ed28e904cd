package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// No run of a job takes this long on a peer that works.
const jobTimeout = 3 * time.Minute

// A key names a cell, or a job, of one peer on one ground.
type key struct{ ground, id, peer string }

// Results are all that a run has measured.
type results struct {
	cells  map[key]sample
	cpu    map[key]sample // by job: the daemon's processor time per unit, in seconds
	memory map[string]memory
	notes  []string // what could not be measured
}

func newResults() *results {
	return &results{
		cells:  make(map[key]sample),
		cpu:    make(map[key]sample),
		memory: make(map[string]memory),
	}
}

func (r *results) cell(g, id, peer string) sample { return r.cells[key{g, id, peer}] }

// A runner measures jobs on peers.
type runner struct {
	work     *workspace
	size     *sizes
	progress io.Writer
	logs     string // directory for the logs of daemons that fail
	res      *results

	// done and left are how many runs there were and are to be; spent is what those took.
	done, left int
	spent      time.Duration
}

// A turn is the jobs to run on one ground.
type turn struct {
	ground *ground
	jobs   []*job
	rounds int
}

// runs returns how many times the turn's jobs are run, over all rounds and peers.
func (t *turn) runs(j *job) int {
	rounds := t.rounds
	if j.rounds != 0 {
		rounds = min(rounds, j.rounds)
	}
	peers := 0
	for _, p := range t.ground.peers {
		if j.takesPart(p) {
			peers++
		}
	}
	return rounds * peers
}

// run says what it is going to do, and does it. From the first job on it says about how
// long the rest takes, if each run takes as long as those before did.
func (r *runner) run(ctx context.Context, turns []turn) error {
	left := 0
	for _, t := range turns {
		var names []string
		for _, j := range t.jobs {
			names = append(names, j.name)
			left += t.runs(j)
		}
		if len(names) > 0 {
			fmt.Fprintf(r.progress, "%s: %s\n", t.ground.name, strings.Join(names, ", "))
		}
	}
	fmt.Fprintf(r.progress, "%d runs, about %s\n", left, roughly(time.Duration(left)*r.size.perRun))
	r.left = left
	for _, t := range turns {
		if len(t.jobs) == 0 {
			continue
		}
		if err := r.onGround(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// roughly writes a duration as people say it.
func roughly(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%d s", max(1, int(d.Seconds()+0.5)))
	}
	return fmt.Sprintf("%d min", int(d.Minutes()+0.5))
}

// onGround runs the jobs on one ground. Their rounds are interleaved: in every round
// each peer has its turn, so that a change of the machine's speed meets them all.
func (r *runner) onGround(ctx context.Context, t turn) error {
	g, list, rounds := t.ground, t.jobs, t.rounds
	inputs := make(map[string]bool)
	for _, j := range list {
		inputs[j.input] = true
	}
	if err := g.prepare(ctx, inputs); err != nil {
		return fmt.Errorf("preparing %s: %w", g.name, err)
	}
	for _, j := range list {
		start := time.Now()
		if err := r.job(ctx, g, j, rounds); err != nil {
			return fmt.Errorf("%s on %s: %w", j.name, g.name, err)
		}
		r.done += t.runs(j)
		r.left -= t.runs(j)
		r.spent += time.Since(start)
		fmt.Fprintf(r.progress, "%-6s %-22s %6.1fs  about %s left\n", g.name, j.name, time.Since(start).Seconds(),
			roughly(r.spent/time.Duration(r.done)*time.Duration(r.left)))
	}
	return r.work.mounts.stopAll()
}

func (r *runner) job(ctx context.Context, g *ground, j *job, rounds int) error {
	if j.rounds != 0 {
		rounds = min(rounds, j.rounds)
	}
	if j.prepare != nil {
		if err := j.prepare(g); err != nil {
			return err
		}
	}
	failed := make(map[*peer]bool)
	for round := range rounds {
		for _, p := range g.peers {
			if failed[p] || !j.takesPart(p) {
				continue
			}
			err := r.once(ctx, g, j, p, round)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				failed[p] = true
				how, log := r.work.mounts.giveUp(p, g)
				r.res.note(r.work, "%s on %s, %s: %v %s", p.name, g.name, j.name, err, how)
				r.keepLog(p, j, log)
			}
		}
	}
	if j.clean != nil {
		return j.clean(g)
	}
	return nil
}

// keepLog says what a daemon logged until it failed, and keeps it all in a file.
func (r *runner) keepLog(p *peer, j *job, log string) {
	if strings.TrimSpace(log) == "" {
		return
	}
	path := filepath.Join(r.logs, fmt.Sprintf("%s-%s.log", p.slug(), strings.ReplaceAll(j.name, " ", "")))
	if err := os.WriteFile(path, []byte(log), 0o644); err != nil {
		fmt.Fprintln(r.progress, err)
		return
	}
	line, _, _ := strings.Cut(strings.TrimSpace(log), "\n")
	fmt.Fprintf(r.progress, "%s failed and said: %s ... (%s)\n", p.name, line, path)
}

func (j *job) takesPart(p *peer) bool {
	if j.peers == nil {
		return p.name != writeback && p.name != exclusive
	}
	return slices.Contains(j.peers, p.name)
}

// once runs the job once on one peer and keeps what it gives.
func (r *runner) once(ctx context.Context, g *ground, j *job, p *peer, round int) error {
	m, err := r.work.mounts.get(ctx, p, g, j.fresh)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	defer m.killIfStuck(ctx)()
	before, err := cpuTime(m.pid())
	if err != nil {
		return err
	}
	got, err := j.run(ctx, &target{mount: m, ground: g, size: r.size, round: round})
	if err != nil {
		return err
	}
	after, err := cpuTime(m.pid())
	if err != nil {
		return err
	}
	for id, values := range got.values {
		k := key{g.name, id, p.name}
		r.res.cells[k] = append(r.res.cells[k], values...)
	}
	if got.units == 0 {
		return errors.New("the client did nothing")
	}
	k := key{g.name, j.name, p.name}
	r.res.cpu[k] = append(r.res.cpu[k], (after-before).Seconds()/got.units)
	now, err := memoryOf(m.pid())
	if err != nil {
		return err
	}
	if g.name == onTmpfs && !j.apart {
		r.res.memory[p.name] = r.res.memory[p.name].max(now)
	}
	return nil
}

// note keeps a failure, in words that do not depend on where the run took place.
func (r *results) note(w *workspace, format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), w.dir, "WORK")
	r.notes = append(r.notes, strings.Join(strings.Fields(text), " "))
}

// choose returns the jobs of which pattern matches the name or a cell's id.
func choose(list []*job, pattern *regexp.Regexp) []*job {
	var chosen []*job
	for _, j := range list {
		hit := pattern.MatchString(j.name)
		for _, c := range j.cells {
			hit = hit || pattern.MatchString(c.id)
		}
		if hit {
			chosen = append(chosen, j)
		}
	}
	return chosen
}
