package integration

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mapFile maps length bytes of a descriptor for reading and writing.
func (c *checkT) mapFile(fd, length, flags int) []byte {
	mem, err := unix.Mmap(fd, 0, length, unix.PROT_READ|unix.PROT_WRITE, flags)
	c.ok(err, "mmap")
	c.Cleanup(func() { _ = unix.Munmap(mem) })
	return mem
}

// mmapChecks are about mappings that clients make of mounted files.
var mmapChecks = []check{
	{name: "mmap_shared_load_and_store", run: func(c *checkT) {
		p := os.Getpagesize()
		want := pattern(1, 3*p+5)
		c.write(c.path("f"), string(want))
		fd := c.open(c.path("f"), unix.O_RDWR, 0)
		mem := c.mapFile(fd, len(want), unix.MAP_SHARED)
		sameBytes(c, string(mem), string(want), "loaded")
		for _, off := range []int{0, p - 1, p, 3 * p, 3*p + 4} {
			mem[off] ^= 0xff
			want[off] ^= 0xff
		}
		c.fdHolds(fd, string(want))
		c.ok(unix.Msync(mem, unix.MS_SYNC), "msync")
		c.holds(c.native()+"/f", string(want))
		// write(2) shows in the mapping, and after a store too.
		_, err := unix.Pwrite(fd, []byte("written"), int64(p-3))
		c.ok(err, "pwrite")
		sameBytes(c, string(mem[p-3:p+4]), "written", "loaded after the write")
		copy(want[p-3:], "written")
		c.holds(c.native()+"/f", string(want))
	}},
	{name: "mmap_between_two_processes", run: func(c *checkT) {
		p := os.Getpagesize()
		c.write(c.path("f"), strings.Repeat(".", 2*p))
		one := startClient(c, "mmap", c.path("f"), "shared", strconv.Itoa(2*p))
		two := startClient(c, "mmap", c.path("f"), "shared", strconv.Itoa(2*p))
		one.hear("mapped")
		two.hear("mapped")
		across := strconv.Itoa(p - 2)
		equal(c, one.ask("store %s from-one", across), "8", "stored by one")
		equal(c, two.ask("load %s 8", across), `"from-one"`, "loaded by two")
		equal(c, two.ask("store 0 from-two"), "8", "stored by two")
		equal(c, one.ask("load 0 8"), `"from-two"`, "loaded by one")
		// One page, both store, neither's bytes are lost.
		one.ask("store 100 AAAA")
		two.ask("store 104 BBBB")
		equal(c, one.ask("load 100 8"), `"AAAABBBB"`, "both stores")
		equal(c, one.ask("msync sync"), "ok", "msync")
		equal(c, two.ask("msync async"), "ok", "msync async")
		want := []byte(strings.Repeat(".", 2*p))
		copy(want, "from-two")
		copy(want[100:], "AAAABBBB")
		copy(want[p-2:], "from-one")
		c.holds(c.native()+"/f", string(want))
		one.wait()
		two.wait()
	}},
	{name: "mmap_store_reaches_backing_at_close", run: func(c *checkT) {
		c.write(c.path("f"), "....")
		p := startClient(c, "mmap", c.path("f"), "shared", "4")
		p.hear("mapped")
		p.ask("store 0 gone")
		p.wait()
		c.holds(c.path("f"), "gone")
		c.ok(syncFile(c.path("f")), "fsync")
		c.holds(c.native()+"/f", "gone")
	}},
	{name: "mmap_invalidate", run: func(c *checkT) {
		c.write(c.path("f"), "....")
		fd := c.open(c.path("f"), unix.O_RDWR, 0)
		mem := c.mapFile(fd, 4, unix.MAP_SHARED)
		mem[0] = 'x'
		c.ok(unix.Msync(mem, unix.MS_SYNC|unix.MS_INVALIDATE), "msync")
		sameBytes(c, string(mem), "x...", "mapping after MS_INVALIDATE")
		c.holds(c.native()+"/f", "x...")
	}},
	{name: "mmap_private", run: func(c *checkT) {
		c.write(c.path("f"), "original")
		fd := c.open(c.path("f"), unix.O_RDONLY, 0)
		mem := c.mapFile(fd, 8, unix.MAP_PRIVATE)
		copy(mem, "CHANGED!")
		sameBytes(c, string(mem), "CHANGED!", "private copy")
		c.holds(c.path("f"), "original")
		c.holds(c.native()+"/f", "original")
	}},
	{name: "mmap_permissions", run: func(c *checkT) {
		c.write(c.path("f"), "data")
		r := c.open(c.path("f"), unix.O_RDONLY, 0)
		_, err := unix.Mmap(r, 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.errno(err, unix.EACCES, "writable shared mapping of a read-only descriptor")
		w := c.open(c.path("f"), unix.O_WRONLY, 0)
		_, err = unix.Mmap(w, 0, 4, unix.PROT_READ, unix.MAP_PRIVATE)
		c.errno(err, unix.EACCES, "mapping of a write-only descriptor")
		d := c.open(c.dir, unix.O_RDONLY, 0)
		_, err = unix.Mmap(d, 0, 4, unix.PROT_READ, unix.MAP_PRIVATE)
		c.errno(err, unix.ENODEV, "mapping of a directory")
	}},
	{name: "mmap_outlives_close_and_unlink", run: func(c *checkT) {
		c.write(c.path("f"), "....")
		fd, err := unix.Open(c.path("f"), unix.O_RDWR, 0)
		c.ok(err, "open")
		mem := c.mapFile(fd, 4, unix.MAP_SHARED)
		c.ok(unix.Close(fd), "close")
		c.ok(unix.Unlink(c.path("f")), "unlink")
		copy(mem, "kept")
		c.ok(unix.Msync(mem, unix.MS_SYNC), "msync")
		sameBytes(c, string(mem), "kept", "mapping")
		c.write(c.path("f"), "new!")
		sameBytes(c, string(mem), "kept", "mapping beside a new file of the name")
		c.holds(c.path("f"), "new!")
	}},
	{name: "mmap_follows_growth", run: func(c *checkT) {
		p := os.Getpagesize()
		fd := c.open(c.path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.ok(unix.Ftruncate(fd, 10), "ftruncate")
		mem := c.mapFile(fd, 4*p, unix.MAP_SHARED)
		mem[0] = 'a'
		c.ok(unix.Ftruncate(fd, int64(4*p)), "ftruncate up")
		mem[4*p-1] = 'z'
		c.ok(unix.Msync(mem, unix.MS_SYNC), "msync")
		want := make([]byte, 4*p)
		want[0], want[4*p-1] = 'a', 'z'
		c.holds(c.native()+"/f", string(want))
	}},
	{name: "mmap_store_past_the_end_is_lost", run: func(c *checkT) {
		// Inside the last page one may store past the end; the file never gets it.
		p := os.Getpagesize()
		c.write(c.path("f"), "12345")
		fd := c.open(c.path("f"), unix.O_RDWR, 0)
		mem := c.mapFile(fd, p, unix.MAP_SHARED)
		copy(mem[3:], "xxxxxx")
		c.ok(unix.Msync(mem, unix.MS_SYNC), "msync")
		c.holds(c.path("f"), "123xx")
		c.holds(c.native()+"/f", "123xx")
	}},
	{name: "mmap_past_the_end_is_sigbus", run: func(c *checkT) {
		c.write(c.path("f"), strings.Repeat("x", os.Getpagesize()))
		_, err := clientErr("touch", c.path("f"), strconv.Itoa(os.Getpagesize()-1))
		c.ok(err, "load of the last byte")
		_, err = clientErr("touch", c.path("f"), strconv.Itoa(os.Getpagesize()))
		if err == nil || !strings.Contains(err.Error(), "SIGBUS") {
			c.Fatalf("load past the end: got %v, want SIGBUS", err)
		}
		c.holds(c.path("f"), strings.Repeat("x", os.Getpagesize()))
	}},
	{name: "mmap_of_a_file_that_shrank_is_sigbus", run: func(c *checkT) {
		p := os.Getpagesize()
		c.write(c.path("f"), strings.Repeat("x", 2*p))
		client := startClient(c, "mmap", c.path("f"), "shared", strconv.Itoa(2*p))
		client.hear("mapped")
		equal(c, client.ask("load %d 1", p), `"x"`, "load before")
		c.ok(unix.Truncate(c.path("f"), int64(p)), "truncate")
		client.say("load %d 1", p)
		err := client.waitErr()
		if err == nil || !strings.Contains(err.Error(), "SIGBUS") {
			c.Fatalf("load after the truncate: got %v, want SIGBUS", err)
		}
	}},
}

// copyProgram copies a program into the directory under test.
func (c *checkT) copyProgram(from, to string) {
	path, err := exec.LookPath(from)
	c.ok(err, "look for %s", from)
	data, err := os.ReadFile(path)
	c.ok(err, "read %s", path)
	c.ok(os.WriteFile(to, data, 0o755), "write %s", to)
}

// execChecks are about running programs.
var execChecks = []check{
	{name: "run_a_program", run: func(c *checkT) {
		c.copyProgram("echo", c.path("echo"))
		equal(c, run(c, c.path("echo"), "from", "the", "mount"), "from the mount\n", "output")
		c.as(alice, aliceGroup, func() {
			equal(c, run(c, c.path("echo"), "too"), "too\n", "output for another user")
		})
		c.ok(unix.Chmod(c.path("echo"), 0o644), "chmod")
		_, err := runErr(c.path("echo"))
		c.errno(err, unix.EACCES, "run without x")
	}},
	{name: "run_a_script", run: func(c *checkT) {
		c.ok(os.WriteFile(c.path("s"), []byte("#!/bin/sh\necho \"$0 says $1\"\n"), 0o755), "write")
		equal(c, run(c, c.path("s"), "hello"), c.path("s")+" says hello\n", "output")
	}},
	{name: "run_a_setuid_program", run: func(c *checkT) {
		c.copyProgram("id", c.path("id"))
		c.ok(unix.Chown(c.path("id"), alice, aliceGroup), "chown")
		c.ok(unix.Chmod(c.path("id"), 0o4755), "chmod")
		c.as(bob, bobGroup, func() {
			equal(c, strings.TrimSpace(run(c, c.path("id"), "-u")), strconv.Itoa(alice), "effective user")
		})
	}},
	{name: "write_to_a_running_program", run: func(c *checkT) {
		c.copyProgram("cat", c.path("cat"))
		cmd := exec.Command(c.path("cat"))
		p := startProc(c, cmd)
		equal(c, p.ask("alive"), "alive", "answer")
		_, err := unix.Open(c.path("cat"), unix.O_WRONLY, 0)
		c.errno(err, unix.ETXTBSY, "open of a running program for writing")
		c.ok(unix.Unlink(c.path("cat")), "unlink of a running program")
		equal(c, p.ask("still"), "still", "answer after unlink")
		p.wait()
		c.copyProgram("cat", c.path("cat"))
		w := c.open(c.path("cat"), unix.O_WRONLY, 0)
		_, err = runErr(c.path("cat"))
		c.errno(err, unix.ETXTBSY, "run of a program that is open for writing")
		unix.Close(w)
	}},
	{name: "run_a_program_just_written", run: func(c *checkT) {
		// Built, run and replaced as a compiler's test loop does.
		for _, word := range []string{"one", "two", "three"} {
			_ = unix.Unlink(c.path("s"))
			c.ok(os.WriteFile(c.path("s"), []byte("#!/bin/sh\necho "+word+"\n"), 0o755), "write")
			equal(c, run(c, c.path("s")), word+"\n", "output")
		}
	}},
}

// lockChecks are about locks between processes.
var lockChecks = []check{
	{name: "flock", run: func(c *checkT) {
		c.write(c.path("f"), "")
		one := startClient(c, "fd", c.path("f"), "rw")
		two := startClient(c, "fd", c.path("f"), "rw")
		one.hear("open")
		two.hear("open")
		equal(c, one.ask("flock sh"), "ok", "one shares")
		equal(c, two.ask("flock sh"), "ok", "two shares")
		equal(c, one.ask("flock ex"), "error: EAGAIN", "one wants it alone")
		equal(c, two.ask("flock un"), "ok", "two lets go")
		equal(c, one.ask("flock ex"), "ok", "one has it alone")
		equal(c, two.ask("flock sh"), "error: EAGAIN", "two comes too late")
		one.wait()
		equal(c, two.ask("flock ex"), "ok", "two, after the end of one")
		two.wait()
	}},
	{name: "fcntl_locks", run: func(c *checkT) {
		c.write(c.path("f"), "")
		one := startClient(c, "fd", c.path("f"), "rw")
		two := startClient(c, "fd", c.path("f"), "rw")
		one.hear("open")
		two.hear("open")
		equal(c, one.ask("getlock"), "free", "at first")
		equal(c, one.ask("lock w"), "ok", "one locks")
		equal(c, two.ask("lock r"), "error: EAGAIN", "two cannot")
		equal(c, two.ask("getlock"), "held by "+itoa(one.cmd.Process.Pid), "the holder")
		two.say("waitlock w")
		equal(c, one.ask("pwrite 0 locked"), "6", "the holder writes")
		equal(c, one.ask("lock un"), "ok", "one unlocks")
		two.hear("ok")
		equal(c, two.ask("pread 0 6"), `"locked"`, "two reads")
		equal(c, one.ask("lock r"), "error: EAGAIN", "one comes too late")
		two.wait()
		equal(c, one.ask("lock w"), "ok", "one, after the end of two")
		one.wait()
	}},
	{name: "ofd_locks", run: func(c *checkT) {
		one := c.open(c.path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		two := c.open(c.path("f"), unix.O_RDWR, 0)
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Len: 10}
		c.ok(unix.FcntlFlock(uintptr(one), unix.F_OFD_SETLK, &lock), "lock")
		c.errno(unix.FcntlFlock(uintptr(two), unix.F_OFD_SETLK, &lock), syscall.EAGAIN, "lock again")
		lock.Start = 10
		c.ok(unix.FcntlFlock(uintptr(two), unix.F_OFD_SETLK, &lock), "lock of another range")
	}},
}
