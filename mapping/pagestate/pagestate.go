// Package pagestate says in what state the pages of a file are, as far as the kernel
// tells: cachestat(2), mincore(2), /proc/self/pagemap and /proc/kpageflags.
package pagestate

// Flags say in what state a page of a file is.
type Flags uint8

// What can be said of a page. The first three are the kernel's word, Unsynced is
// the engine's own record; where the two differ both are shown.
const (
	Resident  Flags = 1 << iota // in the page cache
	Dirty                       // modified in memory
	Writeback                   // on its way to the device
	Copied                      // copied on write: no longer the file's
	Unsynced                    // has bytes that a power cut would take
	Tail                        // has the end of the file
)

// flagLetters are the letters of the flags, in the order of their bits.
const flagLetters = "RDWCUT"

// String returns the letters of the flags that are set, or "-".
func (p Flags) String() string {
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

// Run is a run of pages in the same state, from First to before End.
type Run struct {
	First, End int64
	Flags      Flags
}

// Joiner passes runs on, neighbours of equal flags joined.
type Joiner struct {
	run  Run
	Emit func(Run) bool
	Done bool
}

// Add takes the next run and reports whether more are wanted.
func (j *Joiner) Add(r Run) bool {
	if r.First == r.End || j.Done {
		return !j.Done
	}
	if j.run.End == r.First && j.run.Flags == r.Flags && j.run.First != j.run.End {
		j.run.End = r.End
		return true
	}
	j.Flush()
	j.run = r
	return !j.Done
}

// Flush passes on what is held back.
func (j *Joiner) Flush() {
	if j.run.First != j.run.End && !j.Done && !j.Emit(j.run) {
		j.Done = true
	}
	j.run = Run{}
}
