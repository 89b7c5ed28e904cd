package lab

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestExercises holds the exercises to their form: numbered without a gap, each
// with its parts in order, and short enough to be followed.
func TestExercises(t *testing.T) {
	const mostLines = 120
	all := Exercises()
	if len(all) == 0 {
		t.Fatal("no exercises")
	}
	index, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range all {
		if row := fmt.Sprintf("| %02d | [%s](%s) |\n", e.Number, e.Title, e.Name); !strings.Contains(string(index), row) {
			t.Errorf("README.md has no row %q", row)
		}
		if e.Number != i+1 || !strings.HasPrefix(e.Name, fmt.Sprintf("%02d-", i+1)) {
			t.Errorf("%s is number %d, want %d", e.Name, e.Number, i+1)
		}
		rest := e.Text
		for _, part := range []string{"\n**Question.** ", "\n```console\n$ ", "\n## Why\n", "\n## Try next\n"} {
			_, after, found := strings.Cut(rest, part)
			if !found {
				t.Errorf("%s: no %q, or not in its place", e.Name, part)
				continue
			}
			rest = after
		}
		_, why, _ := strings.Cut(e.Text, "\n## Why\n")
		if authority := regexp.MustCompile(`\w\([2-8]\)|Documentation/`); !authority.MatchString(why) {
			t.Errorf("%s: Why names neither a man page nor a kernel document", e.Name)
		}
		if n := strings.Count(e.Text, "\n"); n > mostLines {
			t.Errorf("%s has %d lines, want at most %d", e.Name, n, mostLines)
		}
		// What a program prints is as long as it is.
		inBlock := false
		for line := range strings.Lines(e.Text) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasPrefix(line, "```") {
				inBlock = !inBlock
			}
			most := 80
			if inBlock && strings.HasPrefix(line, "$ ") {
				most = 100
			} else if inBlock {
				continue
			}
			if n := len([]rune(line)); n > most {
				t.Errorf("%s: a line of %d characters: %s", e.Name, n, line)
			}
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ name, text string }{
		{"mapping.md", "# 01 Title\n"},
		{"01-mapping.md", "# 02 Title\n"},
		{"01-mapping.md", "# 01 \n"},
		{"01-mapping.md", ""},
	} {
		if e, err := parse(c.name, c.text); err == nil {
			t.Errorf("parse(%q, %q) = %+v, want an error", c.name, c.text, e)
		}
	}
}
