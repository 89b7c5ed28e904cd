package fs

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"mapfs/fs/fault"
	"mapfs/fs/wire"
	"mapfs/mapping"
)

// Session is one mounted backing directory.
type Session struct {
	opts    Options
	log     *slog.Logger
	conn    *wire.Conn
	subtree Subtree // nil if there is none

	limits    limits
	admission admission

	files   *mapping.Table
	nodes   nodeTable
	dirs    dirCache
	handles handleTable
	devices deviceTable
	faults  fault.Set
	history *history // nil if the mount has none

	passthrough passthrough

	// uid and gid are the daemon's own; what others create is created in
	// their name when the daemon is root.
	uid, gid uint32
	// groups are the daemon's supplementary groups.
	groups []uint32

	// renameMu is held by a rename from its system call to its note in the
	// nodes. A search that finds a node at none of its names waits for that.
	renameMu sync.RWMutex

	// forgotten counts the removed files that the kernel has forgotten.
	forgotten atomic.Uint64
	// slowSync says that the last fsync of a client took long.
	slowSync atomic.Bool
	flusher  sync.WaitGroup
	done     chan struct{} // closed when the session has ended
}
