//go:build linux

package main

import (
	"bytes"
	"context"
	"mapfs/cmd/mapfs/memory"
	"os"
	"regexp"
	"strings"
	"testing"
)

// clientDir is a directory with files for the verbs that map files themselves,
// as the working directory.
func clientDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	for name, text := range map[string]string{
		"f": "hello mapped world\n", "empty": "", "page": strings.Repeat("x", os.Getpagesize()),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// runWith is run with a stdin, and with the addresses of the output replaced,
// which differ from run to run.
func (f *fakeSystem) runWith(stdin string, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	code := runOn(context.Background(), f.system, args, strings.NewReader(stdin), &stdout, &stderr)
	return outcome{code, hideAddresses(stdout.String()), hideAddresses(stderr.String())}
}

var addresses = regexp.MustCompile(`\b[0-9a-f]{8,16}-[0-9a-f]{8,16} |0x[0-9a-f]{8,}`)

func hideAddresses(text string) string {
	return addresses.ReplaceAllStringFunc(text, func(address string) string {
		if strings.HasSuffix(address, " ") {
			return "START-END "
		}
		return "ADDR"
	})
}

func TestPeek(t *testing.T) {
	clientDir(t)
	failed := func(code int, stdout, sentence string) outcome {
		return outcome{code, stdout, "mapfs: " + sentence + "\n"}
	}
	const whole = "00000000  68 65 6c 6c 6f 20 6d 61  70 70 65 64 20 77 6f 72  |hello mapped wor|\n"
	const page1 = whole + "00000010  6c 64 0a 00 00 00 00 00  00 00 00 00 00 00 00 00  |ld..............|\n" +
		"00000020  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n*\n00001000\n"
	tests := []struct {
		args string
		want outcome
	}{
		{"peek f", outcome{stdout: whole + "00000010  6c 64 0a                                          |ld.|\n00000013\n"}},
		{"peek --raw f", outcome{stdout: "hello mapped world\n"}},
		{"peek --raw --private f", outcome{stdout: "hello mapped world\n"}},
		{"peek --raw --prot rw f", outcome{stdout: "hello mapped world\n"}},
		{"peek --offset 6 --length 6 f", outcome{stdout: "00000006  6d 61 70 70 65 64                                 |mapped|\n0000000c\n"}},
		{"peek --offset 6 --length=6 --raw f", outcome{stdout: "mapped"}},
		{"peek --offset 17 --length 4 --raw f", outcome{stdout: "d\n\x00\x00"}},
		{"peek --length 4k f", outcome{stdout: page1}},
		{"peek --length 8k f", failed(135, page1,
			"SIGBUS: load at address ADDR, page 1 of f (offset 4096): the page lies wholly past the end of the file; the file has 19 bytes in 1 page")},
		{"peek --offset 1M --length 1 f", failed(135, "",
			"SIGBUS: load at address ADDR, page 256 of f (offset 1048576): the page lies wholly past the end of the file; the file has 19 bytes in 1 page")},
		{"peek --prot none f", failed(139, "",
			"SIGSEGV: load at address ADDR, page 0 of f (offset 0): its protection, ---, forbids a load; the file has 19 bytes in 1 page")},
		{"peek empty", failed(exitFailed, "", "empty: nothing to map from offset 0 on, the file has 0 bytes; name a length to map past its end")},
		{"peek --length 0 f", failed(exitFailed, "", "mmap f: invalid argument (EINVAL): length is 0")},
		{"peek --offset 19 f", failed(exitFailed, "", "f: nothing to load at offset 19, the file ends before; name a --length to load past its end")},
		{"peek --prot w --open ro f", failed(exitFailed, "",
			"mmap f: permission denied (EACCES): the file is open read-only, and stores through a shared mapping (prot w) would change it")},
		{"peek no", failed(exitFailed, "", "open no: no such file or directory (ENOENT)")},
		{"peek .", failed(exitFailed, "", "mmap .: no such device (ENODEV): it is no file that can be mapped")},
	}
	for _, test := range tests {
		if os.Getpagesize() != 4096 && strings.Contains(test.want.stdout+test.want.stderr, "page 1") {
			continue // the words have other numbers there
		}
		if got := newFakeSystem().runWith("", strings.Fields(test.args)...); got != test.want {
			t.Errorf("mapfs %s:\ngot  %+v\nwant %+v", test.args, got, test.want)
		}
	}
}

func TestPoke(t *testing.T) {
	tests := []struct {
		args  []string
		stdin string
		want  outcome
		file  string // afterwards, if not as before
	}{
		{args: []string{"poke", "f", "0", "HELLO"}, file: "HELLO mapped world\n"},
		{args: []string{"poke", "--msync=sync", "-v", "f", "6", "MAPPED"}, file: "hello MAPPED world\n",
			want: outcome{stdout: "stored 6 bytes at offset 6, page 0, shared; msync sync\n"}},
		{args: []string{"poke", "--msync", "async", "f", "0x6", "MAPPED"}, file: "hello MAPPED world\n"},
		{args: []string{"poke", "f", "6", "-"}, stdin: "ma\x00ped", file: "hello ma\x00ped world\n"},
		{args: []string{"poke", "f", "6"}, stdin: "two\nlin", file: "hello two\nlinworld\n"},
		{args: []string{"poke", "f", "0", "--", "-x"}, file: "-xllo mapped world\n"},
		{args: []string{"poke", "-v", "--private", "f", "0", "X"},
			want: outcome{stdout: "stored 1 byte at offset 0, page 0, private: it is gone with this process; msync none\n"}},
		{args: []string{"poke", "-v", "--private", "--open", "ro", "f", "0", "X"},
			want: outcome{stdout: "stored 1 byte at offset 0, page 0, private: it is gone with this process; msync none\n"}},
		{args: []string{"poke", "f", "18", "!!!"}, file: "hello mapped world!",
			want: outcome{stderr: "mapfs: note: the file has 19 bytes; the last 2 stored are past its end and never reach it\n"}},
		{args: []string{"poke", "f", "100", "!!!"},
			want: outcome{stderr: "mapfs: note: the file has 19 bytes; the last 3 stored are past its end and never reach it\n"}},
		{args: []string{"poke", "f", "1M", "x"}, want: outcome{code: 135,
			stderr: "mapfs: SIGBUS: store at address ADDR, page 256 of f (offset 1048576): the page lies wholly past the end of the file; the file has 19 bytes in 1 page\n"}},
		{args: []string{"poke", "--prot", "r", "f", "0", "x"}, want: outcome{code: 139,
			stderr: "mapfs: SIGSEGV: store at address ADDR, page 0 of f (offset 0): its protection, r--, forbids a store; the file has 19 bytes in 1 page\n"}},
		{args: []string{"poke", "--open", "ro", "f", "0", "x"}, want: outcome{code: exitFailed,
			stderr: "mapfs: mmap f: permission denied (EACCES): the file is open read-only, and stores through a shared mapping (prot rw) would change it\n"}},
		{args: []string{"poke", "f", "0", "-"}, want: outcome{code: exitFailed, stderr: "mapfs: nothing to store: stdin is empty\n"}},
	}
	for _, test := range tests {
		if os.Getpagesize() != 4096 && test.want.code == 135 {
			continue // the page has another number there
		}
		clientDir(t)
		if got := newFakeSystem().runWith(test.stdin, test.args...); got != test.want {
			t.Errorf("mapfs %q:\ngot  %+v\nwant %+v", test.args, got, test.want)
		}
		want := test.file
		if want == "" {
			want = "hello mapped world\n"
		}
		if got, err := os.ReadFile("f"); err != nil || string(got) != want {
			t.Errorf("mapfs %q: the file has %q, %v, want %q", test.args, got, err, want)
		}
	}
}

// TestPokeAcrossPages checks the report of several pages.
func TestPokeAcrossPages(t *testing.T) {
	clientDir(t)
	if err := os.WriteFile("two", make([]byte, 2*os.Getpagesize()), 0o600); err != nil {
		t.Fatal(err)
	}
	got := newFakeSystem().runWith(strings.Repeat("y", os.Getpagesize()), "poke", "-v", "two", "100")
	if got.code != exitDone || !strings.Contains(got.stdout, "at offset 100, pages 0-1, shared") {
		t.Errorf("got %+v", got)
	}
}

func TestClientUsage(t *testing.T) {
	const numbers = "not a number of bytes, like 4096, 64k or 1G"
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"peek"}, "name a FILE"},
		{[]string{"peek", ""}, "FILE must not be empty"},
		{[]string{"peek", "f", "g"}, `unexpected argument "g" after FILE`},
		{[]string{"peek", "f", "--prot", "wr"}, `invalid argument "wr" for "--prot" flag: choose none, or letters of rwx in this order, like r or rw`},
		{[]string{"peek", "f", "--open", "w"}, `invalid argument "w" for "--open" flag: choose ro or rw`},
		{[]string{"peek", "f", "--offset", "-1"}, `invalid argument "-1" for "--offset" flag: ` + numbers},
		{[]string{"poke", "f"}, "name a FILE and the OFFSET to store at"},
		{[]string{"poke", "f", "x", "y"}, `OFFSET "x": ` + numbers},
		{[]string{"poke", "f", "0", ""}, "TEXT must not be empty"},
		{[]string{"poke", "f", "0", "a", "b"}, `unexpected argument "b"; a TEXT of several words is one argument, in quotes`},
		{[]string{"poke", "f", "0", "a", "--msync", "later"}, `invalid argument "later" for "--msync" flag: choose sync, async or none`},
		{[]string{"hold"}, "name a FILE"},
		{[]string{"hold", "f", "--print-every", "0"}, `invalid argument "0" for "--print-every" flag: more than 0 seconds`},
		{[]string{"ipc", "now"}, `unexpected argument "now" after ipc`},
		{[]string{"ipc", "--via", "mapping,smoke"}, "--via smoke: choose mapping, posix-shm, sysv-shm, pipe, socket, mqueue"},
		{[]string{"ipc", "--via", ""}, "--via: name at least one of mapping, posix-shm, sysv-shm, pipe, socket, mqueue"},
		{[]string{"ipc", "--size", "7"}, "--size 7: a message has 8 bytes, for its number, to 64M"},
		{[]string{"ipc", "--count", "0"}, "--count 0: choose 1 to 10000000 messages"},
	}
	for _, test := range tests {
		want := outcome{code: exitUsage, stderr: "mapfs: " + test.want + "; see 'mapfs --help'\n"}
		if got := newFakeSystem().run(test.args...); got != want {
			t.Errorf("mapfs %q:\ngot  %+v\nwant %+v", test.args, got, want)
		}
	}
}

