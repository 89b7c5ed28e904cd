package manual

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mapfs/docs/lab"
	"mapfs/integration/harness"
)

// statement is a row of docs/statements.md.
type statement struct {
	text   string
	step   harness.Step
	number string // of the exercise, two digits
}

// cellEnd matches what ends a cell of a table; a bar in a cell has a backslash.
var cellEnd = regexp.MustCompile(`(?:^| )\|(?: |$)`)

// readStatement takes a row apart; it is none if it is a table's head.
func readStatement(t *testing.T, line string) (s statement, ok bool) {
	t.Helper()
	if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| Statement |") {
		return s, false
	}
	cells := cellEnd.Split(strings.Trim(line, "|"), -1)
	if len(cells) != 4 {
		t.Fatalf("a row has %d cells, want 4: %s", len(cells), line)
	}
	for i, cell := range cells {
		cells[i] = strings.TrimSpace(cell)
	}
	command, isCode := code(cells[1])
	if !isCode {
		t.Fatalf("no command in backquotes: %s", line)
	}
	s = statement{text: cells[0], step: harness.Step{Command: command}, number: cells[3]}
	if link := regexp.MustCompile(`^\[(\d+)\]`).FindStringSubmatch(s.number); link != nil {
		s.number = link[1]
	}
	for printed := range strings.SplitSeq(cells[2], "<br>") {
		if line, isCode := code(printed); isCode {
			s.step.Output = append(s.step.Output, line)
		}
	}
	return s, true
}

// code undoes the marks of code in a cell.
func code(cell string) (text string, isCode bool) {
	text, begins := strings.CutPrefix(cell, "`")
	text, ends := strings.CutSuffix(text, "`")
	return strings.ReplaceAll(text, `\|`, "|"), begins && ends
}

// asCode is the inverse of code. What a code span cannot show as it is, blanks at
// its beginning and no text at all, is not in it.
func asCode(text string) string {
	return "`" + strings.ReplaceAll(strings.TrimSpace(text), "|", `\|`) + "`"
}

// link is the cell that names the exercise.
func (s *statement) link(t *testing.T) string {
	t.Helper()
	for _, e := range lab.Exercises() {
		if fmt.Sprintf("%02d", e.Number) == s.number {
			return fmt.Sprintf("[%s](lab/%s)", s.number, e.Name)
		}
	}
	t.Errorf("%q: no exercise %q", s.text, s.number)
	return s.number
}

// row is the statement as docs/statements.md has it.
func (s *statement) row(t *testing.T) string {
	var printed []string
	for _, line := range s.step.Output {
		printed = append(printed, asCode(line))
	}
	shows := strings.Join(printed, "<br>")
	if shows == "" {
		shows = "nothing"
	}
	return fmt.Sprintf("| %s | %s | %s | %s |", s.text, asCode(s.step.Command), shows, s.link(t))
}

// TestStatements runs every row of docs/statements.md, on a file of its own, and
// compares what is printed. -update corrects it.
func TestStatements(t *testing.T) {
	harness.RequireFUSE(t)
	path := harness.Repo("docs", "statements.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pages, err := lab.PagesOf(string(text))
	if err != nil {
		t.Fatal(err)
	}
	here := func(text string) string { return pages.For(text, os.Getpagesize()) }
	if *harness.Update {
		here = func(text string) string { return text }
	}
	harness.EachFS(t, func(t *testing.T, dir string) {
		sh := harness.StartLabShell(t, dir)
		var updated strings.Builder
		rows := 0
		for line := range strings.Lines(here(string(text))) {
			line = strings.TrimSuffix(line, "\n")
			s, ok := readStatement(t, line)
			if !ok {
				fmt.Fprintln(&updated, line)
				continue
			}
			rows++
			s.run(t, sh)
			if row := s.row(t); row != line && !*harness.Update {
				t.Errorf("the row is\n%s\nand should be\n%s", line, row)
			}
			fmt.Fprintln(&updated, s.row(t))
		}
		if rows == 0 {
			t.Error("there are no rows")
		}
		sh.Unmount()
		if *harness.Update && !t.Failed() {
			if err := os.WriteFile(path, []byte(updated.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// run runs the command of a row with a new file mnt/f and no mapping made by
// command, and takes over what it prints but for what is documented with "...".
func (s *statement) run(t *testing.T, sh *harness.LabShell) {
	t.Helper()
	out := sh.Run("rm -f mnt/*; rmdir mnt/.mapfs/mappings/* 2> /dev/null; ls -A mnt/.mapfs/mappings; printf hello > mnt/f")
	if len(out) > 0 {
		t.Fatalf("making mnt/f: %q", out)
	}
	printed := sh.Run(s.step.Command)
	for i, line := range printed {
		printed[i] = strings.TrimSpace(line)
	}
	printed = harness.AsDocumented(s.step.Output, printed)
	if !*harness.Update && !slices.Equal(printed, s.step.Output) {
		t.Errorf("$ %s\nprints\n%s\nand the row says\n%s", s.step.Command,
			strings.Join(printed, "\n"), strings.Join(s.step.Output, "\n"))
	}
	if *harness.Update {
		s.step.Output = printed
	}
}
