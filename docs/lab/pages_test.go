package lab

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// fixed are the numbers in the texts that look like pages and are none.
var fixed = map[string][]string{
	"09-ipc.md":     {"4096"},  // the length of a message
	"statements.md": {"65536"}, // a hint
}

// TestPages holds every text to its numbers: with pages of 4096 bytes it is as it is
// written, and no multiple of that is left that other pages would make wrong.
func TestPages(t *testing.T) {
	texts := make(map[string]string)
	for _, e := range Exercises() {
		texts[e.Name] = e.Text
	}
	statements, err := os.ReadFile("../statements.md")
	if err != nil {
		t.Fatal(err)
	}
	texts["statements.md"] = string(statements)
	words := regexp.MustCompile(`[0-9A-Za-z]+`)
	for name, text := range texts {
		pages, err := PagesOf(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		visible, _, _ := strings.Cut(text, pagesBegin)
		visible = strings.TrimRight(visible, "\n") + "\n"
		if got := pages.For(text, writtenFor); strings.TrimRight(got, "\n")+"\n" != visible {
			t.Errorf("%s is another text for pages of %d bytes", name, writtenFor)
		}
		for _, size := range []int{16 << 10, 64 << 10} {
			there := pages.For(text, size)
			if strings.Contains(there, pagesBegin) {
				t.Errorf("%s: the line of numbers is shown", name)
			}
			if had, has := len(words.FindAllString(visible, -1)), len(words.FindAllString(there, -1)); had != has {
				t.Errorf("%s has %d words, and %d for pages of %d bytes", name, had, has, size)
			}
		}
		used := make(map[string]bool)
		for _, word := range words.FindAllString(visible, -1) {
			_, known := pages[word]
			used[word] = known
			for _, base := range []int{10, 16} {
				n, err := strconv.ParseUint(strings.TrimPrefix(word, "0x"), base, 64)
				if err != nil || n == 0 || n%writtenFor != 0 || n > 1<<20 || base == 16 && !strings.HasPrefix(word, "0") {
					continue
				}
				if !known && !strings.Contains(strings.Join(fixed[name], " "), word) {
					t.Errorf("%s: %s is a number of pages, and is not named", name, word)
				}
			}
		}
		for word := range pages {
			if !used[word] {
				t.Errorf("%s names %s, which is not in it", name, word)
			}
		}
	}
}

func TestPagesFor(t *testing.T) {
	const text = "size 20000, page 4096, at 0004096 and 00002000; 14096 and 4096x stay.\n" +
		"<!-- pages 4096=P 20000=4P+3616 0004096=%07d:P 00002000=%08x:2P -->\n"
	pages, err := PagesOf(text)
	if err != nil {
		t.Fatal(err)
	}
	const want = "size 69152, page 16384, at 0016384 and 00008000; 14096 and 4096x stay."
	if got := pages.For(text, 16384); strings.TrimRight(got, "\n") != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for _, wrong := range []string{"4097=P", "4096=Q", "4096=xP", "4096=P+x", "4096"} {
		if _, err := PagesOf(pagesBegin + wrong + pagesEnd); err == nil {
			t.Errorf("%q is no error", wrong)
		}
	}
}