func TestClientHelpAndCompletion(t *testing.T) {
	for _, verb := range []string{"peek", "poke", "hold", "ipc"} {
		got := newFakeSystem().run(verb, "--help")
		if got.code != exitDone || !strings.Contains(got.stdout, "Examples:\n  ") {
			t.Errorf("mapfs %s --help: got %+v", verb, got)
		}
	}
	if help := newFakeSystem().run("--help").stdout; strings.Contains(help, memory.IPCPeerName) {
		t.Errorf("mapfs --help shows %s, which is not for users", memory.IPCPeerName)
	}
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"peek", ""}, ":0\n"},
		{[]string{"peek", "f", ""}, ":4\n"},
		{[]string{"poke", ""}, ":0\n"},
		{[]string{"poke", "f", ""}, ":4\n"},
		{[]string{"hold", ""}, ":0\n"},
		{[]string{"ipc", ""}, ":4\n"},
		{[]string{"peek", "--prot", ""}, "none\nr\nrw\nw\nx\nrx\nrwx\n:4\n"},
		{[]string{"poke", "--msync", ""}, "sync\nasync\nnone\n:4\n"},
		{[]string{"hold", "--offset", ""}, ":4\n"},
		{[]string{"ipc", "--via", "pipe,s"}, "pipe,sysv-shm\npipe,socket\n:6\n"},
		{[]string{"ipc", "--dir", ""}, ":16\n"},
	}
	for _, test := range tests {
		if got := newFakeSystem().run(append([]string{"__complete"}, test.args...)...); got.stdout != test.want {
			t.Errorf("complete %q: got %q, want %q", test.args, got.stdout, test.want)
		}
	}
}
