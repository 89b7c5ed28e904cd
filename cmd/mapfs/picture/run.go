package picture

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Flags are the states of a page, as in the control tree's "pages".
type Flags uint8

const (
	Resident Flags = 1 << iota
	Dirty
	Writeback
	pageCopied
	Unsynced
	pageEnd // holds the end of the file
)

// flagLetters are the letters of the flags, from the lowest bit.
const flagLetters = "RDWCUT"

func parseFlags(letters string) (Flags, bool) {
	if letters == "-" {
		return 0, true
	}
	var flags Flags
	for _, letter := range []byte(letters) {
		i := strings.IndexByte(flagLetters, letter)
		if i < 0 {
			return 0, false
		}
		flags |= 1 << i
	}
	return flags, flags != 0
}

func (f Flags) String() string {
	if f == 0 {
		return "-"
	}
	var letters []byte
	for i := range len(flagLetters) {
		if f&(1<<i) != 0 {
			letters = append(letters, flagLetters[i])
		}
	}
	return string(letters)
}

// Run is a run of pages in the same state, both ends included.
type Run struct {
	First, Last int64
	Flags       Flags
}

func (r Run) Len() int64 { return r.Last - r.First + 1 }

// ReadRuns hands over the lines FIRST-LAST FLAGS of a file "pages" as they are
// read, in order and without gaps: what the file does not name has no state.
func ReadRuns(pages io.Reader, handle func(Run) error) error {
	lines := bufio.NewScanner(pages)
	next := int64(0)
	for lines.Scan() {
		run, ok := parseRun(lines.Text())
		if !ok || run.First < next {
			return fmt.Errorf("unexpected line %q in the control tree's pages", lines.Text())
		}
		if run.First > next {
			if err := handle(Run{First: next, Last: run.First - 1}); err != nil {
				return err
			}
		}
		if err := handle(run); err != nil {
			return err
		}
		next = run.Last + 1
	}
	return lines.Err()
}

func parseRun(line string) (Run, bool) {
	span, letters, _ := strings.Cut(line, " ")
	from, to, _ := strings.Cut(span, "-")
	first, err1 := strconv.ParseUint(from, 10, 62)
	last, err2 := strconv.ParseUint(to, 10, 62)
	flags, ok := parseFlags(letters)
	return Run{int64(first), int64(last), flags}, err1 == nil && err2 == nil && ok && first <= last
}

// Summary counts pages by their states.
type Summary struct {
	Pages, Resident, Dirty, Writeback, Copied, Unsynced int64
}

func (s *Summary) Add(run Run) {
	s.Pages += run.Len()
	for _, c := range []struct {
		flag  Flags
		count *int64
	}{
		{Resident, &s.Resident}, {Dirty, &s.Dirty}, {Writeback, &s.Writeback},
		{pageCopied, &s.Copied}, {Unsynced, &s.Unsynced},
	} {
		if run.Flags&c.flag != 0 {
			*c.count += run.Len()
		}
	}
}

func (s Summary) String() string {
	noun := "pages"
	if s.Pages == 1 {
		noun = "page"
	}
	return fmt.Sprintf("%d %s: %d resident, %d dirty, %d under writeback, %d copied, %d unsynced",
		s.Pages, noun, s.Resident, s.Dirty, s.Writeback, s.Copied, s.Unsynced)
}
