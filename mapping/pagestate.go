package mapping

// PageFlags say in what state a page of a file is.
type PageFlags uint8

// What can be said of a page. The first three are the kernel's word, Unsynced is
// the engine's own record; where the two differ both are shown.
const (
	PageResident  PageFlags = 1 << iota // in the page cache
	PageDirty                           // modified in memory
	PageWriteback                       // on its way to the device
	PageCopied                          // copied on write: no longer the file's
	PageUnsynced                        // has bytes that a power cut would take
	PageTail                            // has the end of the file
)

// flagLetters are the letters of the flags, in the order of their bits.
const flagLetters = "RDWCUT"

// String returns the letters of the flags that are set, or "-".
func (p PageFlags) String() string {
	if p == 0 {
		return "-"
	}
	var b []byte
	for i := range len(flagLetters) {
		if p&(1<<i) != 0 {
			b = append(b, flagLetters[i])
		}
	}
	return string(b)
}

// PageRun is a run of pages in the same state, from First to before End.
type PageRun struct {
	First, End int64
	Flags      PageFlags
}

// runJoiner passes runs on, neighbours of equal flags joined.
type runJoiner struct {
	run  PageRun
	emit func(PageRun) bool
	done bool
}

// add takes the next run and reports whether more are wanted.
func (j *runJoiner) add(r PageRun) bool {
	if r.First == r.End || j.done {
		return !j.done
	}
	if j.run.End == r.First && j.run.Flags == r.Flags && j.run.First != j.run.End {
		j.run.End = r.End
		return true
	}
	j.flush()
	j.run = r
	return !j.done
}

// flush passes on what is held back.
func (j *runJoiner) flush() {
	if j.run.First != j.run.End && !j.done && !j.emit(j.run) {
		j.done = true
	}
	j.run = PageRun{}
}
