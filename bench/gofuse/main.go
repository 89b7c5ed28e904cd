// Command gofuse is go-fuse's loopback example (example/loopback of its pinned
// version, same mount options) with one switch more: the kernel's passthrough, which
// the example uses whenever it runs as root, is off unless -passthrough is given.
// With it the daemon sees no read and no write, so it is a limit and no peer.
//
// usage: gofuse [-passthrough] BACKING MOUNTPOINT
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

func main() {
	passthrough := flag.Bool("passthrough", false, "let the kernel read and write the backing files by itself")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: gofuse [-passthrough] BACKING MOUNTPOINT")
		os.Exit(2)
	}
	if err := serve(flag.Arg(0), flag.Arg(1), *passthrough); err != nil {
		fmt.Fprintln(os.Stderr, "gofuse:", err)
		os.Exit(1)
	}
}

// serve mounts backing on mountpoint and answers until it is unmounted.
func serve(backing, mountpoint string, passthrough bool) error {
	root, err := fs.NewLoopbackRoot(backing)
	if err != nil {
		return err
	}
	second := time.Second
	options := &fs.Options{
		AttrTimeout:     &second,
		EntryTimeout:    &second,
		NullPermissions: true,
		MountOptions:    fuse.MountOptions{FsName: backing, Name: "loopback"},
	}
	if !passthrough {
		options.DisabledCapabilities = fuse.CAP_PASSTHROUGH
	}
	server, err := fs.Mount(mountpoint, root, options)
	if err != nil {
		return err
	}

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		server.Unmount() // a failure shows: the mount stays
	}()
	server.Wait()
	return nil
}
