package control

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// render gives runs to a text and returns all of it.
func render(text pageText, runs ...pagestate.Run) string {
	var b []byte
	for _, r := range runs {
		b = text.add(b, r)
	}
	return string(text.end(b))
}

// Short names for the flags.
const (
	flagR = pagestate.Resident
	flagD = pagestate.Dirty
	flagW = pagestate.Writeback
	flagC = pagestate.Copied
	flagU = pagestate.Unsynced
	flagT = pagestate.Tail
)

func TestPagesText(t *testing.T) {
	for _, c := range []struct {
		name string
		runs []pagestate.Run
		want string
	}{
		{"nothing", nil, ""},
		{"one page", []pagestate.Run{{First: 0, End: 1, Flags: flagR | flagT}}, "0-0 RT\n"},
		{"every flag", []pagestate.Run{{First: 0, End: 7, Flags: flagR | flagD | flagW | flagC | flagU | flagT}}, "0-6 RDWCUT\n"},
		{"no flag", []pagestate.Run{{First: 0, End: 7}}, "0-6 -\n"},
		{"joined", []pagestate.Run{{First: 0, End: 2, Flags: flagR}, {First: 2, End: 5, Flags: flagR}, {First: 5, End: 6}},
			"0-4 R\n5-5 -\n"},
		{"joined twice", []pagestate.Run{{First: 0, End: 1}, {First: 1, End: 2}, {First: 2, End: 3}}, "0-2 -\n"},
		{"huge", []pagestate.Run{{First: 0, End: 1 << 50, Flags: flagU}, {First: 1 << 50, End: 1<<50 + 1, Flags: flagT}},
			"0-1125899906842623 U\n1125899906842624-1125899906842624 T\n"},
	} {
		if got := render(new(pagesText), c.runs...); got != c.want {
			t.Errorf("%s: got\n%swant\n%s", c.name, got, c.want)
		}
	}
}

func TestMapLetters(t *testing.T) {
	for flags, want := range map[pagestate.Flags]byte{
		0: '.', flagT: '.', flagR: 'R', flagR | flagT: 'R', flagU: 'U', flagR | flagU: 'U', flagR | flagC: 'C',
		flagR | flagC | flagU: 'C', flagR | flagD | flagU: 'D', flagR | flagD | flagC: 'C',
		flagR | flagD | flagW | flagC | flagU | flagT: 'C', flagR | flagD | flagW | flagU: 'W', flagR | flagW: 'W',
	} {
		if got := letter(flags); got != want {
			t.Errorf("letter(%v) = %c, want %c", flags, got, want)
		}
	}
}

func TestMapText(t *testing.T) {
	page := func(n int64) string { return fmt.Sprintf("%12d  ", n*paging.PageSize) }
	for _, c := range []struct {
		name string
		runs []pagestate.Run
		want string
	}{
		{"nothing", nil, ""},
		{"one page", []pagestate.Run{{First: 0, End: 1, Flags: flagR}}, page(0) + "R\n"},
		{"a full row", []pagestate.Run{{First: 0, End: 64, Flags: flagU}}, page(0) + strings.Repeat("U", 64) + "\n"},
		{"a page more", []pagestate.Run{{First: 0, End: 65}}, page(0) + strings.Repeat(".", 64) + "\n" + page(64) + ".\n"},
		{"mixed", []pagestate.Run{{First: 0, End: 3, Flags: flagD}, {First: 3, End: 63}, {First: 63, End: 66, Flags: flagR}},
			page(0) + "DDD" + strings.Repeat(".", 60) + "R\n" + page(64) + "RR\n"},
	} {
		if got := render(new(mapText), c.runs...); got != c.want+mapLegend {
			t.Errorf("%s: got\n%swant\n%s", c.name, got, c.want+mapLegend)
		}
	}
}

