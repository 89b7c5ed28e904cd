//go:build linux

package main

import (
	"mapfs/cmd/mapfs/cli"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func TestCtlAndMsync(t *testing.T) {
	refused := commandError{"msync: offset 100 is not a multiple of the page size 4096", syscall.EINVAL}
	denied := &os.PathError{Op: "open", Path: "ctl", Err: syscall.EACCES}
	tests := []struct {
		args    []string
		answer  string
		refusal error
		command string
		want    outcome
	}{
		{args: []string{"ctl", "MNT", "sync"}, command: "ctl sync\n"},
		{args: []string{"ctl", "MNT/sub", "sync"}, command: "ctl sync\n"},
		{args: []string{"ctl", "MNT/f", "madvise advice=cold"}, command: "files/f/ctl madvise advice=cold\n"},
		{args: []string{"ctl", "MNT", "mmap file=f name=x"}, answer: "7f0000300000\n", command: "ctl mmap file=f name=x\n",
			want: outcome{stdout: "7f0000300000\n"}},
		{args: []string{"ctl", "MNT", "sync\nmmap file=f name=x"}, answer: "ok\n7f0000300000\n", command: "ctl sync\nmmap file=f name=x\n",
			want: outcome{stdout: "7f0000300000\n"}},
		{args: []string{"ctl", "MNT/f", "msync offset=100"}, refusal: refused, command: "files/f/ctl msync offset=100\n",
			want: outcome{code: exitFailed, stderr: "mapfs: msync: offset 100 is not a multiple of the page size 4096\n"}},
		{args: []string{"ctl", "MNT/f", "mlock"}, refusal: denied, command: "files/f/ctl mlock\n",
			want: outcome{code: exitFailed, stderr: "mapfs: MNT/f: permission denied; only the owner of the mount and root may give commands\n"}},
		{args: []string{"ctl", "MNT/f", "mlock"}, refusal: &os.PathError{Op: "open", Path: "ctl", Err: syscall.EROFS}, command: "files/f/ctl mlock\n",
			want: outcome{code: exitFailed, stderr: "mapfs: MNT/f: the mount is read-only (-o ro), so the kernel refuses commands as it does every write\n"}},
		{args: []string{"ctl", "MNT", "mlock"}, refusal: syscall.ENOTCONN, command: "ctl mlock\n",
			want: outcome{code: exitFailed, stderr: "mapfs: MNT: the mount is gone, its daemon has ended\n"}},
		{args: []string{"ctl", "MNT/f", "mmap prot=w"}, refusal: commandError{"the file is open read-only", syscall.EACCES},
			command: "files/f/ctl mmap prot=w\n",
			want:    outcome{code: exitFailed, stderr: "mapfs: the file is open read-only\n"}},

		{args: []string{"msync", "MNT/f"}, command: "files/f/ctl msync flags=sync\n"},
		{args: []string{"msync", "MNT/sub/a b", "--async"}, command: "files/sub/a b/ctl msync flags=async\n"},
		{args: []string{"msync", "--invalidate", "MNT/f"}, command: "files/f/ctl msync flags=invalidate\n"},
		{args: []string{"msync", "--invalidate", "--sync", "MNT/f"}, command: "files/f/ctl msync flags=sync,invalidate\n"},
		{args: []string{"mode", "MNT/f", "staged"}, command: "files/f/ctl mode staged\n"},
		{args: []string{"msync", "--offset", "1M", "--length=0x1000", "MNT/f"},
			command: "files/f/ctl msync offset=1048576 length=4096 flags=sync\n"},
		{args: []string{"msync", "--offset=0", "--length=0", "MNT/f"},
			command: "files/f/ctl msync offset=0 length=0 flags=sync\n"},
		{args: []string{"msync", "MNT/.mapfs/mappings/mine"}, command: "mappings/mine/ctl msync flags=sync\n"},
	}
	for _, test := range tests {
		f := newFakeTree(t)
		if f.refusal = test.refusal; test.answer != "" {
			f.answer = test.answer
		}
		if got := f.runIn(test.args...); got != test.want {
			t.Errorf("mapfs %q:\ngot  %+v\nwant %+v", test.args, got, test.want)
		}
		if !slices.Equal(f.commands, []string{test.command}) {
			t.Errorf("mapfs %q: gave the commands %q, want %q", test.args, f.commands, test.command)
		}
	}
}

// TestRealCommand is about what needs no mount; a real ctl is tested elsewhere.
func TestRealCommand(t *testing.T) {
	ctl := filepath.Join(t.TempDir(), "ctl")
	if _, err := realCommand(ctl, "sync\n"); err == nil {
		t.Error("no ctl: got no error")
	}
	if err := os.WriteFile(ctl, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if answer, err := realCommand(ctl, "sync\n"); err != nil || answer != "" {
		t.Errorf("got answer %q, %v", answer, err)
	}
	if text, err := os.ReadFile(ctl); err != nil || string(text) != "sync\n" {
		t.Errorf("wrote %q, %v", text, err)
	}
}

func TestParseBytes(t *testing.T) {
	tests := []struct {
		text string
		want int64 // -1: an error
	}{
		{"0", 0}, {"4096", 4096}, {"010", 10}, {"1k", 1 << 10}, {"64K", 64 << 10}, {"3m", 3 << 20}, {"1M", 1 << 20},
		{"1g", 1 << 30}, {"2G", 2 << 30}, {"1T", 1 << 40}, {"0x1000", 4096}, {"0x10k", 16 << 10},
		{"9223372036854775807", 1<<63 - 1}, {"9223372036854775808", -1},
		{"8388607T", 8388607 << 40}, {"8388608T", -1},
		{"", -1}, {"k", -1}, {"-1", -1}, {"+1", -1}, {" 1", -1}, {"1 k", -1}, {"1kk", -1}, {"1.5M", -1},
		{"1_000", -1}, {"0x", -1}, {"1P", -1}, {"ten", -1},
	}
	for _, test := range tests {
		got, err := cli.ParseBytes(test.text)
		if test.want < 0 && err == nil || test.want >= 0 && (err != nil || got != test.want) {
			t.Errorf("ParseBytes(%q): got %d, %v, want %d", test.text, got, err, test.want)
		}
	}
}
