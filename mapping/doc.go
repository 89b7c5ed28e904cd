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
// [paging.PageSize] bytes; page indexes count from the beginning of the file. A
// [paging.Range] is half-open.
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
// file then stays open and mapped, whether or not a client has it open, and copied pages count
// against [Config].DirtyLimit.
//
// # Faults
//
// A load or store can fault: the file was truncated by somebody else, the
// device failed, the filesystem is full and the page was a hole. Every touch of
// mapped memory therefore goes through the functions of package guard, which
// turn SIGBUS and SIGSEGV into a refusal; the operation is then repeated by
// pread(2) or pwrite(2), which tell the true count and errno. Mapped memory is
// never handed out of the package except to the kernel.
//
// # Other mappings
//
// Beside the mapping that serves a file there can be others, which the engine does not
// make: package explicit has those that are made by command. [File.NoteStore],
// [File.MsyncOther] and [File.CountFault] are the engine's part in them.
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
//	  File.growMu            one change of size at a time
//	    File.syncMu          one write-back at a time; keeps the mapping and the descriptor
//	      File.mu            shared: use the mapping; exclusive: shrink the file, replace or drop the mapping
//	        atimeState.mu    whether the descriptor has O_NOATIME
//	        the record's own lock, for its chunks
//	        Table.mu         the set of files, the idle list, the ring of mappings
//
// No system call that can wait is made under Table.mu. A file's locks are never waited
// for under another file's: the evictor only tries them, and passes over a file that is
// busy.
package mapping
