// Package fault decides which operations of a mount fail because somebody asked for it.
//
// A [Set] has rules. Each says of which operations on which paths it speaks, which of
// those it hits, and what becomes of them. The package does nothing to an operation: it
// tells the caller what to do.
package fault

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bmatcuk/doublestar/v4"
)

// Op is a kind of operation.
type Op string

// The kinds. A client's msync(2) reaches a filesystem as fdatasync(2) does (mm/msync.c
// calls vfs_fsync_range with datasync set), so it counts as both.
const (
	Read      Op = "read"
	Write     Op = "write"
	Store     Op = "store" // bytes that a client stored through its own mapping
	Open      Op = "open"
	Create    Op = "create"
	Fsync     Op = "fsync"
	Fdatasync Op = "fdatasync"
	Msync     Op = "msync"
	Truncate  Op = "truncate"
	Fallocate Op = "fallocate"
	Rename    Op = "rename"
	Unlink    Op = "unlink"
	Link      Op = "link"
	Mkdir     Op = "mkdir"
	Any       Op = "any"
)

// kinds has every kind, in the order in which a message names them.
var kinds = []Op{Read, Write, Store, Open, Create, Fsync, Fdatasync, Msync, Truncate, Fallocate, Rename, Unlink, Link, Mkdir, Any}

// Then says in which state a failed write-back leaves the pages it should have written.
type Then string

// The states, and filesystems that behave so (Rebello et al., "Can Applications Recover
// from fsync Failures?", USENIX ATC 2020).
const (
	Keep   Then = "keep"   // changed, and written by the next write-back
	Clean  Then = "clean"  // taken for written, with the new bytes in memory: ext4, xfs
	Revert Then = "revert" // as they were before they changed: btrfs
)

// When says at what moment the power fails.
type When string

const (
	Before When = "before" // instead of the operation
	After  When = "after"
)

// Action is what becomes of an operation that a rule hits.
type Action struct {
	Delay time.Duration // before anything else
	Errno syscall.Errno // what it fails with; 0 if it does not fail
	Then  Then          // of a write-back that fails
	// Short is how many bytes of a read or write are done at most, if IsShort is set.
	Short   int
	IsShort bool
	// PowerCut is when the power fails; "" if it does not.
	PowerCut When
}

// Rule is one fault.
type Rule struct {
	Op Op
	// Path is a glob for paths from the root of the mount, without a slash in front. A
	// star does not match a slash; two stars between slashes match any directories.
	Path string
	// Nth is the first operation of those that suit, counted from 1, that is hit, and
	// Count how many are from there on; 0 is all.
	Nth, Count uint64
	// Probability, if it is not 0, is the chance of each of those to be hit. Seed
	// decides which.
	Probability float64
	Seed        uint64
	Action      Action
}

// Listed is a rule and what has come of it.
type Listed struct {
	Number int // as Add returned it
	Rule
	Hits uint64
}

// Set is the faults that are set. Its zero value has none. All methods may be called at
// the same time.
type Set struct {
	active atomic.Bool

	mu    sync.Mutex
	last  int
	rules []*rule
}

// rule is a Rule in use.
type rule struct {
	Listed
	seen, tried uint64 // operations that suited, and of those the ones due to be hit
	dice        *rand.Rand
}

// Active reports whether there is a rule. It is one load, for who asks before every
// operation.
func (s *Set) Active() bool { return s.active.Load() }

