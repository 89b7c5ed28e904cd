package fs

import (
	"golang.org/x/sys/unix"
)

// limits say how much of each resource of the daemon clients may take together.
// docs/resources.md has them in a table, with who pays for what.
type limits struct {
	// descriptors is the process's limit (RLIMIT_NOFILE). All that follows comes out
	// of it, so that no client can ever meet EMFILE.
	descriptors int
	// handles is how many files and directories clients may have open. Each may take
	// a descriptor; files that nobody has open any more take what is left of them.
	handles int64
	// idle caps the files that stay open though no client has them open.
	idle int
	// dirs caps the directories that are kept open to work from.
	dirs int
	// removed caps the removed inodes that are kept reachable; see node.last.
	removed int
	// workers caps the requests under way, each of which can hold a thread, and
	// during its work up to descriptorsPerRequest descriptors. waiting caps those that
	// hold neither: they wait for a worker, or for an event. Each keeps its message.
	workers, waiting int
	// requestBytes bounds one read or write; 0 is as many as the system allows.
	requestBytes int
}

const (
	// descriptorsPerRequest is what the work on one request can hold for a moment: a
	// rename holds both directories and what it replaces, a walk to a directory the
	// step it is at, an open file a copy of a descriptor.
	descriptorsPerRequest = 6
	maxWorkers            = 256
	maxWaiting            = 4096
)

// ownDescriptors returns how many of a limit of descriptors are the daemon's own:
// log, session, epoll, metrics and their readers, page sources, a directory on each
// filesystem inside the backing one.
func ownDescriptors(descriptors int) int { return min(descriptors/8, 96) }

// TightSpace is how many bytes of free address space, and so of memory, are little:
// then there are fewer workers, and less waits.
const TightSpace = 1 << 30

// limitsOf divides a limit of descriptors, and bytes of free address space. A quarter is a reserve for the work on
// requests: names, attributes, listings, removal, the control tree and the unmount
// are served out of it when clients have taken all the rest.
func limitsOf(descriptors int, space int64) limits {
	l := limits{descriptors: descriptors}
	reserve := min(descriptors/4, maxWorkers*descriptorsPerRequest)
	l.workers = max(reserve/descriptorsPerRequest, 8)
	l.waiting = maxWaiting
	if space < TightSpace {
		l.workers, l.waiting, l.requestBytes = min(l.workers, 16), 64, 128<<10
	}
	l.dirs = max(min(descriptors/8, 16384), 4)
	l.removed = max(min(descriptors/16, 4096), 2)
	l.handles = int64(max(descriptors-ownDescriptors(descriptors)-reserve-l.dirs-l.removed, 16))
	l.idle = max(min(int(l.handles)/4, 8192), 4)
	return l
}

// descriptorLimit returns how many descriptors the process may have.
func descriptorLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Cur, 1<<20))
}
