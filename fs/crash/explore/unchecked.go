package explore

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
)

// unchecked is the verdict on a state of a program that has no checker: what it cannot know
// by itself, and is never meant.
//
//   - A promise was made while something was pending, and the state differs by its loss.
//   - A name that was durable, and is there without the power cut, is missing.
//   - A file whose bytes were durable is empty, or has zeros only, and is not without the
//     power cut.
//
// A program that promises nothing has promised all it did by its end. made of its
// promises were made before the power cut.
func unchecked(t *tree, promises []promise, made int) (Verdict, error) {
	if broken, err := brokenPromise(t, promises, made); broken != "" || err != nil {
		return Verdict{Output: broken}, err
	}
	without, err := t.p.whole()
	if err != nil {
		return Verdict{}, err
	}
	durable, err := t.p.bare()
	if err != nil {
		return Verdict{}, err
	}
	var found []string
	for e := range t.state.Names {
		before, now := t.p.durableAt(e), t.lookup(e)
		after := without.lookup(e)
		path := joinPath(durable.pathOf(e.Dir), e.Name)
		switch {
		case before == 0 || after == 0 || t.p.inodes[before].isDir():
		case now == 0:
			found = append(found, path+" is missing: neither the old nor the new one is there")
		case t.isBlank(now) && !without.isBlank(after) && !durable.isBlank(before):
			found = append(found, path+" has lost its bytes: neither the old nor the new ones are there")
		}
	}
	for i := range t.state.Files {
		n := t.p.inodes[i]
		if n == nil || len(n.names) == 0 {
			continue
		}
		if t.isBlank(i) && !without.isBlank(i) && !durable.isBlank(i) {
			found = append(found, durable.pathOf(i)+" has lost its bytes: neither the old nor the new ones are there")
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	return Verdict{Good: len(found) == 0, Output: strings.Join(found, "\n")}, nil
}

// brokenPromise returns what of the last promise is lost, "" for nothing.
func brokenPromise(t *tree, all []promise, made int) (string, error) {
	until, what := uint64(0), ""
	switch {
	case made > 0:
		until, what = all[made-1].after, fmt.Sprintf("%q was promised", all[made-1].text)
	case len(all) == 0 && t.p.ended:
		until, what = t.p.ops, "it was done"
	default:
		return "", nil
	}
	var lost []uint64
	for _, op := range t.state.Lost {
		if op.Number <= until {
			lost = append(lost, op.Number)
		}
	}
	if len(lost) == 0 {
		return "", nil
	}
	kept, err := treeOf(t.p, without(lost...))
	if err != nil {
		return "", err
	}
	whole, err := t.p.whole()
	if err != nil {
		return "", err
	}
	if same, err := kept.isLike(whole); same || err != nil {
		return "", err // nobody can see it
	}
	return what + ", and is lost", nil
}

// durableAt returns what an entry durably leads to.
func (p *replay) durableAt(e crash.Entry) crash.Inode {
	if n := p.inodes[e.Dir]; n != nil {
		return n.entries[e.Name]
	}
	return 0
}

// isBlank reports whether a file has no byte but zeros.
func (t *tree) isBlank(i crash.Inode) bool {
	n := t.p.inodes[i]
	if n == nil || n.kind() != unix.S_IFREG {
		return false
	}
	bytes, err := t.bytesSum(i)
	return err == nil && bytes == sum{}
}

// joinPath is a path below one that is "." at the root.
func joinPath(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}
