package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// repeatClient prepares operations of one kind, says "ready", does n of them when told
// to, says "done", and ends when its input does: between the two words the daemon
// works for nothing else. What it makes it leaves to whoever removes the backing
// directory: some peers hide a file that is removed while open, and keep its directory.
func repeatClient(args []string) error {
	kind, shared, n := args[0], args[2], number(args[3])
	own, err := os.MkdirTemp(args[1], kind)
	if err != nil {
		return err
	}
	operations, err := prepareOperations(kind, own, shared, n)
	if err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	if !in.Scan() {
		return errors.New("told nothing")
	}
	if err := operations(); err != nil {
		return err
	}
	fmt.Println("done")
	in.Scan()
	return nil
}

// prepareOperations returns a function that does n operations. The files that it opens
// stay open until the process ends.
func prepareOperations(kind, own, shared string, n int) (func() error, error) {
	named := func(names []string, op func(string) error) func() error {
		return func() error {
			_, err := each(names, op)
			return err
		}
	}
	mine := fileNames(own, n)
	known := fileNames(shared+"/a", n)
	withData := fileNames(shared+"/c", n)
	switch kind {
	case "stat":
		return named(known, opStat), nil
	case "restat":
		_, err := each(known, opStat)
		time.Sleep(expiry)
		return named(known, opStat), err
	case "missing":
		return named(mine, opMissing), nil
	case "open":
		_, err := each(known, opStat)
		return named(known, opOpenClose), err
	case "open-read":
		return named(withData, opOpenRead), nil
	case "create":
		return named(mine, opCreate), nil
	case "unlink":
		_, err := each(mine, opCreate)
		return named(mine, opUnlink), err
	case "mkdir":
		return named(mine, opMkdir), nil
	case "rmdir":
		_, err := each(mine, opMkdir)
		return named(mine, opRmdir), err
	}
	return prepareData(kind, own+"/data", n)
}

// prepareData is prepareOperations for those on one open file.
func prepareData(kind, path string, n int) (func() error, error) {
	const blocks = 256
	flags := syscall.O_RDWR | syscall.O_CREAT | syscall.O_CLOEXEC
	buf := block
	if kind == "read-128k" {
		buf = alignedBlock(128 << 10)
	}
	fd, err := syscall.Open(path, flags, 0o644)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	for i := range blocks {
		if _, err := syscall.Pwrite(fd, block, int64(i*len(block))); err != nil {
			return nil, &os.PathError{Op: "write", Path: path, Err: err}
		}
	}
	repeat := func(op func(i int) error) func() error {
		return func() error {
			for i := range n {
				if err := op(i); err != nil {
					return &os.PathError{Op: kind, Path: path, Err: err}
				}
			}
			return nil
		}
	}
	size := blocks * len(block)
	switch kind {
	case "read-4k", "read-128k":
		direct, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_DIRECT|syscall.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		// Once before: the first read of a file maps it.
		if _, err := syscall.Pread(direct, buf, 0); err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		return repeat(func(i int) error {
			_, err := syscall.Pread(direct, buf, int64(i*len(buf)%size))
			return err
		}), nil
	case "overwrite":
		return repeat(func(i int) error {
			_, err := syscall.Pwrite(fd, buf, int64(i*len(buf)%size))
			return err
		}), nil
	case "append":
		return repeat(func(i int) error {
			_, err := syscall.Pwrite(fd, buf, int64(size+i*len(buf)))
			return err
		}), nil
	case "write-fsync":
		return repeat(func(i int) error {
			if _, err := syscall.Pwrite(fd, buf, int64(i*len(buf)%size)); err != nil {
				return err
			}
			return syscall.Fsync(fd)
		}), nil
	}
	return nil, fmt.Errorf("no operation %q", kind)
}
