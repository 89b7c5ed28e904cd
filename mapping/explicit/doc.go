// Package explicit has mappings that are made by command, with the arguments of mmap(2),
// in an [Arena] of address space. They hold to those and to nothing else: their memory
// faults as the hardware and the kernel will have it, and such a fault is the answer and
// not repeated by other means.
//
// # Concurrency
//
// All methods may be called at the same time from any goroutine. Lock order, the outer
// first:
//
//	Mapping.use              shared: use its memory; exclusive: take pages away or protect them
//	  Mapping.lockMu         one mlock or munlock at a time
//	    Arena.changeMu       one mmap, munmap or mprotect at a time
//	      Arena.mu           the list of segments, the names
//	  the locks of a mapping.File, see there
//
// No system call that can wait is made under Arena.mu. An operation on several mappings
// takes their use in the order in which they were made. A munmap waits for an msync of
// the same mapping, or for a page of it that comes from a slow device. It does so without
// Arena.changeMu, under which nothing waits, and an mmap waits for its pages
// (MAP_POPULATE, MAP_LOCKED) when it has given that back: so other mappings never wait
// with it.
package explicit