// TestMapTextSqueezes: what is left out of a picture of long stretches can be put
// back, so nothing is lost by it.
func TestMapTextSqueezes(t *testing.T) {
	const long = mapSqueeze * mapRow
	for _, c := range []struct {
		name string
		runs []pagestate.Run
		rows int // at most, the legend aside
	}{
		{"as long as is shown", lengths(long, 0), mapSqueeze},
		{"a row more", lengths(long+mapRow, 0), mapSqueeze + 1},
		{"a page more", lengths(long+1, 0), mapSqueeze + 1},
		{"100 GiB", lengths(100<<30/4096, 0), mapSqueeze + 2},
		{"begun inside a row", lengths(1, flagR, 10*long, 0), mapSqueeze + 3},
		{"ended inside a row", lengths(10*long+7, 0, 3*mapRow, flagD), mapSqueeze + 6},
		{"two stretches", lengths(3*long, 0, 3*long, flagR), 2*mapSqueeze + 4},
		{"two stretches, not at a row's end", lengths(3*long+5, 0, 3*long, flagR), 2*mapSqueeze + 6},
		// Other flags, but the same letter: the stretch goes on.
		{"one letter", lengths(3*long, flagD, 3*long, flagD|flagU), mapSqueeze + 2},
		{"one letter, not at a row's end", lengths(3*long+5, flagD, 3*long, flagD|flagU, 3*long+60, flagD), mapSqueeze + 4},
		{"one letter, in windows", lengths(pagesWindow, 0, pagesWindow, 0, pagesWindow, flagT), mapSqueeze + 2},
		{"interrupted", lengths(3*long, 0, 1, flagR, 3*long-1, 0), 2*mapSqueeze + 4},
	} {
		text := render(new(mapText), c.runs...)
		if rows := strings.Count(text, "\n") - 1; rows > c.rows {
			t.Errorf("%s: %d rows, want at most %d", c.name, rows, c.rows)
		}
		if why := sameMap(text, c.runs); why != "" {
			t.Errorf("%s: %s", c.name, why)
		}
	}
}

// TestMapTextRandomly is the same for pictures that nobody thought of.
func TestMapTextRandomly(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	flags := []pagestate.Flags{0, flagT, flagR, flagR | flagT, flagD, flagD | flagU}
	sizes := []int64{1, 5, mapRow - 1, mapRow, mapRow + 1, 10 * mapRow, mapSqueeze * mapRow, 2*mapSqueeze*mapRow + 3}
	for range 30 {
		var spans []int64
		for range 1 + random.IntN(8) {
			spans = append(spans, sizes[random.IntN(len(sizes))]+random.Int64N(3), int64(flags[random.IntN(len(flags))]))
		}
		var runs []pagestate.Run
		at := int64(0)
		for i := 0; i < len(spans); i += 2 {
			runs = append(runs, pagestate.Run{First: at, End: at + spans[i], Flags: pagestate.Flags(spans[i+1])})
			at += spans[i]
		}
		if why := sameMap(render(new(mapText), runs...), runs); why != "" {
			t.Fatalf("%v: %s", runs, why)
		}
	}
}

// lengths makes runs of pairs of a length and flags.
func lengths(pairs ...any) (runs []pagestate.Run) {
	at := int64(0)
	for i := 0; i < len(pairs); i += 2 {
		length := int64(pairs[i].(int))
		r := pagestate.Run{First: at, End: at + length}
		if f, ok := pairs[i+1].(pagestate.Flags); ok {
			r.Flags = f
		}
		runs, at = append(runs, r), r.End
	}
	return runs
}

// sameMap puts back what a picture leaves out and compares it with the runs, of
// which it returns the first difference.
func sameMap(text string, runs []pagestate.Run) string {
	body, ok := strings.CutSuffix(text, mapLegend)
	if !ok {
		return "no legend"
	}
	total := runs[len(runs)-1].End
	at, run := int64(0), 0
	// shown checks one row's letters, from page at on.
	shown := func(row string) string {
		for i := range len(row) {
			for run < len(runs) && at >= runs[run].End {
				run++
			}
			if run == len(runs) || row[i] != letter(runs[run].Flags) {
				return fmt.Sprintf("page %d is shown as %c", at, row[i])
			}
			at++
		}
		return ""
	}
	last, starred := "", false
	for line := range strings.Lines(body) {
		if line == "*\n" {
			starred = true
			continue
		}
		var off int64
		var row string
		if _, err := fmt.Sscanf(line, "%d %s\n", &off, &row); err != nil {
			return fmt.Sprintf("row %q: %v", line, err)
		}
		first := off / paging.PageSize
		for ; starred && at < first; starred = at < first {
			if why := shown(last); why != "" {
				return "left out: " + why
			}
		}
		if at != first {
			return fmt.Sprintf("a row begins with page %d, but page %d should come next", first, at)
		}
		if why := shown(row); why != "" {
			return why
		}
		last, starred = row, false
	}
	for starred && at < total {
		if why := shown(last); why != "" {
			return "left out at the end: " + why
		}
	}
	if at != total {
		return fmt.Sprintf("%d pages are shown of %d", at, total)
	}
	return ""
}
