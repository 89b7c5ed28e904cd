package mapping

import "time"

// A page that somebody else's truncation takes away while it is being sent to a client
// makes that answer an error: the kernel has taken the reply for given when it finds the
// page missing, and no other can be sent. The engine looks before it sends, so it takes
// a truncation in the microseconds between. Once a file was cut behind the engine, its
// reads go by pread(2) for a while, whose bytes nobody can take away.

// cutMemory is for how long a truncation by others is remembered.
const cutMemory = 10 * time.Second

// wasCut notes that somebody else has truncated the file.
func (f *File) wasCut() { f.cutAt.Store(time.Now().UnixNano()) }

// beenCut reports whether somebody else has truncated the file lately.
func (f *File) beenCut() bool {
	at := f.cutAt.Load()
	if at == 0 {
		return false
	}
	if time.Now().UnixNano()-at < int64(cutMemory) {
		return true
	}
	f.cutAt.CompareAndSwap(at, 0)
	return false
}
