// Command plain is the loopback that one writes first with bazil.org/fuse: fs.Serve
// dispatches, every node is a path, every read is a pread into a buffer and every
// write a pwrite. It is what mapfs would be without its own request loop and
// without its mappings, and so the peer that shows what these two bring.
//
// usage: plain BACKING MOUNTPOINT
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"bazil.org/fuse"
	"bazil.org/fuse/fs"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: plain BACKING MOUNTPOINT")
		os.Exit(2)
	}
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "plain:", err)
		os.Exit(1)
	}
}

// serve mounts backing on mountpoint and answers until it is unmounted.
func serve(backing, mountpoint string) error {
	// The kernel has applied the client's umask already.
	syscall.Umask(0)

	conn, err := fuse.Mount(mountpoint, fuse.FSName("plain"), fuse.Subtype("plain"),
		// As every other peer has: bazil's default is no readahead at all.
		fuse.MaxReadahead(128<<10), fuse.AsyncRead())
	if err != nil {
		return err
	}
	defer conn.Close()

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		fuse.Unmount(mountpoint) // a failure shows: the mount stays
	}()
	return fs.Serve(conn, newTree(backing))
}

// errno takes the number out of what package os wraps: bazil would make EIO of it.
func errno(err error) error {
	switch e := err.(type) {
	case *os.PathError:
		err = e.Err
	case *os.LinkError:
		err = e.Err
	case *os.SyscallError:
		err = e.Err
	}
	if n, ok := err.(syscall.Errno); ok {
		return fuse.Errno(n)
	}
	return err
}
