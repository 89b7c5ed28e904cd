package mapping

import (
	"log/slog"
	"syscall"
)

// Kind says what an [Event] is about.
type Kind uint8

// The kinds of events.
const (
	EventRead       Kind = iota // bytes were loaded for a read(2) that reached the engine
	EventWrite                  // bytes were stored for a write(2)
	EventStore                  // bytes that a client stored through its own mapping arrived
	EventExtend                 // the file grew: Off to Off+Length are new
	EventTruncate               // the size was set: from Off to Length
	EventZero                   // stale bytes past the end were cleared
	EventCopy                   // pages were copied on write: Pages of those from Off to Off+Length
	EventMap                    // the file was mapped at Addr
	EventUnmap                  // the mapping at Addr was unmapped
	EventMsync                  // a write-back ended
	EventFault                  // a load or store at Addr faulted
	EventInvalidate             // cached pages were invalidated, or copies discarded
	EventEvict                  // the mapping was evicted to make room for another
	EventOpen                   // a client opened the file
	EventClose                  // a client's handle was released
	// EventPowercut: the power failed. Pages operations were lost, with Length bytes, and Off
	// survived that nobody had promised.
	EventPowercut
)

// String returns the kind's name.
func (k Kind) String() string {
	return [...]string{
		"read", "write", "store", "extend", "truncate", "zero", "copy", "map", "unmap", "msync",
		"fault", "invalidate", "evict", "open", "close", "powercut",
	}[k]
}

// Event is something that happened to a file. Which fields mean something is up
// to the kind.
type Event struct {
	Kind        Kind
	File        ID
	Name        string  // as SetName was told
	Off, Length int64   // bytes
	Addr        uintptr // of a mapping or a fault
	Pages       int64   // pages written back, or copied
	Flags       int     // of msync(2), or of open(2)
	PID         uint32  // the client's process, 0 if the kernel does not tell
	Err         error   // how a write-back ended

	Mapping string         // the name of the explicit mapping, "" if it was none
	Signal  syscall.Signal // of a fault in an explicit mapping
}

// An Observer is told of events as they happen, from the goroutine that makes
// them happen and with locks held: it must return soon, without calling back.
type Observer interface{ Observe(Event) }

// silent is the Observer of a table that has none.
type silent struct{}

func (silent) Observe(Event) {}

// observe tells the table's observer of an event of f.
func (f *File) observe(e Event) {
	switch e.Kind {
	case EventRead, EventOpen, EventClose, EventMap, EventUnmap, EventEvict:
	default:
		f.Changed()
		f.stale()
	}
	e.File, e.Name = f.id, f.Name()
	f.table.observer.Observe(e)
}

// defaultLog is where a table without a logger logs.
func defaultLog(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.Default()
	}
	return log
}
