//go:build linux

package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"mapfs/cmd/mapfs/memory"
	"mapfs/internal/need"
)

// TestHold has conversations: what is said, and what is answered after the line
// about the mapping.
func TestHold(t *testing.T) {
	tests := []struct {
		name  string
		flags []string
		stdin string
		want  string
		code  int
		err   string
		file  string // afterwards, if not as before
	}{
		{name: "nothing"},
		{name: "load", stdin: "load 0 5\n\n# a comment\n  load 6 6  \nload 17 4", want: `"hello"` + "\n" + `"mapped"` + "\n" + `"d\n\x00\x00"` + "\n"},
		{name: "dump", stdin: "dump 0 5\n", want: "00000000  68 65 6c 6c 6f                                    |hello|\n00000005\n"},
		{name: "store", stdin: "store 0 HELLO\nload 0 7\nstore 5 \"\\n\\x00\"\nstore 12  two", want: "ok\n\"HELLO m\"\nok\nok\n",
			file: "HELLO\n\x00apped two" + "ld\n"},
		{name: "size", stdin: "size\nquit\nload 0 1\n", want: "19\n"},
		{name: "exit", stdin: "exit\n"},
		{name: "msync", stdin: "msync\nmsync async\nmsync sync,invalidate 0 4k\nmsync 0 10\nmsync invalidate\n", want: "ok\nok\nok\nok\nok\n"},
		{name: "wait", stdin: "wait 0.01\nwait 0\n", want: "ok\nok\n"},
		{name: "private", flags: []string{"--private"}, stdin: "store 0 HELLO\nload 0 5\nmadvise dontneed\nload 0 5\n",
			want: "ok\n\"HELLO\"\nok\n\"hello\"\n"},
		{name: "mprotect back", stdin: "mprotect none\nmprotect rw\nload 0 1\nmprotect r 0 4k\n", want: "ok\nok\n\"h\"\nok\n"},
		{name: "munmap all", stdin: "munmap 0 4k\n", want: "ok\n"},
		{name: "mprotect", stdin: "mprotect r\nload 0 5\nstore 0 x\nload 0 5\n", want: "ok\n\"hello\"\n", code: 139,
			err: "SIGSEGV: store at address ADDR, page 0 of f (offset 0): its protection, r--, forbids a store; the file has 19 bytes in 1 page"},
		{name: "munmap", stdin: "munmap 0 4k\nload 0 5\n", want: "ok\n", code: 139,
			err: "SIGSEGV: load at address ADDR, page 0 of f (offset 0): it was unmapped; the file has 19 bytes in 1 page"},
		{name: "past the end", flags: []string{"--length", "8k"}, stdin: "load 4095 2\n", code: 135,
			err: "SIGBUS: load at address ADDR, page 1 of f (offset 4096): the page lies wholly past the end of the file; the file has 19 bytes in 1 page"},
		{name: "wrong commands", code: exitFailed, err: "13 of the commands failed",
			stdin: "bla\nload\nload 1\nload x 1\nload 0 5k\nstore 5\nstore 0 \"x\nmsync later\nmsync 1 1\nmsync sync,async\n" +
				"mprotect q\nmadvise 0 1\nwait x\nsize\n",
			want: `error: no command "bla"; try help
error: load OFF LEN: name two numbers
error: load OFF LEN: name two numbers
error: load OFF LEN: not a number of bytes, like 4096, 64k or 1G
error: load: 5120 bytes at 0 are not inside the mapping, which has 4096 bytes
error: store OFF TEXT: name an offset and the text
error: store OFF TEXT: the quotes are not in order, or an escape is unknown
error: msync [FLAGS] [OFF LEN]: choose sync, async, invalidate
error: msync: invalid argument (EINVAL): offset 1 is not a multiple of the page size 4096
error: msync: invalid argument (EINVAL): sync and async exclude each other
error: mprotect PROT [OFF LEN]: choose none, or letters of rwx in this order, like r or rw
error: madvise ADVICE [OFF LEN]: choose normal, random, sequential, willneed, dontneed, cold, pageout, populate_read, populate_write
error: wait SECONDS: not a number of seconds
19
`},
	}
	if os.Getpagesize() != 4096 {
		need.Missing(t, "pages-of-4096", "pages have %d bytes here", os.Getpagesize())
	}
	for _, test := range tests {
		clientDir(t)
		perms := "rw-s"
		if len(test.flags) > 0 && test.flags[0] == "--private" {
			perms = "rw-p"
		}
		want := outcome{code: test.code, stdout: "START-END " + perms + " 00000000 f\n" + test.want}
		if test.err != "" {
			want.stderr = "mapfs: " + test.err + "\n"
		}
		if got := newFakeSystem().runWith(test.stdin, append([]string{"hold", "f"}, test.flags...)...); got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", test.name, got, want)
		}
		if test.file == "" {
			test.file = "hello mapped world\n"
		}
		if got, err := os.ReadFile("f"); err != nil || string(got) != test.file {
			t.Errorf("%s: the file has %q, %v, want %q", test.name, got, err, test.file)
		}
	}
}

