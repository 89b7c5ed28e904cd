//go:build linux

package main

import (
	"strings"
	"testing"

	"mapfs/docs/lab"
)

// TestLab is all that lab does without a terminal: no mount, no shell.
func TestLab(t *testing.T) {
	f := newFakeSystem()
	list := f.run("lab")
	if list.code != exitDone || list.stderr != "" {
		t.Errorf("lab: got %+v", list)
	}
	for _, e := range lab.Exercises() {
		if !strings.Contains(list.stdout, "  "+e.Title+"\n") {
			t.Errorf("the list has no %q:\n%s", e.Title, list.stdout)
		}
	}
	for _, number := range []string{"1", "01"} {
		if got := f.run("lab", number); got.code != exitDone || got.stdout != lab.Exercises()[0].Text+"\n" || got.stderr != "" {
			t.Errorf("lab %s: got %+v", number, got)
		}
	}
	for _, args := range [][]string{{"lab", "0"}, {"lab", "99"}, {"lab", "mapping"}, {"lab", ""}, {"lab", "1", "2"}} {
		if got := f.run(args...); got.code != exitUsage || got.stdout != "" || !strings.HasPrefix(got.stderr, "mapfs: ") {
			t.Errorf("%q: got %+v, want a usage error", args, got)
		}
	}
	if len(f.spawned) > 0 {
		t.Errorf("without a terminal there are mounts: %q", f.spawned)
	}
}

func TestLabCompletion(t *testing.T) {
	first := lab.Exercises()[0]
	got := newFakeSystem().run("__complete", "lab", "")
	if !strings.HasPrefix(got.stdout, "1\t"+first.Title+"\n2\t") || !strings.HasSuffix(got.stdout, ":36\n") {
		t.Errorf("lab: got %q", got.stdout)
	}
	if got := newFakeSystem().run("__complete", "lab", "1", ""); got.stdout != ":4\n" {
		t.Errorf("lab 1: got %q, want nothing", got.stdout)
	}
}
