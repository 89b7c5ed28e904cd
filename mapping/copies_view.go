package mapping

// copyView tells copied pages from the file's, for one look at a file that copies.
type copyView struct {
	k *KernelSources
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
const longRun = 4 * pagesPerChunk

// runs calls emit for the parts of run that are copied and those that are not,
// with the flag or without. The word of the kernel counts (/proc/self/pagemap)
// where the file is mapped, that of the record elsewhere. states are the record's
// of all pages of run.
func (v *copyView) runs(run PageRun, states pageState, emit func(PageRun) bool) {
	if v == nil {
		emit(PageRun{run.First, run.End, 0})
		return
	}
	recorded := PageFlags(0)
	if states&pageCopied != 0 {
		recorded = PageCopied
	}
	mapped := min(run.End, int64(len(v.mem))/PageSize)
	if v.k.Pagemap != "" || states == 0 && run.End-run.First >= longRun && !v.locked || mapped <= run.First {
		emit(PageRun{run.First, run.End, recorded})
		return
	}
	if v.k.copies(v.mem, run.First, mapped, emit) && mapped < run.End {
		emit(PageRun{mapped, run.End, recorded})
	}
}
