package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The single operations that the metadata driver and the counting mode are made of.
// They are raw system calls on prepared names: package os would add calls of its own
// (it offers every file to the poller) and allocations to each.

// fileNames returns the names of n files in dir.
func fileNames(dir string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s/f%06d", dir, i)
	}
	return names
}

// each calls op on every name and returns the seconds it took.
func each(names []string, op func(name string) error) (float64, error) {
	start := time.Now()
	for _, name := range names {
		if err := op(name); err != nil {
			return 0, &os.PathError{Op: "client", Path: name, Err: err}
		}
	}
	return time.Since(start).Seconds(), nil
}

func opCreate(name string) error {
	fd, err := syscall.Open(name, syscall.O_CREAT|syscall.O_EXCL|syscall.O_WRONLY|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return syscall.Close(fd)
}

var statBuf syscall.Stat_t

func opStat(name string) error { return syscall.Lstat(name, &statBuf) }

func opMissing(name string) error {
	if err := syscall.Lstat(name, &statBuf); err != syscall.ENOENT {
		return fmt.Errorf("stat of a missing name gives %v", err)
	}
	return nil
}

func opOpenClose(name string) error {
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return syscall.Close(fd)
}

var block = alignedBlock(4096)

func opOpenRead(name string) error {
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	n, err := syscall.Read(fd, block)
	if err == nil && n != len(block) {
		err = fmt.Errorf("read %d bytes", n)
	}
	if closeErr := syscall.Close(fd); err == nil {
		err = closeErr
	}
	return err
}

func opUnlink(name string) error { return syscall.Unlink(name) }

func opMkdir(name string) error { return syscall.Mkdir(name, 0o755) }

func opRmdir(name string) error { return syscall.Rmdir(name) }

// alignedBlock returns size bytes that start on a page, as O_DIRECT wants them.
func alignedBlock(size int) []byte {
	page := os.Getpagesize()
	buf := make([]byte, size+page)
	skip := page - int(uintptr(unsafe.Pointer(unsafe.SliceData(buf)))%uintptr(page))
	return buf[skip : skip+size]
}

func fadviseDontNeed(f *os.File) error {
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// number parses a client's argument, which this program itself wrote.
func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}
