package mapping_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"mapfs/mapping"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// scratch makes a file with the given text in a directory of its own.
func scratch(text string) (path string, remove func()) {
	dir, err := os.MkdirTemp("", "mapping-example-")
	if err != nil {
		log.Fatal(err)
	}
	path = filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		log.Fatal(err)
	}
	return path, func() { os.RemoveAll(dir) }
}

// show prints what the engine and the backing file have.
func show(when string, f *mapping.File, path string) {
	p := make([]byte, 100)
	n, err := f.ReadAt(p, 0)
	if err != nil {
		log.Fatal(err)
	}
	backing, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: the mapping has %q, the file %q, unsynced %d bytes\n", when, p[:n], backing, f.UnsyncedBytes())
}

// A shared mapping is the file: a store shows at once, and a sync takes it to the
// device.
func ExampleTable_shared() {
	path, remove := scratch("hello, world")
	defer remove()
	table := mapping.NewTable(mapping.Config{})
	defer table.Close()
	f, err := table.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Release(true)

	if _, err := f.WriteAt([]byte("HELLO"), 0, mapping.Origin{}); err != nil {
		log.Fatal(err)
	}
	show("stored", f, path)
	failures := f.Failures()
	if err := f.Sync(&failures, false); err != nil {
		log.Fatal(err)
	}
	show("synced", f, path)
	// Output:
	// stored: the mapping has "HELLO, world", the file "HELLO, world", unsynced 12 bytes
	// synced: the mapping has "HELLO, world", the file "HELLO, world", unsynced 0 bytes
}

// A private mapping copies what is stored to; the file never changes.
func ExampleTable_private() {
	path, remove := scratch("hello, world")
	defer remove()
	table := mapping.NewTable(mapping.Config{Mode: mapping.Private})
	defer table.Close()
	f, err := table.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Release(true)

	if _, err := f.WriteAt([]byte("HELLO"), 0, mapping.Origin{}); err != nil {
		log.Fatal(err)
	}
	show("stored", f, path)
	if err := f.Msync(0, 0, unix.MS_INVALIDATE); err != nil {
		log.Fatal(err)
	}
	show("given up", f, path)
	// Output:
	// stored: the mapping has "HELLO, world", the file "hello, world", unsynced 12 bytes
	// given up: the mapping has "hello, world", the file "hello, world", unsynced 0 bytes
}

// A staged mapping copies what is stored to, and writes it when it is synced.
func ExampleTable_staged() {
	path, remove := scratch("hello, world")
	defer remove()
	table := mapping.NewTable(mapping.Config{Mode: mapping.Staged})
	defer table.Close()
	f, err := table.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Release(true)

	if err := f.Truncate(5); err != nil {
		log.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("J"), 0, mapping.Origin{}); err != nil {
		log.Fatal(err)
	}
	show("stored", f, path)
	failures := f.Failures()
	if err := f.Sync(&failures, false); err != nil {
		log.Fatal(err)
	}
	show("synced", f, path)
	// Output:
	// stored: the mapping has "Jello", the file "hello, world", unsynced 5 bytes
	// synced: the mapping has "Jello", the file "Jello", unsynced 0 bytes
}

// What the kernel and the engine know of each page can be looked at.
func ExampleFile_Inspect() {
	path, remove := scratch(string(make([]byte, 3*paging.PageSize)))
	defer remove()
	table := mapping.NewTable(mapping.Config{Mode: mapping.Private})
	defer table.Close()
	f, err := table.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Release(true)
	if _, err := f.WriteAt([]byte("x"), paging.PageSize, mapping.Origin{}); err != nil {
		log.Fatal(err)
	}

	kernel := pagestate.Probe(unix.AT_FDCWD)
	defer kernel.Close()
	err = f.Inspect(kernel, 0, 3, func(run pagestate.Run) bool {
		fmt.Printf("pages %d to %d copied: %v\n", run.First, run.End-1, run.Flags&pagestate.Copied != 0)
		return true
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// pages 0 to 0 copied: false
	// pages 1 to 1 copied: true
	// pages 2 to 2 copied: false
}
