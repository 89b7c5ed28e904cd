package explore

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"mapfs/fs/crash"
)

// mostFindings bounds the sorts of failures that are told of.
const mostFindings = 10

// explain finds the smallest losses, of each sort of failure one.
func (x *explorer) explain(ctx context.Context) (findings []Finding, err error) {
	left := slices.Clone(x.failures)
	sort.SliceStable(left, func(i, j int) bool { return left[i].lost < left[j].lost })
	deadline := time.Now().Add(max(x.o.Budget/3, minExplainTime))
	s := shrinker{x: x, ctx: ctx, deadline: deadline, verdicts: make(map[key]Verdict)}
	for len(left) > 0 && len(findings) < mostFindings && time.Now().Before(deadline) {
		found, pattern, err := s.shrink(&left[0])
		if err != nil {
			return nil, err
		}
		s.told = append(s.told, pattern)
		was := len(left)
		if left, err = s.others(left[1:], pattern); err != nil {
			return nil, err
		}
		found.States = was - len(left)
		if same := slices.IndexFunc(findings, found.isLike); same >= 0 {
			findings[same].States += found.States
			continue
		}
		found.ID = len(findings) + 1
		findings = append(findings, *found)
	}
	return findings, nil
}

// minExplainTime is given to explanations however small the budget is.
const minExplainTime = 20 * time.Second

// hasAll reports whether a set has all of another one.
func hasAll(set, of map[string]bool) bool {
	for p := range of {
		if !set[p] {
			return false
		}
	}
	return true
}

// others returns the failures that are not explained by a loss of the given patterns: they
// have no such loss, or would fail without it too. Of those that are alike in all they
// lose, one is tried.
func (s *shrinker) others(failures []failure, pattern map[string]bool) (left []failure, err error) {
	explained := make(map[string]bool)
	for i := range failures {
		f := &failures[i]
		if !hasAll(f.pattern, pattern) {
			left = append(left, *f)
			continue
		}
		key := strings.Join(slices.Sorted(maps.Keys(f.pattern)), "\n")
		if len(pattern) == 0 {
			key = fmt.Sprint(f.point)
		}
		good, tried := explained[key]
		if !tried {
			if good, err = s.goodWithout(f, pattern); err != nil {
				return nil, err
			}
			explained[key] = good
		}
		if !good {
			left = append(left, *f)
		}
	}
	return left, nil
}

// goodWithout reports whether the state of a failure is good if no operation of the given
// patterns is lost, or cannot be made: what else is lost takes them along.
func (s *shrinker) goodWithout(f *failure, pattern map[string]bool) (bool, error) {
	if time.Now().After(s.deadline) {
		return true, nil
	}
	p, err := at(s.x.o, f.point, nil)
	if err != nil {
		return false, err
	}
	defer p.close()
	if len(pattern) == 0 { // it fails when nothing is lost
		v, err := s.verdict(p, crash.Choice{All: true})
		return !v.Good, err
	}
	t, err := treeOf(p, f.choice)
	if err != nil {
		return false, err
	}
	choice := without(numbers(unlike(t.state.Lost, pattern))...)
	if t, err = treeOf(p, choice); err != nil || len(unlike(t.state.Lost, pattern)) < len(t.state.Lost) {
		return true, err
	}
	v, err := s.verdict(p, choice)
	return v.Good, err
}

// unlike returns the operations that are of none of the patterns.
func unlike(ops []*crash.Op, pattern map[string]bool) []*crash.Op {
	return slices.DeleteFunc(slices.Clone(ops), func(op *crash.Op) bool { return pattern[patternOf(op)] })
}

// isLike reports whether the same syncs are missing, or nothing is lost in both.
func (f *Finding) isLike(o Finding) bool {
	if len(f.Lost) == 0 && len(o.Lost) == 0 {
		return true
	}
	if len(f.Missing) == 0 || len(f.Missing) != len(o.Missing) {
		return false
	}
	for i := range f.Missing {
		a, b := &f.Missing[i], &o.Missing[i]
		if a.Path != b.Path || a.After.Number != b.After.Number {
			return false
		}
	}
	return true
}

// shrinker looks for the smallest loss of a failure.
type shrinker struct {
	x        *explorer
	ctx      context.Context
	deadline time.Time
	verdicts map[key]Verdict
	told     []map[string]bool // what the losses of earlier findings are alike in
}

