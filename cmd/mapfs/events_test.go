//go:build linux

package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRecentEvents(t *testing.T) {
	f := newFakeTree(t)
	text, err := os.ReadFile(filepath.Join(f.dir, ".mapfs/events"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"events", "--no-follow", "MNT"}, string(text)},
		{[]string{"events", "--no-follow", "MNT/sub"}, string(text)},
		{[]string{"events", "MNT/f", "--no-follow"}, lines[0] + lines[1] + lines[3] + lines[4]},
		{[]string{"events", "--no-follow", "MNT/sub/a b"}, lines[2] + lines[3]},
		{[]string{"events", "--no-follow", "MNT/empty"}, lines[3]},
	}
	for _, test := range tests {
		if got := f.runIn(test.args...); got != (outcome{stdout: test.want}) {
			t.Errorf("mapfs %q:\ngot  %+v\nwant %q", test.args, got, test.want)
		}
	}
}

// TestFollowEvents follows a FIFO: its reader waits, as that of events does.
// Each event must be shown at once, also one that arrives in two parts.
func TestFollowEvents(t *testing.T) {
	f := newFakeTree(t)
	fifo := filepath.Join(f.dir, ".mapfs/events")
	if err := os.Remove(fifo); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	events, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	shown, out := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- runOn(context.Background(), f.system, []string{"events", f.dir + "/f"}, strings.NewReader(""), out, io.Discard)
		out.Close()
	}()
	show := bufio.NewScanner(shown)
	for _, write := range []string{
		"T 1 write f offset=0\nT 2 write g offset=0\nT 3 wr",
		"ite f offset=4096\n",
	} {
		if _, err := events.WriteString(write); err != nil {
			t.Fatal(err)
		}
		if !show.Scan() {
			t.Fatal("the end, want an event")
		}
		if got := show.Text(); !strings.HasPrefix(got, "T 1 write f") && got != "T 3 write f offset=4096" {
			t.Errorf("got event %q", got)
		}
	}
	events.Close()
	if show.Scan() {
		t.Errorf("got %q after the end", show.Text())
	}
	if got := <-code; got != exitDone {
		t.Errorf("exit code %d at the end of the events, want %d", got, exitDone)
	}

	// Where nobody writes, --no-follow is at the end at once.
	if events, err = os.OpenFile(fifo, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	if _, err := events.WriteString("T 4 open f\n"); err != nil {
		t.Fatal(err)
	}
	if got := f.runIn("events", "--no-follow", "MNT"); got != (outcome{stdout: "T 4 open f\n"}) {
		t.Errorf("--no-follow: got %+v", got)
	}
}
