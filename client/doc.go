// Package client is a process's own mapping of any file on any filesystem: what
// a program does with mmap(2), without anybody in between. It also moves
// messages between two processes through such a mapping and through the other
// ways that the kernel has, to compare them.
//
// # Units
//
// Offsets (off) and spans (length) are bytes. Those given to the methods of a
// [Mapping] count from the mapping's beginning, not from the file's.
//
// # Faults
//
// A load or store that the hardware or the filesystem refuses is a real SIGBUS
// or SIGSEGV. Load and Store survive it and return a [*Fault], which says where
// it was and why; the command that uses this package then ends as the signal
// would have ended it. Nothing is repeated by read(2) or write(2): a client's
// mapping shows what mapped memory does.
//
// # Concurrency
//
// A [Mapping] belongs to one goroutine. Its bytes belong to everybody who maps
// the file: the race detector does not see mapped memory, and neither Load nor
// Store keeps others away; see [RunIPC] for what does.
package client
