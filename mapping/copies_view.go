package mapping

import (
	"mapfs/mapping/dirty"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// copyView tells copied pages from the file's, for one look at a file that copies.
type copyView struct {
	k *pagestate.Sources
	// mem is the part of the mapping where the file is mapped. What is past it is
	// anonymous memory, of which only the record tells what was stored to.
	mem []byte
	// locked says that pages are locked: mlock(2) copies every page of a private
	// mapping.
	locked bool
}

// longRun is how many pages a run must have to be taken for one without copies,
// if nothing was recorded of it: a sparse file of any size is looked at in a time
// that follows what was stored to it.
const longRun = 4 * dirty.PagesPerChunk

// runs calls emit for the parts of run that are copied and those that are not,
// with the flag or without. The word of the kernel counts (/proc/self/pagemap)
// where the file is mapped, that of the record elsewhere. states are the record's
// of all pages of run.
func (v *copyView) runs(run pagestate.Run, states dirty.State, emit func(pagestate.Run) bool) {
	if v == nil {
		emit(pagestate.Run{First: run.First, End: run.End, Flags: 0})
		return
	}
	recorded := pagestate.Flags(0)
	if states&dirty.Copied != 0 {
		recorded = pagestate.Copied
	}
	mapped := min(run.End, int64(len(v.mem))/paging.PageSize)
	if v.k.Pagemap != "" || states == 0 && run.End-run.First >= longRun && !v.locked || mapped <= run.First {
		emit(pagestate.Run{First: run.First, End: run.End, Flags: recorded})
		return
	}
	if v.k.Copies(v.mem, run.First, mapped, emit) && mapped < run.End {
		emit(pagestate.Run{First: mapped, End: run.End, Flags: recorded})
	}
}
