package control

import (
	"strings"
	"syscall"
	"testing"

	"mapfs/fs/wire"
)

// TestFaultCommand: a fault is listed as it was set, with what was left out where that
// is not nothing, and can be removed once.
func TestFaultCommand(t *testing.T) {
	tree, _, _ := commandTest(t)
	h := &ctlHandle{}
	for _, c := range []struct{ text, listed string }{
		{"fault op=fsync path=*.wal nth=3 count=1 errno=EIO", "op=fsync path=*.wal nth=3 count=1 errno=EIO hits=0"},
		{"fault op=fsync path=*.wal nth=3 errno=EIO then=keep", "op=fsync path=*.wal nth=3 count=1 errno=EIO then=keep hits=0"},
		{"fault op=any path=** errno=ENOSPC", "op=any path=** nth=1 errno=ENOSPC hits=0"},
		{`fault op=write path="a b/*" short=10 probability=0.5 seed=7`, `op=write path="a b/*" nth=1 probability=0.5 seed=7 short=10 hits=0`},
		{"fault op=read path=f delay=1500ms errno=EIO count=2 nth=4", "op=read path=f nth=4 count=2 errno=EIO delay=1.5s hits=0"},
	} {
		answer, err := h.run(&call{t: tree}, c.text)
		if err != nil {
			t.Fatalf("%q: %v", c.text, err)
		}
		number := strings.TrimSpace(answer)
		var b strings.Builder
		if err := tree.writeFaults(&b, nil, nil); err != nil || b.String() != number+" "+c.listed+"\n" {
			t.Errorf("%q is listed as %q, %v; want %q", c.text, b.String(), err, c.listed)
		}
		if answer, err := h.run(&call{t: tree}, "fault remove="+number); answer != "ok\n" || err != nil {
			t.Errorf("removing %s: %q, %v", number, answer, err)
		}
		if _, err := h.run(&call{t: tree}, "fault remove="+number); wire.ErrnoOf(err) != syscall.ENOENT {
			t.Errorf("removing %s again: %v, want ENOENT", number, err)
		}
	}
}

// TestFaultRefused: what cannot be done is EINVAL with a sentence, and sets nothing.
func TestFaultRefused(t *testing.T) {
	tree, _, _ := commandTest(t)
	for text, why := range map[string]string{
		"fault":                                                   "op= is missing",
		"fault op=fsync errno=EIO":                                "path= is missing",
		"fault op=sync path=f errno=EIO":                          "is none of read, write, store",
		"fault op=fsync path=[ errno=EIO":                         "no valid glob",
		"fault op=fsync path=/f errno=EIO":                        "from the root of the mount",
		"fault op=fsync path=f":                                   "nothing would happen",
		"fault op=fsync path=f errno=5":                           "no error's name",
		"fault op=fsync path=f errno=EWHAT":                       "no error's name",
		"fault op=fsync path=f errno=EIO nth=0":                   "nth=",
		"fault op=fsync path=f errno=EIO count=x":                 "count=",
		"fault op=fsync path=f errno=EIO probability=0":           "probability=",
		"fault op=fsync path=f errno=EIO probability=NaN":         "probability=",
		"fault op=fsync path=f errno=EIO seed=1":                  "probability=",
		"fault op=fsync path=f errno=EIO probability=0.1 seed=-1": "seed=",
		"fault op=write path=f short=-1":                          "short=",
		"fault op=write path=f short=1 errno=EIO":                 "exclude each other",
		"fault op=mkdir path=f short=1":                           "moves no bytes",
		"fault op=write path=f delay=1":                           "delay=",
		"fault op=write path=f delay=2m":                          "delay=",
		"fault op=write path=f errno=EIO then=clean":              "then=",
		"fault op=fsync path=f errno=EIO then=":                   "then=",
		"fault op=fsync path=f errno=EIO then=lost":               "then=",
		"fault op=fsync path=f errno=EIO then=clean":              "mode=staged",
		"fault op=fsync path=f errno=EIO how=x":                   "it takes op, path",
		"fault remove=1 op=fsync":                                 "stands alone",
		"fault remove=x":                                          "no number",
	} {
		_, err := (&ctlHandle{}).run(&call{t: tree}, text)
		if wire.ErrnoOf(err) != syscall.EINVAL || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want EINVAL and %q", text, err, why)
		}
	}
	if tree.s.Faults().Active() {
		t.Error("something was set")
	}
}
