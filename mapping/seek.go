package mapping

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/mapping/dirty"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// SeekData returns where the next data at or after off begins (lseek(2): SEEK_DATA), or
// ENXIO if there is none: in the modes that copy, whatever has been copied is data, and
// so is what the file has where nothing was.
func (f *File) SeekData(off int64) (int64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.copies == nil {
		at, err := unix.Seek(f.fd, off, unix.SEEK_DATA)
		return at, os.NewSyscallError("lseek", err)
	}
	size := f.size.Load()
	if off < 0 || off >= size {
		return 0, os.NewSyscallError("lseek", syscall.ENXIO)
	}
	at, err := f.fileDataLocked(off)
	if err != nil {
		return 0, err
	}
	if copied := f.nextCopied(off, min(at, size)); copied.Off < at {
		at = max(copied.Off, off)
	}
	if at >= size {
		return 0, os.NewSyscallError("lseek", syscall.ENXIO)
	}
	return at, nil
}

// SeekHole returns where the next hole at or after off begins (lseek(2): SEEK_HOLE),
// which is the end of the file if there is no other, or ENXIO past the end.
func (f *File) SeekHole(off int64) (int64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.copies == nil {
		at, err := unix.Seek(f.fd, off, unix.SEEK_HOLE)
		return at, os.NewSyscallError("lseek", err)
	}
	size := f.size.Load()
	if off < 0 || off >= size {
		return 0, os.NewSyscallError("lseek", syscall.ENXIO)
	}
	for off < size {
		page := paging.PageDown(off)
		if copied := f.nextCopied(page, page+paging.PageSize); !copied.Empty() {
			off = f.nextCopied(page, size).End
			continue
		}
		data, err := f.fileDataLocked(off)
		if err != nil {
			return 0, err
		}
		if data > off {
			return off, nil
		}
		hole, err := unix.Seek(f.fd, off, unix.SEEK_HOLE)
		if err != nil {
			return 0, os.NewSyscallError("lseek", err)
		}
		off = hole
	}
	return size, nil // off can lie past it, where BACKING is longer
}

// noMoreData is past every offset.
const noMoreData = 1<<63 - 1

// fileDataLocked returns where the file below the copies has its next data at or after
// off, noMoreData if it has none. Some of it may show no longer, because the file was cut
// in memory: then zeros are called data, which is allowed. f.mu must be held.
func (f *File) fileDataLocked(off int64) (int64, error) {
	at, err := unix.Seek(f.fd, off, unix.SEEK_DATA)
	switch {
	case err == syscall.ENXIO:
		return noMoreData, nil
	case err != nil:
		return 0, os.NewSyscallError("lseek", err)
	}
	return at, nil
}

// nextCopied returns the first run of copied pages that meets the bytes from off to end,
// empty at noMoreData if there is none.
func (f *File) nextCopied(off, end int64) paging.Range {
	found := paging.Range{Off: noMoreData, End: noMoreData}
	last := (end + paging.PageSize - 1) / paging.PageSize
	f.record.Runs(off/paging.PageSize, last, func(run pagestate.Run, states dirty.State) bool {
		switch is := states&dirty.Copied != 0; {
		case is && found.Empty():
			found = paging.Range{Off: run.First * paging.PageSize, End: run.End * paging.PageSize}
		case is && found.End == run.First*paging.PageSize:
			found.End = run.End * paging.PageSize
		case !found.Empty():
			return false
		}
		return true
	})
	return found
}