// Add adds a rule and returns its number. A rule that could never do anything is an
// error.
func (s *Set) Add(r Rule) (int, error) {
	if err := r.check(); err != nil {
		return 0, err
	}
	r.Nth = max(r.Nth, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.rules = append(s.rules, &rule{Listed: Listed{Number: s.last, Rule: r}, dice: rand.New(rand.NewPCG(r.Seed, 0))})
	s.active.Store(true)
	return s.last, nil
}

// check says what is wrong with r.
func (r *Rule) check() error {
	a := &r.Action
	moves := r.Op == Read || r.Op == Write || r.Op == Store
	syncs := r.Op == Fsync || r.Op == Fdatasync || r.Op == Msync
	switch {
	case !slices.Contains(kinds, r.Op):
		return fmt.Errorf("op=%s is none of %s", r.Op, names())
	case r.Path == "" || strings.HasPrefix(r.Path, "/"):
		return fmt.Errorf("path=%q is no path from the root of the mount, like 'dir/*.db'", r.Path)
	case !doublestar.ValidatePattern(r.Path):
		return fmt.Errorf("path=%q is no valid glob", r.Path)
	case r.Probability < 0 || r.Probability > 1:
		return fmt.Errorf("probability=%v is not between 0 and 1", r.Probability)
	case a.Errno == 0 && !a.IsShort && a.Delay == 0 && a.PowerCut == "":
		return errors.New("nothing would happen: one of errno=, short=, delay= and powercut= is needed")
	case a.PowerCut != "" && a.PowerCut != Before && a.PowerCut != After:
		return fmt.Errorf("powercut=%s is neither before nor after", a.PowerCut)
	case a.PowerCut == Before && (a.Errno != 0 || a.IsShort):
		return errors.New("powercut=before leaves nothing to fail: the operation is not done")
	case a.IsShort && a.Errno != 0:
		return errors.New("short= and errno= exclude each other: an operation that moves some bytes does not fail")
	case a.IsShort && !moves:
		return fmt.Errorf("short= is for read, write and store, and op=%s moves no bytes", r.Op)
	case a.Short < 0, a.IsShort && a.Short == 0 && r.Op != Read:
		return fmt.Errorf("short=%d: at least one byte has to be moved", a.Short)
	case a.Delay < 0:
		return fmt.Errorf("delay=%v is less than nothing", a.Delay)
	case a.Then != "" && (!syncs || a.Errno == 0):
		return errors.New("then= says what a failed write-back leaves: it needs errno=, and op=fsync, fdatasync or msync")
	case a.Then != "" && a.Then != Keep && a.Then != Clean && a.Then != Revert:
		return fmt.Errorf("then=%s is none of clean, keep, revert", a.Then)
	}
	return nil
}

func names() string {
	var all []string
	for _, op := range kinds {
		all = append(all, string(op))
	}
	return strings.Join(all, ", ")
}

// Remove ends a rule, and reports whether there was one of that number.
func (s *Set) Remove(number int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.rules)
	s.rules = slices.DeleteFunc(s.rules, func(r *rule) bool { return r.Number == number })
	s.active.Store(len(s.rules) > 0)
	return len(s.rules) < before
}

// List returns the rules in the order in which they were added.
func (s *Set) List() []Listed {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Listed, len(s.rules))
	for i, r := range s.rules {
		list[i] = r.Listed
	}
	return list
}

// Match says what becomes of an operation that is of all the given kinds, on all the
// given paths, and reports whether a rule hits it. Every rule that it suits counts it;
// the first that hits decides.
func (s *Set) Match(ops []Op, paths []string) (Action, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var hit *rule
	for _, r := range s.rules {
		if r.suits(ops, paths) && r.due() && hit == nil {
			hit = r
		}
	}
	if hit == nil {
		return Action{}, false
	}
	hit.Hits++
	return hit.Action, true
}

// suits reports whether r speaks of an operation.
func (r *rule) suits(ops []Op, paths []string) bool {
	if r.Op != Any && !slices.Contains(ops, r.Op) {
		return false
	}
	return slices.ContainsFunc(paths, func(path string) bool { return doublestar.MatchUnvalidated(r.Path, path) })
}

// due counts an operation that suits and reports whether it is one to hit.
func (r *rule) due() bool {
	r.seen++
	if r.seen < r.Nth || r.Count > 0 && r.tried >= r.Count {
		return false
	}
	if r.Probability > 0 && r.dice.Float64() >= r.Probability {
		return false
	}
	r.tried++
	return true
}
