package explore

import (
	"math/rand/v2"
	"slices"

	"mapfs/fs/crash"
)

// strategy is a way to choose what survives of the pending operations at a place. It calls
// yield for choices until it returns false.
type strategy func(c *chooser, yield func(crash.Choice) bool)

// chooser is what a strategy works with.
type chooser struct {
	log     *crash.Log
	pending []*crash.Op
	random  *rand.Rand // that depends on the seed and the place
	rounds  int        // how many random sets are tried
}

// mostSets is how many pending operations there may be for all sets of them to be tried.
const mostSets = 8

// mostPrefixes bounds the prefixes at a place; of more some are left out evenly.
const mostPrefixes = 64

// Of random sets mostRandom are tried in all, but at each place leastRandom.
const (
	mostRandom  = 1000
	leastRandom = 8
)

// strategies returns the ways in the order in which they are tried: those of a group one after
// the other at each place, for a group costs a replay.
func strategies(torn int64) [][]strategy {
	groups := [][]strategy{
		{chooseNone, chooseAll},
		{chooseAllButOne, chooseOnlyOne, choosePrefixes, chooseAllButAlike, chooseOnlyAlike, chooseSets},
		{chooseRandom(0)},
	}
	if torn > 0 {
		groups[2] = append(groups[2], chooseRandom(torn))
	}
	return groups
}

func chooseNone(_ *chooser, yield func(crash.Choice) bool) { yield(crash.Choice{}) }

func chooseAll(_ *chooser, yield func(crash.Choice) bool) { yield(crash.Choice{All: true}) }

func chooseAllButOne(c *chooser, yield func(crash.Choice) bool) {
	for _, op := range c.representatives() {
		if !yield(without(op.Number)) {
			return
		}
	}
}

func chooseOnlyOne(c *chooser, yield func(crash.Choice) bool) {
	for _, op := range c.representatives() {
		keep, err := c.log.Needs(op.Number)
		if err == nil && !yield(crash.Choice{Keep: keep}) {
			return
		}
	}
}

func choosePrefixes(c *chooser, yield func(crash.Choice) bool) {
	n := len(c.pending)
	step := max(n/mostPrefixes, 1)
	for k := 1; k < n; k += step {
		if !yield(without(numbers(c.pending[k:])...)) {
			return
		}
	}
}

func chooseAllButAlike(c *chooser, yield func(crash.Choice) bool) {
	for _, group := range c.groups() {
		if len(group) > 1 && !yield(without(numbers(group)...)) {
			return
		}
	}
}

func chooseOnlyAlike(c *chooser, yield func(crash.Choice) bool) {
	for _, group := range c.groups() {
		if len(group) < 2 {
			continue
		}
		var lose []uint64
		in := make(map[*crash.Op]bool)
		for _, op := range group {
			in[op] = true
		}
		for _, op := range c.pending {
			if !in[op] {
				lose = append(lose, op.Number)
			}
		}
		if !yield(without(lose...)) {
			return
		}
	}
}

func chooseSets(c *chooser, yield func(crash.Choice) bool) {
	n := len(c.pending)
	if n > mostSets {
		return
	}
	for set := range 1 << n {
		var lose []uint64
		for i, op := range c.pending {
			if set>>i&1 == 0 {
				lose = append(lose, op.Number)
			}
		}
		if !yield(without(lose...)) {
			return
		}
	}
}

func chooseRandom(torn int64) strategy {
	return func(c *chooser, yield func(crash.Choice) bool) {
		if len(c.pending) == 0 {
			return
		}
		for range c.rounds {
			if !yield(crash.Choice{Random: true, Seed: c.random.Uint64(), Torn: torn}) {
				return
			}
		}
	}
}

// without is all but operations of the given numbers.
func without(lose ...uint64) crash.Choice { return crash.Choice{All: true, Lose: lose} }

func numbers(ops []*crash.Op) []uint64 {
	var n []uint64
	for _, op := range ops {
		n = append(n, op.Number)
	}
	return n
}

// mostAlike is how many operations of a group are looked at one by one.
const mostAlike = 4

// representatives returns the pending operations, of many that are alike some only: the
// first ones and the last ones.
func (c *chooser) representatives() []*crash.Op {
	var some []*crash.Op
	for _, group := range c.groups() {
		if n := len(group); n > mostAlike {
			group = slices.Concat(group[:mostAlike/2], group[n-mostAlike/2:])
		}
		some = append(some, group...)
	}
	slices.SortFunc(some, func(a, b *crash.Op) int { return int(a.Number) - int(b.Number) })
	return some
}

// groups parts the pending operations by what they are alike in: kind, path but for its
// numbers, and whether they write over what was there.
func (c *chooser) groups() [][]*crash.Op {
	index := make(map[string]int)
	var groups [][]*crash.Op
	for _, op := range c.pending {
		key := patternOf(op)
		at, there := index[key]
		if !there {
			at = len(groups)
			index[key] = at
			groups = append(groups, nil)
		}
		groups[at] = append(groups[at], op)
	}
	return groups
}

// patternOf returns what operations that are alike have in common.
func patternOf(op *crash.Op) string {
	pattern := []byte(op.Kind.String() + " ")
	for _, path := range []string{op.Path, op.ToPath} {
		digits := false
		for _, c := range []byte(path) {
			if c < '0' || c > '9' {
				pattern = append(pattern, c)
			} else if !digits {
				pattern = append(pattern, '#')
			}
			digits = c >= '0' && c <= '9'
		}
		pattern = append(pattern, ' ')
	}
	if op.Kind.HasBytes() && op.Off < op.OldSize {
		pattern = append(pattern, "over"...)
	}
	return string(pattern)
}