// at returns a replay at a place, which the caller closes. In it inodes are synced after some
// operations, by number, that were not.
func at(o *Options, point uint64, syncs map[uint64][]crash.Inode) (*replay, error) {
	add := func(p *replay) {
		for _, i := range syncs[p.ops] {
			p.sync(&crash.Event{Kind: crash.EventSync, IsDir: p.inodes[i] != nil && p.inodes[i].isDir()}, i)
		}
		delete(syncs, p.ops)
	}
	p, err := eachEvent(o, func(p *replay, _ *crash.Event) error {
		add(p)
		if p.reached == point {
			return errEnough
		}
		return nil
	})
	if err == nil {
		add(p)
	}
	return p, err
}

// verdict checks the state that a choice leaves at the place of the replay.
func (s *shrinker) verdict(p *replay, choice crash.Choice) (v Verdict, err error) {
	return s.verdictWith(p, choice, len(p.promises))
}

// verdictWith is verdict as if there had been fewer promises.
func (s *shrinker) verdictWith(p *replay, choice crash.Choice, promises int) (v Verdict, err error) {
	t, err := treeOf(p, choice)
	if err != nil {
		return v, err
	}
	if s.x.o.Checker == nil {
		return unchecked(t, s.x.scan.promises, promises)
	}
	k := key{promises: promises}
	if k.tree, err = t.sum(); err != nil {
		return v, err
	}
	if v, known := s.verdicts[k]; known {
		return v, nil
	}
	dir := filepath.Join(s.x.o.Dir, "job-0", "state")
	if err := buildAt(t, dir); err != nil {
		return v, err
	}
	v, err = s.x.check(s.ctx, dir, k.promises)
	s.verdicts[k] = v
	return v, err
}

// shrink returns what there is to say of a failure, and what its loss is alike in.
func (s *shrinker) shrink(f *failure) (*Finding, map[string]bool, error) {
	p, err := at(s.x.o, f.point, nil)
	if err != nil {
		return nil, nil, err
	}
	defer p.close()
	choice, err := s.smallest(p, f.choice)
	if err != nil {
		return nil, nil, err
	}
	v, err := s.verdict(p, choice)
	if err != nil {
		return nil, nil, err
	}
	t, err := treeOf(p, choice)
	if err != nil {
		return nil, nil, err
	}
	found := &Finding{Event: p.reached, After: p.ops, Choice: choice, Status: v.Status, Output: v.Output}
	if n := len(p.promises); n > 0 {
		found.Promise = p.promises[n-1].text
	}
	for _, op := range t.state.Lost {
		found.Lost = append(found.Lost, operationOf(op))
	}
	unpromised, err := s.verdictWith(p, choice, 0)
	if err != nil {
		return nil, nil, err
	}
	found.Broken = unpromised.Good
	pattern := patternsOf(seeds(t, choice))
	if s.x.o.Device {
		return found, pattern, nil
	}
	if found.Differs, err = differences(t); err != nil {
		return nil, nil, err
	}
	found.Missing = s.missing(p, t, choice, found.Broken)
	if relied := s.relied(p, t); relied != nil && !found.Broken {
		op := operationOf(relied)
		found.Relied = &op
	}
	return found, pattern, s.tryFix(f.point, found)
}

// seeds are the lost operations that a choice names; the others are lost with them.
func seeds(t *tree, choice crash.Choice) []*crash.Op {
	if !choice.All {
		return t.state.Lost
	}
	return slices.DeleteFunc(slices.Clone(t.state.Lost), func(op *crash.Op) bool { return !slices.Contains(choice.Lose, op.Number) })
}

// smallest returns a choice that is not good either and loses as little as can be: none of
// the operations that it names can be spared.
func (s *shrinker) smallest(p *replay, choice crash.Choice) (crash.Choice, error) {
	t, err := treeOf(p, choice)
	if err != nil {
		return choice, err
	}
	lost := t.state.Lost
	lose := numbers(lost)
	fails := func(lose []uint64) bool {
		if err != nil || time.Now().After(s.deadline) {
			return false
		}
		var v Verdict
		v, err = s.verdict(p, without(lose...))
		return err == nil && !v.Good
	}
	if !fails(lose) {
		return choice, err // of some operation a part is lost
	}
	for _, pattern := range s.told {
		others := unlike(lost, pattern)
		if len(others) < len(lost) && fails(numbers(others)) {
			lost, lose = others, numbers(others)
		}
	}
	// The delta debugging of Zeller and Hildebrandt (2002), by complements.
	for parts := 2; len(lose) > 0; {
		reduced := false
		size := (len(lose) + parts - 1) / parts
		for from := 0; from < len(lose); from += size {
			rest := slices.Concat(lose[:from], lose[min(from+size, len(lose)):])
			if fails(rest) {
				lose, reduced = rest, true
				parts = max(parts-1, 2)
				break
			}
		}
		if !reduced {
			if size <= 1 {
				break
			}
			parts = min(parts*2, len(lose))
		}
	}
	return without(lose...), err
}
