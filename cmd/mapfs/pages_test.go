//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"mapfs/cmd/mapfs/display"
	"mapfs/cmd/mapfs/picture"
)

func TestPages(t *testing.T) {
	f := newFakeTree(t)
	const legend = "R resident  D dirty  W under writeback  C copied  U unsynced  . none\n"
	tests := []struct{ name, want string }{
		{"f", `f: 40000 bytes (39.1 KiB), shared; one character is a page of 4K

       0  DDDDR.....

` + legend + `10 pages: 5 resident, 4 dirty, 0 under writeback, 0 copied, 4 unsynced; 16384 bytes (16.0 KiB) unsynced
`},
		{"sub/a b", `"sub/a b": 5 bytes, shared; one character is a page of 4K

       0  R

` + legend + `1 page: 1 resident, 0 dirty, 0 under writeback, 0 copied, 0 unsynced; 0 bytes unsynced
`},
		{"empty", `empty: 0 bytes, shared; one character is a page of 4K

` + legend + `0 pages: 0 resident, 0 dirty, 0 under writeback, 0 copied, 0 unsynced; 0 bytes unsynced
`},
		{".mapfs/mappings/mine", `mine: 4096 bytes, private; one character is a page of 4K

       0  C

` + legend + `1 page: 1 resident, 0 dirty, 0 under writeback, 1 copied, 0 unsynced; 0 bytes unsynced
`},
	}
	for _, test := range tests {
		if got := f.runIn("pages", "MNT/"+test.name); got != (outcome{stdout: test.want}) {
			t.Errorf("pages %s:\n%s%s\nwant:\n%s", test.name, got.stdout, got.stderr, test.want)
		}
	}

	f.write(".mapfs/files/f/pages", "0-3 RDU\n2-4 R\n")
	want := outcome{code: exitFailed, stderr: "mapfs: unexpected line \"2-4 R\" in the control tree's pages\n"}
	if got := f.runIn("pages", "MNT/f"); got.code != want.code || got.stderr != want.stderr {
		t.Errorf("runs that overlap: got %+v, want %+v", got, want)
	}
	f.write(".mapfs/status", "version test\n")
	want = outcome{code: exitFailed, stderr: "mapfs: MNT/.mapfs/status: no page_size in it\n"}
	if got := f.runIn("pages", "MNT/f"); got != want {
		t.Errorf("no page_size: got %+v, want %+v", got, want)
	}
}

// pictureOf draws runs on a screen.
func pictureOf(t *testing.T, size int64, runs string, s display.Screen) string {
	t.Helper()
	var b bytes.Buffer
	if err := printPicture(&b, pageView{name: "f", mode: "shared", size: size, pageSize: 4096}, strings.NewReader(runs), s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPictureRows(t *testing.T) {
	const size = 100 << 30
	pages := int64(size / 4096)
	got := pictureOf(t, size, fmt.Sprintf("0-99 -\n100-100 RD\n101-%d -\n%d-%d W\n", pages-67, pages-66, pages-1), display.Screen{Width: 80})
	row := strings.Repeat(".", 64)
	want := strings.Join([]string{
		"",
		"          0  " + row,
		"       256K  " + row[:36] + "D" + row[37:],
		"       512K  " + row,
		"          *  409595 more rows like this one",
		"  102399.5M  " + row[:62] + "WW",
		" 102399.75M  " + strings.Repeat("W", 64),
		"",
	}, "\n")
	if !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant in it\n%s", got, want)
	}
}

// TestPictureSweep draws every picture of a few runs twice: by runs, and by
// single pages, which must look the same.
func TestPictureSweep(t *testing.T) {
	letters := []string{"-", "R", "RDU"}
	for a := int64(0); a <= 40; a++ {
		for b := int64(0); b <= 40; b += 3 {
			var byRuns, byPages strings.Builder
			page := int64(0)
			for i, n := range []int64{a, b, 17} {
				if n == 0 {
					continue
				}
				fmt.Fprintf(&byRuns, "%d-%d %s\n", page, page+n-1, letters[i])
				for ; n > 0; n-- {
					fmt.Fprintf(&byPages, "%d-%d %s\n", page, page, letters[i])
					page++
				}
			}
			s := display.Screen{Width: 20} // 8 pages a row
			size := page * 4096
			one, other := pictureOf(t, size, byRuns.String(), s), pictureOf(t, size, byPages.String(), s)
			if one != other {
				t.Fatalf("%d and %d pages: by runs\n%s\nby pages\n%s", a, b, one, other)
			}
		}
	}
}

func TestPictureWidths(t *testing.T) {
	for _, test := range []struct{ width, perRow int }{
		{1, 8}, {40, 16}, {42, 32}, {73, 32}, {74, 64}, {80, 64}, {137, 64}, {138, 128}, {200, 128}, {266, 256},
	} {
		got := pictureOf(t, 1<<30, "0-262143 R\n", display.Screen{Width: test.width})
		want := strings.Repeat("R", test.perRow) + "\n"
		if row := strings.SplitAfter(got, "\n")[2]; !strings.HasSuffix(row, " "+want) {
			t.Errorf("width %d: got row %q, want %d pages", test.width, row, test.perRow)
		}
	}
}

func TestPictureColors(t *testing.T) {
	got := pictureOf(t, 5*4096, "0-0 R\n1-2 RDU\n3-4 -\n", display.Screen{Width: 80, Color: true})
	const want = "       0  \x1b[30;42mR\x1b[0m\x1b[30;41mDD\x1b[0m..\n"
	if !strings.Contains(got, want) {
		t.Errorf("got %q, want a row %q", got, want)
	}
	plain := pictureOf(t, 5*4096, "0-0 R\n1-2 RDU\n3-4 -\n", display.Screen{Width: 80})
	for _, s := range picture.States {
		got = strings.ReplaceAll(got, "\x1b["+s.SGR+"m", "")
	}
	if got = strings.ReplaceAll(got, "\x1b[0m", ""); got != plain {
		t.Errorf("without its colors:\n%q\nwant\n%q", got, plain)
	}
}

func TestPagesJSON(t *testing.T) {
	f := newFakeTree(t)
	got := f.runIn("pages", "--json", "MNT/f")
	const want = `{"path":"f","mode":"shared","page_size":4096,"runs":[
{"first":0,"last":3,"flags":"RDU","offset":0,"length":16384},
{"first":4,"last":4,"flags":"R","offset":16384,"length":4096},
{"first":5,"last":8,"flags":"-","offset":20480,"length":16384},
{"first":9,"last":9,"flags":"T","offset":36864,"length":4096}],
"summary":{"size":40000,"pages":10,"resident":5,"dirty":4,"writeback":0,"copied":0,"unsynced":4,"unsynced_bytes":16384}}
`
	if got != (outcome{stdout: want}) {
		t.Errorf("got %+v\nwant %s", got, want)
	}
	for _, name := range []string{"empty", "sub/a b", ".mapfs/mappings/mine"} {
		if got := f.runIn("pages", "--json", "MNT/"+name); !json.Valid([]byte(got.stdout)) {
			t.Errorf("%s: no JSON: %+v", name, got)
		}
	}
}

func BenchmarkPictureOfSparseFile(b *testing.B) {
	const size = 100 << 30
	runs := fmt.Sprintf("0-0 RD\n1-%d -\n", size/4096-1)
	for b.Loop() {
		if err := printPicture(io.Discard, pageView{size: size, pageSize: 4096}, strings.NewReader(runs), display.Screen{Width: 80}); err != nil {
			b.Fatal(err)
		}
	}
}
