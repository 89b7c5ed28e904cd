package quote

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPath(t *testing.T) {
	for path, want := range map[string]string{
		"":                  `""`,
		"f":                 "f",
		"d/e/f":             "d/e/f",
		".hidden":           ".hidden",
		"a=b,c;'d'$e*?[]{}": "a=b,c;'d'$e*?[]{}",
		"ümläut/名前":         "ümläut/名前",
		"a b":               `"a b"`,
		" ":                 `" "`,
		`say "hi"`:          `"say \"hi\""`,
		`back\slash`:        `"back\\slash"`,
		"new\nline":         `"new\nline"`,
		"tab\t":             `"tab\t"`,
		"\x00\x1b\x7f":      `"\x00\x1b\x7f"`,
		"\xff\xfe":          `"\xff\xfe"`,
		"ok/\xc3":           `"ok/\xc3"`,
		"\u202eturned":      `"\u202eturned"`,
		"\u00a0":            `"\u00a0"`, // a space that is not ' '
		"\ufeff":            `"\ufeff"`,
		"\uFFFD":            "\uFFFD", // the character itself, not what is no text
	} {
		if got := Path(path); got != want {
			t.Errorf("Path(%q) = %s, want %s", path, got, want)
		}
	}
}

// FuzzPath: whatever the path, the text is one word of printable characters,
// and leads back to it.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"", "a", "a b", "\xff", `"`, `\`, "\n", "-", "\u2028"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got := Path(path)
		back := got
		if strings.HasPrefix(got, `"`) {
			var err error
			if back, err = strconv.Unquote(got); err != nil {
				t.Fatalf("Path(%q) = %s: %v", path, got, err)
			}
		} else if strings.ContainsAny(got, ` "\`) || got == "" {
			t.Fatalf("Path(%q) = %s is not quoted", path, got)
		}
		if back != path {
			t.Fatalf("Path(%q) = %s, which is %q", path, got, back)
		}
		for _, r := range got {
			if !strconv.IsPrint(r) || !utf8.ValidString(got) {
				t.Fatalf("Path(%q) = %q has what cannot be printed", path, got)
			}
		}
	})
}
