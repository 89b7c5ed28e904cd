//go:build linux

package main

import (
	"strings"
	"testing"

	"mapfs/cmd/mapfs/ctltree"
	"mapfs/internal/quote"
)

func TestStatusAndMaps(t *testing.T) {
	f := newFakeTree(t)
	maps := strings.SplitAfter(`7f0000000000-7f0000040000 rw-s 00000000 08:01 12 f
7f0000100000-7f0000140000 rw-s 00000000 08:01 13 "sub/a b"
7f0000200000-7f0000201000 r--p 00001000 08:01 12 f mine
`, "\n")
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"status", "MNT"}, "version test\npage_size 4096\nfiles 2\n"},
		{[]string{"status", "MNT/sub"}, "version test\npage_size 4096\nfiles 2\n"},
		{[]string{"status", "MNT/sub/a b"}, "path \"sub/a b\"\nmode shared\nsize 5\n"},
		{[]string{"status", "MNT/.mapfs/mappings/mine"}, "addr 7f0000200000\nlength 4096\nflags private\n"},
		{[]string{"maps", "MNT"}, strings.Join(maps, "")},
		{[]string{"maps", "MNT/f"}, maps[0] + maps[2]},
		{[]string{"maps", "MNT/sub/a b"}, maps[1]},
		{[]string{"maps", "MNT/empty"}, ""},
		{[]string{"maps", "MNT/.mapfs/mappings/mine"}, maps[2]},
	}
	for _, test := range tests {
		if got := f.runIn(test.args...); got != (outcome{stdout: test.want}) {
			t.Errorf("mapfs %q:\ngot  %+v\nwant %q", test.args, got, test.want)
		}
	}
	t.Chdir(f.dir)
	if got := f.run("status"); !strings.HasPrefix(got.stdout, "version ") {
		t.Errorf("mapfs status in the mount: got %+v", got)
	}
}

func TestPaths(t *testing.T) {
	tests := []struct{ path, text string }{
		{"a/b", "a/b"},
		{"ä-日本", "ä-日本"},
		{"", `""`},
		{"a b", `"a b"`},
		{"a\nb\x1b[31m", `"a\nb\x1b[31m"`},
		{`a"b`, `"a\"b"`},
		{`a\b`, `"a\\b"`},
		{"a\xffb", `"a\xffb"`},
	}
	for _, test := range tests {
		if got := quote.Path(test.path); got != test.text {
			t.Errorf("quote.Path(%q): got %s, want %s", test.path, got, test.text)
		}
		for _, rest := range []string{"", "x=1 y=2"} {
			path, after, ok := ctltree.CutPath(strings.TrimSpace(test.text + " " + rest))
			if path != test.path || after != rest || !ok {
				t.Errorf("cutPath(%s): got %q, %q, %t", test.text, path, after, ok)
			}
		}
	}
	for _, bad := range []string{"", `"a`, `"`} {
		if path, _, ok := ctltree.CutPath(bad); ok {
			t.Errorf("cutPath(%s): got %q, want none", bad, path)
		}
	}
}