// TestHoldArguments checks that they reach mmap(2) as they are.
func TestHoldArguments(t *testing.T) {
	clientDir(t)
	want := outcome{code: exitFailed, stderr: "mapfs: mmap f: invalid argument (EINVAL): offset 100 is not a multiple of the page size 4096\n"}
	if got := newFakeSystem().runWith("", "hold", "--offset", "100", "f"); os.Getpagesize() == 4096 && got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := newFakeSystem().runWith("", "hold", "--prot", "r", "f"); got.stdout != "START-END r--s 00000000 f\n" {
		t.Errorf("--prot r: got %+v", got)
	}
}

// TestHoldHelp checks that the list has every command, by trying them.
func TestHoldHelp(t *testing.T) {
	clientDir(t)
	for line := range strings.Lines(memory.HoldHelp) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(line, "   ") || name == "" {
			continue
		}
		if got := newFakeSystem().runWith(name+"\n", "hold", "f"); strings.Contains(got.stdout, "no command") {
			t.Errorf("%s is in the list: %+v", name, got)
		}
	}
	if got := newFakeSystem().runWith("help\n", "hold", "f"); !strings.HasSuffix(got.stdout, memory.HoldHelp) {
		t.Errorf("help: got %+v", got)
	}
}

// TestHoldInterrupted ends hold by a signal, while it waits for stdin and while
// it obeys.
func TestHoldInterrupted(t *testing.T) {
	clientDir(t)
	for _, command := range []string{"", "wait 60\n"} {
		f := newFakeSystem()
		arrived := make(chan os.Signal, 1)
		restored := false
		f.signals = func(bool) (<-chan os.Signal, func()) { return arrived, func() { restored = true } }
		time.AfterFunc(20*time.Millisecond, func() { arrived <- syscall.SIGINT })
		stdin, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := writer.WriteString(command); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		code := runOn(context.Background(), f.system, []string{"hold", "f"}, stdin, &stdout, &stderr)
		writer.Close()
		stdin.Close()
		if code != exitDone || stderr.Len() > 0 || !restored {
			t.Errorf("after %q: code %d, stderr %q, signals restored %v", command, code, stderr.String(), restored)
		}
	}
}

func TestHoldPrintEvery(t *testing.T) {
	clientDir(t)
	got := newFakeSystem().runWith("wait 0.2\nstore 0 H\nwait 0.2\n", "hold", "--print-every", "0.03", "f")
	for _, want := range []string{`"hello mapped world\n"` + "\n", `"Hello mapped world\n"` + "\n"} {
		if got.code != exitDone || !strings.Contains(got.stdout, want) {
			t.Errorf("got %+v, want a line %s", got, want)
		}
	}
}
