package explore

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"mapfs/fs/crash"
)

// operationOf tells of an operation.
func operationOf(op *crash.Op) Operation { return Operation{op.Number, op.String()} }

// relied returns the first operation that can be seen in a tree and came after one that
// is lost; nil if there is none.
func (s *shrinker) relied(p *replay, t *tree) *crash.Op {
	if len(t.state.Lost) == 0 {
		return nil
	}
	for _, op := range s.x.scan.ops[t.state.Lost[0].Number:p.ops] {
		if !t.hasLost(op.Number) && t.isSeen(p, op) {
			return op
		}
	}
	return nil
}

// isSeen reports whether what an operation of the recording did can be seen in a tree: no
// lost name is above it.
func (t *tree) isSeen(p *replay, op *crash.Op) bool {
	i := op.Entry.Dir
	switch {
	case i == 0:
		i = op.Inode
	case op.To.Dir != 0:
		i = op.To.Dir
	}
	return t.isReachable(p.known[i])
}

// isReachable reports whether an inode has a name.
func (t *tree) isReachable(i crash.Inode) bool {
	for depth := 0; i != root && depth < maxDepth; depth++ {
		e, ok := t.entryOf(i)
		if !ok {
			return false
		}
		i = e.Dir
	}
	return i == root
}

// maxDepth is more than any tree is deep.
const maxDepth = 4096

// missing returns the syncs without which the operations could be lost that a choice
// names. Each is as late as it may be: before the first operation on something else that
// survives, as that relied on it; or, if only a promise is broken, before that. A file is
// synced before it is renamed, for it has another name then.
func (s *shrinker) missing(p *replay, t *tree, choice crash.Choice, promised bool) (missing []Sync) {
	for _, op := range seeds(t, choice) {
		for _, path := range p.log.Missing(op) {
			m := Sync{Path: path, inode: syncedBy(op, path)}
			if slices.ContainsFunc(missing, func(o Sync) bool { return o.inode == m.inode }) {
				continue
			}
			last, before := op, (*crash.Op)(nil)
			for _, next := range s.until(p, op.Number) {
				theirs := p.known[syncedBy(next, path)] == m.inode
				renamed := next.Kind == crash.Rename && p.known[next.Inode] == m.inode
				if renamed || !promised && !theirs && !t.hasLost(next.Number) && t.isSeen(p, next) {
					before = next
					break
				}
				if theirs {
					last = next
				}
			}
			m.After = operationOf(last)
			if before != nil {
				o := operationOf(before)
				m.Before = &o
			}
			missing = append(missing, m)
		}
	}
	return missing
}

// until returns the operations after the one with the number, up to the last promise
// before the place of the replay, or to that place.
func (s *shrinker) until(p *replay, number uint64) []*crash.Op {
	end := p.ops
	if n := len(p.promises); n > 0 && p.promises[n-1].after >= number {
		end = p.promises[n-1].after
	}
	return s.x.scan.ops[number:end]
}

// hasLost reports whether the operation with the number is lost, whole or in part.
func (t *tree) hasLost(number uint64) bool {
	_, found := slices.BinarySearchFunc(t.state.Lost, number, func(op *crash.Op, n uint64) int { return cmp.Compare(op.Number, n) })
	return found
}

// syncedBy returns what path is of those that an operation is to be synced by.
func syncedBy(op *crash.Op, path string) crash.Inode {
	switch {
	case op.Entry.Dir == 0:
		return op.Inode
	case op.Kind == crash.Rename && path == op.ToDirPath && path != op.DirPath:
		return op.To.Dir
	}
	return op.Entry.Dir
}

// tryFix checks the state of a finding with the syncs that it says are missing.
func (s *shrinker) tryFix(point uint64, found *Finding) error {
	if len(found.Missing) == 0 {
		return nil
	}
	syncs := make(map[uint64][]crash.Inode)
	for _, m := range found.Missing {
		syncs[m.After.Number] = append(syncs[m.After.Number], m.inode)
	}
	p, err := at(s.x.o, point, syncs)
	if err != nil {
		return err
	}
	defer p.close()
	choice := found.Choice
	pending := numbers(p.log.PendingOps())
	choice.Lose = slices.DeleteFunc(slices.Clone(choice.Lose), func(n uint64) bool { return !slices.Contains(pending, n) })
	v, err := s.verdict(p, choice)
	for i := range found.Missing {
		found.Missing[i].Prevents = err == nil && v.Good
	}
	return err
}

// mostDiffering bounds what differences tells.
const mostDiffering = 4

// differences says what of a tree is not as it would be had nothing been lost.
func differences(t *tree) (says []string, err error) {
	all, err := t.p.whole()
	if err != nil {
		return nil, err
	}
	entries := make(map[crash.Entry]bool)
	for e := range t.state.Names {
		entries[e] = true
	}
	for i := range all.state.Files {
		if n := t.p.inodes[i]; n != nil {
			for e := range n.names {
				entries[e] = true
			}
		}
	}
	for e := range entries {
		says = append(says, t.differsAt(all, e)...)
	}
	slices.Sort(says)
	if len(says) > mostDiffering {
		says = append(says[:mostDiffering], fmt.Sprintf("and %d more", len(says)-mostDiffering))
	}
	return says, nil
}

// differsAt says how an entry differs from that of another tree.
func (t *tree) differsAt(other *tree, e crash.Entry) []string {
	now, want := t.lookup(e), other.lookup(e)
	path := joinPath(t.pathOf(e.Dir), e.Name)
	switch {
	case now == 0 && want == 0:
		return nil
	case now == 0:
		return []string{path + " is missing"}
	case want == 0:
		return []string{path + " is there still"}
	case !t.p.inodes[now].hasData() || !t.p.inodes[want].hasData():
		if now == want {
			return nil
		}
		return []string{path + " is another one"}
	}
	size, wanted := t.size(now), other.size(want)
	switch {
	case size == 0 && wanted > 0:
		return []string{path + " is empty"}
	case size != wanted:
		return []string{fmt.Sprintf("%s has %d bytes instead of %d", path, size, wanted)}
	case t.isBlank(now) && !other.isBlank(want):
		return []string{path + " has only zeros"}
	}
	a, errA := t.sumOf(now)
	b, errB := other.sumOf(want)
	if errA == nil && errB == nil && a != b {
		return []string{path + " has other bytes"}
	}
	return nil
}

// pathOf returns what an inode is called in the tree: "." is the root, and what has no name.
func (t *tree) pathOf(i crash.Inode) string {
	var names []string
	for depth := 0; i != root && depth < maxDepth; depth++ {
		e, ok := t.entryOf(i)
		if !ok {
			break
		}
		names = append([]string{e.Name}, names...)
		i = e.Dir
	}
	if names == nil {
		return "."
	}
	return strings.Join(names, "/")
}

// entryOf returns the entry that leads to an inode; of several the first by its name.
func (t *tree) entryOf(i crash.Inode) (e crash.Entry, ok bool) {
	consider := func(at crash.Entry) {
		if !ok || at.Name < e.Name {
			e, ok = at, true
		}
	}
	for at, to := range t.state.Names {
		if to == i {
			consider(at)
		}
	}
	if n := t.p.inodes[i]; n != nil {
		for at := range n.names {
			if _, changed := t.names[at.Dir][at.Name]; !changed {
				consider(at)
			}
		}
	}
	return e, ok
}
