package client

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseProt(t *testing.T) {
	const r, w, x = unix.PROT_READ, unix.PROT_WRITE, unix.PROT_EXEC
	tests := []struct {
		text  string
		want  Prot // -1: an error
		perms string
	}{
		{"none", 0, "---s"}, {"r", r, "r--s"}, {"w", w, "-w-s"}, {"x", x, "--xs"}, {"rw", r | w, "rw-s"},
		{"rx", r | x, "r-xs"}, {"wx", w | x, "-wxs"}, {"rwx", r | w | x, "rwxs"},
		{"", -1, ""}, {"wr", -1, ""}, {"rr", -1, ""}, {"R", -1, ""}, {"r,w", -1, ""}, {"nonex", -1, ""}, {"-", -1, ""},
	}
	for _, test := range tests {
		got, err := ParseProt(test.text)
		if test.want < 0 {
			if err == nil {
				t.Errorf("%q: got %v, want an error", test.text, got)
			}
			continue
		}
		if err != nil || got != test.want || got.String() != test.text || got.perms(false) != test.perms {
			t.Errorf("%q: got %d (%v, %s), %v; want %d", test.text, got, got, got.perms(false), err, test.want)
		}
	}
	if got := Prot(r).perms(true); got != "r--p" {
		t.Errorf("private: got %s, want r--p", got)
	}
}

func TestParseWords(t *testing.T) {
	for text, want := range map[string]int{
		"sync": unix.MS_SYNC, "async": unix.MS_ASYNC, "sync,invalidate": unix.MS_SYNC | unix.MS_INVALIDATE,
		"sync,async": unix.MS_SYNC | unix.MS_ASYNC, // for the kernel to refuse
	} {
		if got, err := ParseMsync(text); err != nil || got != want {
			t.Errorf("msync %q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "none", "sync,", "SYNC"} {
		if got, err := ParseMsync(text); err == nil {
			t.Errorf("msync %q: got %d, want an error", text, got)
		}
	}
	for _, name := range AdviceNames() {
		if _, err := ParseAdvice(name); err != nil {
			t.Errorf("madvise %q: %v", name, err)
		}
	}
	if got, err := ParseAdvice("remove"); err == nil {
		t.Errorf("madvise remove: got %d, want an error: it would change the file", got)
	}
}
