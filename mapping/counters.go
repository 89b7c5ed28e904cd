package mapping

import "sync/atomic"

// Counters counts what happened to a file, or to all files of a table.
type Counters struct {
	Reads  Counter // read(2) that reached the engine
	Writes Counter // write(2)
	Stores Counter // arrivals of what clients stored through their own mappings
	Faults Counter // faults of the engine's own loads and stores
	Msyncs Counter // write-backs
}

// Counter is a number that only grows.
type Counter struct{ n atomic.Uint64 }

// Load returns the count so far.
func (c *Counter) Load() uint64 { return c.n.Load() }

// add counts one more of the given kind, in c and for the whole table.
func (c *Counter) add(t *Table, kind Kind) {
	c.n.Add(1)
	t.counters.of(kind).n.Add(1)
}

// of returns the counter of a kind of event.
func (c *Counters) of(kind Kind) *Counter {
	switch kind {
	case EventRead:
		return &c.Reads
	case EventWrite:
		return &c.Writes
	case EventStore:
		return &c.Stores
	case EventFault:
		return &c.Faults
	}
	return &c.Msyncs
}

// Counters returns the file's counters.
func (f *File) Counters() *Counters { return &f.counters }

// Counters returns the counters of all files, closed ones included.
func (t *Table) Counters() *Counters { return &t.counters }
