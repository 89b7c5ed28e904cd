package sys

import (
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"mapfs/mapping/paging"
)

// allAddressSpace stands for what a process has where nothing limits it: half of the
// least that a 64-bit Linux gives.
const allAddressSpace = 64 << 40

// FreeAddressSpace returns how many bytes of address space the process may still map
// (setrlimit(2): RLIMIT_AS). All of it cannot be had: the Go heap, stacks of threads
// and libraries need some.
func FreeAddressSpace() int64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &limit); err != nil || limit.Cur >= allAddressSpace {
		return min(allAddressSpace, math.MaxInt/4)
	}
	return max(int64(limit.Cur)-addressSpaceTaken(), 0)
}

// addressSpaceTaken returns how many bytes of address space the process has mapped
// (proc_pid_statm(5)).
func addressSpaceTaken() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, _, _ := strings.Cut(string(text), " ")
	n, _ := strconv.ParseInt(pages, 10, 64)
	return n * paging.PageSize
}
