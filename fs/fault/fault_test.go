package fault

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hits returns which of n fsyncs of a path, counted from 1, a rule hits.
func hits(t *testing.T, r Rule, path string, n int) (hit []int) {
	t.Helper()
	var s Set
	if _, err := s.Add(r); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= n; i++ {
		if a, ok := s.Match([]Op{Fsync}, []string{path}); ok {
			if a != r.Action {
				t.Errorf("the action is %+v, want %+v", a, r.Action)
			}
			hit = append(hit, i)
		}
	}
	if got := s.List()[0].Hits; got != uint64(len(hit)) {
		t.Errorf("%d hits are listed, want %d", got, len(hit))
	}
	return hit
}

func TestWhich(t *testing.T) {
	fails := Action{Errno: syscall.EIO}
	for _, c := range []struct {
		rule Rule
		want []int
	}{
		{Rule{Op: Fsync, Path: "*"}, []int{1, 2, 3, 4, 5, 6}},
		{Rule{Op: Any, Path: "*"}, []int{1, 2, 3, 4, 5, 6}},
		{Rule{Op: Write, Path: "*"}, nil},
		{Rule{Op: Fsync, Path: "g"}, nil},
		{Rule{Op: Fsync, Path: "*", Nth: 3}, []int{3, 4, 5, 6}},
		{Rule{Op: Fsync, Path: "*", Nth: 3, Count: 1}, []int{3}},
		{Rule{Op: Fsync, Path: "*", Count: 2}, []int{1, 2}},
		{Rule{Op: Fsync, Path: "*", Nth: 5, Count: 7}, []int{5, 6}},
		{Rule{Op: Fsync, Path: "*", Nth: 7}, nil},
		{Rule{Op: Fsync, Path: "*", Probability: 1, Count: 2}, []int{1, 2}},
	} {
		c.rule.Action = fails
		if got := hits(t, c.rule, "f", 6); !slices.Equal(got, c.want) {
			t.Errorf("%+v hits %v, want %v", c.rule, got, c.want)
		}
	}
}

func TestChance(t *testing.T) {
	rule := func(seed uint64) Rule {
		return Rule{Op: Fsync, Path: "*", Probability: 0.25, Seed: seed, Action: Action{Errno: syscall.EIO}}
	}
	first := hits(t, rule(1), "f", 4000)
	if n := len(first); n < 850 || n > 1150 {
		t.Errorf("%d of 4000 are hit with the probability 0.25", n)
	}
	if !slices.Equal(first, hits(t, rule(1), "f", 4000)) {
		t.Error("the same seed hits others the second time")
	}
	if slices.Equal(first, hits(t, rule(2), "f", 4000)) {
		t.Error("another seed hits the same")
	}
	limited := rule(1)
	limited.Count = 3
	if got := hits(t, limited, "f", 4000); !slices.Equal(got, first[:3]) {
		t.Errorf("with a count of 3, %v are hit, want %v", got, first[:3])
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		glob, path string
		want       bool
	}{
		{"*.wal", "a.wal", true}, {"*.wal", "d/a.wal", false}, {"**/*.wal", "a.wal", true}, {"**/*.wal", "d/e/a.wal", true},
		{"d/**", "d/e/f", true}, {"d/**", "e/f", false}, {"d/*", "d/e/f", false}, {"[ab].{db,wal}", "b.db", true},
		{"[ab].{db,wal}", "c.db", false}, {"a b", "a b", true}, {".", ".", true}, {"**", "x/y", true},
	} {
		got := hits(t, Rule{Op: Fsync, Path: c.glob, Action: Action{Errno: syscall.EIO}}, c.path, 1)
		if (len(got) == 1) != c.want {
			t.Errorf("%q hits %q: %v, want %v", c.glob, c.path, len(got) == 1, c.want)
		}
	}
}

// TestSeveral: every rule counts what suits it, the first that hits decides, and what
// is removed does nothing.
func TestSeveral(t *testing.T) {
	var s Set
	add := func(r Rule) int {
		n, err := s.Add(r)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	match := func() syscall.Errno {
		a, _ := s.Match([]Op{Rename}, []string{"a", "b"})
		return a.Errno
	}
	if s.Active() {
		t.Error("an empty set is active")
	}
	second := add(Rule{Op: Rename, Path: "b", Nth: 2, Count: 1, Action: Action{Errno: syscall.EIO}})
	all := add(Rule{Op: Rename, Path: "a", Action: Action{Errno: syscall.ENOSPC}})
	for i, want := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.ENOSPC} {
		if got := match(); got != want {
			t.Errorf("rename %d: %v, want %v", i, got, want)
		}
	}
	if !s.Active() || !s.Remove(all) || s.Remove(all) || match() != 0 || !s.Remove(second) || s.Active() {
		t.Error("removing the two went wrong")
	}
	if n := add(Rule{Op: Any, Path: "x", Action: Action{Delay: 1}}); n == all || n == second {
		t.Errorf("number %d is used again", n)
	}
}

func TestRefused(t *testing.T) {
	eio := Action{Errno: syscall.EIO}
	for _, c := range []struct {
		rule Rule
		why  string
	}{
		{Rule{Op: "sync", Path: "*", Action: eio}, "op=sync is none of read,"},
		{Rule{Op: Fsync, Path: "", Action: eio}, "no path"},
		{Rule{Op: Fsync, Path: "/f", Action: eio}, "no path"},
		{Rule{Op: Fsync, Path: "[", Action: eio}, "no valid glob"},
		{Rule{Op: Fsync, Path: "*"}, "nothing would happen"},
		{Rule{Op: Fsync, Path: "*", Probability: 1.5, Action: eio}, "between 0 and 1"},
		{Rule{Op: Read, Path: "*", Action: Action{Errno: syscall.EIO, Short: 1, IsShort: true}}, "exclude each other"},
		{Rule{Op: Fsync, Path: "*", Action: Action{Short: 1, IsShort: true}}, "moves no bytes"},
		{Rule{Op: Any, Path: "*", Action: Action{Short: 1, IsShort: true}}, "moves no bytes"},
		{Rule{Op: Write, Path: "*", Action: Action{IsShort: true}}, "at least one byte"},
		{Rule{Op: Write, Path: "*", Action: Action{Delay: -time.Second}}, "less than nothing"},
		{Rule{Op: Write, Path: "*", Action: Action{Errno: syscall.EIO, Then: Clean}}, "then="},
		{Rule{Op: Fsync, Path: "*", Action: Action{Delay: 1, Then: Clean}}, "then="},
		{Rule{Op: Fsync, Path: "*", Action: Action{Errno: syscall.EIO, Then: "dirty"}}, "none of clean"},
	} {
		var s Set
		if _, err := s.Add(c.rule); err == nil || !strings.Contains(err.Error(), c.why) || s.Active() {
			t.Errorf("%+v: %v, want %q", c.rule, err, c.why)
		}
	}
}
