package dirty

import (
	"math"
	"math/rand/v2"
	"testing"

	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// TestRecordAgainstModel holds the packed record against a plain map through
// random changes and write-backs.
func TestRecordAgainstModel(t *testing.T) {
	const pages = 3*PagesPerChunk + 5
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var r Record
		unsynced := make(map[int64]bool)
		syncing := make(map[int64]bool)
		inSync := false
		randomRange := func() paging.Range {
			first := rng.Int64N(pages)
			length := 1 + rng.Int64N(1+rng.Int64N(pages-first))
			return paging.Range{Off: first*paging.PageSize + rng.Int64N(paging.PageSize), End: (first + length) * paging.PageSize}
		}
		for range 300 {
			switch rng.IntN(6) {
			case 0, 1, 2:
				g := randomRange()
				r.Set(g, Written|UnsyncedWrite)
				first, end := g.Pages()
				for p := first; p < end; p++ {
					unsynced[p] = true
					delete(syncing, p) // changed again: stays unsynced after the sync
				}
			case 3:
				if !inSync {
					r.BeginSync(paging.Range{Off: 0, End: math.MaxInt64})
					inSync = true
					for p := range unsynced {
						syncing[p] = true
					}
				}
			case 4:
				if inSync {
					failed := rng.IntN(2) == 0
					r.EndSync(failed)
					inSync = false
					if !failed {
						for p := range syncing {
							delete(unsynced, p)
						}
					}
					syncing = make(map[int64]bool)
				}
			case 5:
				size := rng.Int64N(pages * paging.PageSize)
				r.Forget(size)
				_, keep := paging.Range{Off: 0, End: size}.Pages()
				for p := range unsynced {
					if p >= keep {
						delete(unsynced, p)
						delete(syncing, p)
					}
				}
			}
			if got := r.UnsyncedPages(); got != int64(len(unsynced)) {
				t.Fatalf("seed %d: %d unsynced pages, want %d", seed, got, len(unsynced))
			}
			if len(unsynced) > 0 && !r.Unsynced() {
				t.Fatalf("seed %d: the record denies its %d unsynced pages", seed, len(unsynced))
			}
		}
		for p := range int64(pages) {
			g := paging.Range{Off: p * paging.PageSize, End: (p + 1) * paging.PageSize}
			if got := r.All(g, UnsyncedWrite); got != unsynced[p] {
				t.Fatalf("seed %d: page %d unsynced is %v, want %v", seed, p, got, unsynced[p])
			}
		}
	}
}

func TestRecordOfHugeOffsets(t *testing.T) {
	var r Record
	g := paging.Range{Off: 1<<62 - 1, End: 1<<62 + 1} // two pages, far beyond what an array could index
	r.Set(g, Written|UnsyncedWrite)
	if got := r.UnsyncedPages(); got != 2 {
		t.Errorf("%d unsynced pages, want 2", got)
	}
	r.Forget(1 << 62)
	if got := r.UnsyncedPages(); got != 1 {
		t.Errorf("after a truncation between them: %d, want 1", got)
	}
}

// TestRecordRuns asks for the runs of parts of a sparse record: few chunks in a
// wide part, and many around a narrow one.
func TestRecordRuns(t *testing.T) {
	const pages = 50 * PagesPerChunk
	rng := rand.New(rand.NewPCG(7, 7))
	var r Record
	set := make(map[int64]bool)
	for range 60 {
		page := rng.Int64N(pages)
		r.Set(paging.Range{Off: page * paging.PageSize, End: (page + 1) * paging.PageSize}, UnsyncedStore)
		set[page] = true
	}
	for range 300 {
		first := rng.Int64N(pages)
		end := first + 1 + rng.Int64N(1+rng.Int64N(1+rng.Int64N(pages-first)))
		next := first
		r.Runs(first, end, func(run pagestate.Run, states State) bool {
			if run.First != next || run.End <= run.First {
				t.Fatalf("pages [%d, %d): the run [%d, %d) comes where page %d should", first, end, run.First, run.End, next)
			}
			next = run.End
			for page := run.First; page < run.End; page++ {
				if got := states == UnsyncedStore; got != set[page] {
					t.Fatalf("pages [%d, %d): page %d set is %v, want %v", first, end, page, got, set[page])
				}
			}
			return true
		})
		if next != end {
			t.Fatalf("pages [%d, %d): the runs end with %d", first, end, next)
		}
	}
}

// TestRecordWithin is what keeps a look at a file run by run cheap: a narrow part
// has only its own chunks.
func TestRecordWithin(t *testing.T) {
	var r Record
	for chunk := range int64(100) {
		r.Set(paging.Range{Off: chunk * PagesPerChunk * paging.PageSize, End: chunk*PagesPerChunk*paging.PageSize + 1}, Written)
	}
	for _, test := range []struct{ first, end, from, to int64 }{
		{0, 1, 0, 1}, {0, PagesPerChunk, 0, 1}, {0, PagesPerChunk + 1, 0, 2},
		{5*PagesPerChunk - 1, 5*PagesPerChunk + 1, 4, 6}, {99 * PagesPerChunk, 1 << 40, 99, 100},
		{3, 1 << 50, 0, 100}, {100 * PagesPerChunk, 1 << 50, 100, 100},
	} {
		got := r.within(test.first, test.end)
		if int64(len(got)) != test.to-test.from {
			t.Fatalf("pages [%d, %d): %d chunks, want %d", test.first, test.end, len(got), test.to-test.from)
		}
		for i, c := range got {
			if c.index != test.from+int64(i) {
				t.Errorf("pages [%d, %d): chunk %d is that of index %d", test.first, test.end, i, c.index)
			}
		}
	}
}
