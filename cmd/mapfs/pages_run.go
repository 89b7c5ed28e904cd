package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// pageFlags are the states of a page, as in the control tree's "pages".
type pageFlags uint8

const (
	pageResident pageFlags = 1 << iota
	pageDirty
	pageWriteback
	pageCopied
	pageUnsynced
	pageEnd // holds the end of the file
)

// flagLetters are the letters of the flags, from the lowest bit.
const flagLetters = "RDWCUT"

func parseFlags(letters string) (pageFlags, bool) {
	if letters == "-" {
		return 0, true
	}
	var flags pageFlags
	for _, letter := range []byte(letters) {
		i := strings.IndexByte(flagLetters, letter)
		if i < 0 {
			return 0, false
		}
		flags |= 1 << i
	}
	return flags, flags != 0
}

func (f pageFlags) String() string {
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

// pageRun is a run of pages in the same state, both ends included.
type pageRun struct {
	first, last int64
	flags       pageFlags
}

func (r pageRun) len() int64 { return r.last - r.first + 1 }

// readRuns hands over the lines FIRST-LAST FLAGS of a file "pages" as they are
// read, in order and without gaps: what the file does not name has no state.
func readRuns(pages io.Reader, handle func(pageRun) error) error {
	lines := bufio.NewScanner(pages)
	next := int64(0)
	for lines.Scan() {
		run, ok := parseRun(lines.Text())
		if !ok || run.first < next {
			return fmt.Errorf("unexpected line %q in the control tree's pages", lines.Text())
		}
		if run.first > next {
			if err := handle(pageRun{first: next, last: run.first - 1}); err != nil {
				return err
			}
		}
		if err := handle(run); err != nil {
			return err
		}
		next = run.last + 1
	}
	return lines.Err()
}

func parseRun(line string) (pageRun, bool) {
	span, letters, _ := strings.Cut(line, " ")
	from, to, _ := strings.Cut(span, "-")
	first, err1 := strconv.ParseUint(from, 10, 62)
	last, err2 := strconv.ParseUint(to, 10, 62)
	flags, ok := parseFlags(letters)
	return pageRun{int64(first), int64(last), flags}, err1 == nil && err2 == nil && ok && first <= last
}

// pageSummary counts pages by their states.
type pageSummary struct {
	pages, resident, dirty, writeback, copied, unsynced int64
}

func (s *pageSummary) add(run pageRun) {
	s.pages += run.len()
	for _, c := range []struct {
		flag  pageFlags
		count *int64
	}{
		{pageResident, &s.resident}, {pageDirty, &s.dirty}, {pageWriteback, &s.writeback},
		{pageCopied, &s.copied}, {pageUnsynced, &s.unsynced},
	} {
		if run.flags&c.flag != 0 {
			*c.count += run.len()
		}
	}
}

func (s pageSummary) String() string {
	noun := "pages"
	if s.pages == 1 {
		noun = "page"
	}
	return fmt.Sprintf("%d %s: %d resident, %d dirty, %d under writeback, %d copied, %d unsynced",
		s.pages, noun, s.resident, s.dirty, s.writeback, s.copied, s.unsynced)
}
