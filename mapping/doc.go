// Package mapping serves files from memory mappings: reads are loads from, and
// writes are stores to, one mapping of each file (mmap(2)), and write-back is
// msync(2). It knows nothing of FUSE.
//
// A [Table] holds the files that are open; [Table.OpenFile] opens one. A [File] is
// in one of three modes:
//
//   - [Shared] is MAP_SHARED: what is stored is in the file at once.
//   - [Private] is MAP_PRIVATE: what is stored stays in memory.
//   - [Staged] is MAP_PRIVATE until [File.Sync], which writes what was stored.
//
// # Units
//
// Offsets (off), spans (length) and file lengths (size) are bytes. A page is
// PageSize bytes; page indexes count from the beginning of the file. A [Range]
// is half-open.
//
// # Coherence
//
// A [File] stands for one inode of the backing filesystem, however many names
// and handles it has. Its mapping and read(2)/write(2) by anybody else share the
// kernel's page cache, so every store is visible to every process at once. What
// is not yet on the device is remembered page by page until a [File.Sync] has
// succeeded.
//
// In the modes that copy this holds for pages that were not stored to. Those that
// were, and a size that was changed, are in the memory of the process alone. The
// file then stays open and mapped, whoever has it open, and copied pages count
// against [Config].DirtyLimit.
//
// # Faults
//
// A load or store can fault: the file was truncated by somebody else, the
// device failed, the filesystem is full and the page was a hole. Every touch of
// mapped memory therefore goes through the guarded functions of fault.go, which
// turn SIGBUS and SIGSEGV into a refusal; the operation is then repeated by
// pread(2) or pwrite(2), which tell the true count and errno. Mapped memory is
// never handed out of the package except to the kernel.
//
// # Explicit mappings
//
// Beside the mapping that serves a file there can be others, made by [Arena.Mmap]
// with the arguments of mmap(2). They hold to those and to nothing else: their
// memory faults as the hardware and the kernel will have it, and such a fault is
// the answer and not repeated by other means.
//
// # Errors
//
// Errors are *os.SyscallError around the errno of the system call that failed.
// A short read is no error: it means the end of the file. A write that stops
// early returns the count that was stored and no error, as write(2) does.
//
// # Concurrency
//
// All methods may be called at the same time from any goroutine. The race
// detector does not see mapped memory: loads and stores of the same bytes may
// overlap and then tear, exactly as with any shared mapping.
//
// Lock order, the outer first:
//
//	parkedFile.mu            one making anew of a parked file at a time
//	Mapping.use              shared: use its memory; exclusive: take pages away or protect them
//	  Mapping.lockMu         one mlock or munlock at a time
//	    Arena.changeMu       one mmap, munmap or mprotect of an explicit mapping at a time
//	      Arena.mu           the list of segments, the names
//	  File.growMu, and what comes after it
//
//	File.growMu              one change of size at a time
//	  File.syncMu            one write-back at a time; keeps the mapping and the descriptor
//	    File.mu              shared: use the mapping; exclusive: shrink the file, replace or drop the mapping
//	      atimeState.mu      whether the descriptor has O_NOATIME
//	      pageRecord.mu      the chunks of the page record
//	      Table.mu           the set of files, the idle list, the ring of mappings
//
// No system call that can wait is made under Table.mu or Arena.mu. A file's locks
// are never waited for under another file's: the evictor only tries them, and
// passes over a file that is busy.
//
// Who needs the use of several mappings takes them in the order in which they were
// made. A munmap waits for an msync of the same mapping, or for a page of it that comes
// from a slow device. It does so without Arena.changeMu, under which nothing waits, and
// an mmap waits for its pages (MAP_POPULATE, MAP_LOCKED) when it has given that back: so
// other mappings never wait with it.
package mapping
