package pagestate

// EachDirty calls emit for runs of the pages [first, end) of an open file that the kernel
// has changed and its device has not got, in order (cachestat(2)). It asks about halves
// until a range is all one or all the other, so that it costs with the changes and not with
// the file. Where the kernel does not tell, there are none.
func EachDirty(fd int, first, end int64, emit func(Run)) {
	if first >= end {
		return
	}
	cs, err := cachestat(fd, first, end)
	switch dirty := cs.Dirty + cs.Writeback; {
	case err != nil || dirty == 0:
	case dirty >= uint64(end-first):
		emit(Run{First: first, End: end})
	default:
		middle := first + (end-first)/2
		if middle == first {
			emit(Run{First: first, End: end})
			return
		}
		EachDirty(fd, first, middle, emit)
		EachDirty(fd, middle, end, emit)
	}
}
