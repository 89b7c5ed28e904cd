package posix

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// mapFile maps length bytes of a descriptor for reading and writing.
func (c *checkT) mapFile(fd, length, flags int) []byte {
	mem, err := unix.Mmap(fd, 0, length, unix.PROT_READ|unix.PROT_WRITE, flags)
	c.Ok(err, "mmap")
	c.Cleanup(func() { _ = unix.Munmap(mem) })
	return mem
}

// mmapChecks are about mappings that clients make of mounted files.
var mmapChecks = []check{
	{name: "mmap_shared_load_and_store", run: func(c *checkT) {
		p := os.Getpagesize()
		want := harness.Pattern(1, 3*p+5)
		c.Write(c.Path("f"), string(want))
		fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
		mem := c.mapFile(fd, len(want), unix.MAP_SHARED)
		harness.SameBytes(c, string(mem), string(want), "loaded")
		for _, off := range []int{0, p - 1, p, 3 * p, 3*p + 4} {
			mem[off] ^= 0xff
			want[off] ^= 0xff
		}
		c.FdHolds(fd, string(want))
		c.Ok(unix.Msync(mem, unix.MS_SYNC), "msync")
		c.Holds(c.Native()+"/f", string(want))
		// write(2) shows in the mapping, and after a store too.
		_, err := unix.Pwrite(fd, []byte("written"), int64(p-3))
		c.Ok(err, "pwrite")
		harness.SameBytes(c, string(mem[p-3:p+4]), "written", "loaded after the write")
		copy(want[p-3:], "written")
		c.Holds(c.Native()+"/f", string(want))
	}},
	{name: "mmap_between_two_processes", run: func(c *checkT) {
		p := os.Getpagesize()
		c.Write(c.Path("f"), strings.Repeat(".", 2*p))
		one := harness.StartClient(c, "mmap", c.Path("f"), "shared", strconv.Itoa(2*p))
		two := harness.StartClient(c, "mmap", c.Path("f"), "shared", strconv.Itoa(2*p))
		one.Hear("mapped")
		two.Hear("mapped")
		across := strconv.Itoa(p - 2)
		harness.Equal(c, one.Ask("store %s from-one", across), "8", "stored by one")
		harness.Equal(c, two.Ask("load %s 8", across), `"from-one"`, "loaded by two")
		harness.Equal(c, two.Ask("store 0 from-two"), "8", "stored by two")
		harness.Equal(c, one.Ask("load 0 8"), `"from-two"`, "loaded by one")
		// One page, both store, neither's bytes are lost.
		one.Ask("store 100 AAAA")
		two.Ask("store 104 BBBB")
		harness.Equal(c, one.Ask("load 100 8"), `"AAAABBBB"`, "both stores")
		harness.Equal(c, one.Ask("msync sync"), "ok", "msync")
		harness.Equal(c, two.Ask("msync async"), "ok", "msync async")
		want := []byte(strings.Repeat(".", 2*p))
		copy(want, "from-two")
		copy(want[100:], "AAAABBBB")
		copy(want[p-2:], "from-one")
		c.Holds(c.Native()+"/f", string(want))
		one.Wait()
		two.Wait()
	}},
	{name: "mmap_store_reaches_backing_at_close", run: func(c *checkT) {
		c.Write(c.Path("f"), "....")
		p := harness.StartClient(c, "mmap", c.Path("f"), "shared", "4")
		p.Hear("mapped")
		p.Ask("store 0 gone")
		p.Wait()
		c.Holds(c.Path("f"), "gone")
		c.Ok(syncFile(c.Path("f")), "fsync")
		c.Holds(c.Native()+"/f", "gone")
	}},
	{name: "mmap_invalidate", run: func(c *checkT) {
		c.Write(c.Path("f"), "....")
		fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
		mem := c.mapFile(fd, 4, unix.MAP_SHARED)
		mem[0] = 'x'
		c.Ok(unix.Msync(mem, unix.MS_SYNC|unix.MS_INVALIDATE), "msync")
		harness.SameBytes(c, string(mem), "x...", "mapping after MS_INVALIDATE")
		c.Holds(c.Native()+"/f", "x...")
	}},
	{name: "mmap_private", run: func(c *checkT) {
		c.Write(c.Path("f"), "original")
		fd := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		mem := c.mapFile(fd, 8, unix.MAP_PRIVATE)
		copy(mem, "CHANGED!")
		harness.SameBytes(c, string(mem), "CHANGED!", "private copy")
		c.Holds(c.Path("f"), "original")
		c.Holds(c.Native()+"/f", "original")
	}},
	{name: "mmap_permissions", run: func(c *checkT) {
		c.Write(c.Path("f"), "data")
		r := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		_, err := unix.Mmap(r, 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.Errno(err, unix.EACCES, "writable shared mapping of a read-only descriptor")
		w := c.Open(c.Path("f"), unix.O_WRONLY, 0)
		_, err = unix.Mmap(w, 0, 4, unix.PROT_READ, unix.MAP_PRIVATE)
		c.Errno(err, unix.EACCES, "mapping of a write-only descriptor")
		d := c.Open(c.Dir, unix.O_RDONLY, 0)
		_, err = unix.Mmap(d, 0, 4, unix.PROT_READ, unix.MAP_PRIVATE)
		c.Errno(err, unix.ENODEV, "mapping of a directory")
	}},
	{name: "mmap_outlives_close_and_unlink", run: func(c *checkT) {
		c.Write(c.Path("f"), "....")
		fd, err := unix.Open(c.Path("f"), unix.O_RDWR, 0)
		c.Ok(err, "open")
		mem := c.mapFile(fd, 4, unix.MAP_SHARED)
		c.Ok(unix.Close(fd), "close")
		c.Ok(unix.Unlink(c.Path("f")), "unlink")
		copy(mem, "kept")
		c.Ok(unix.Msync(mem, unix.MS_SYNC), "msync")
		harness.SameBytes(c, string(mem), "kept", "mapping")
		c.Write(c.Path("f"), "new!")
		harness.SameBytes(c, string(mem), "kept", "mapping beside a new file of the name")
		c.Holds(c.Path("f"), "new!")
	}},
	{name: "mmap_follows_growth", run: func(c *checkT) {
		p := os.Getpagesize()
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.Ok(unix.Ftruncate(fd, 10), "ftruncate")
		mem := c.mapFile(fd, 4*p, unix.MAP_SHARED)
		mem[0] = 'a'
		c.Ok(unix.Ftruncate(fd, int64(4*p)), "ftruncate up")
		mem[4*p-1] = 'z'
		c.Ok(unix.Msync(mem, unix.MS_SYNC), "msync")
		want := make([]byte, 4*p)
		want[0], want[4*p-1] = 'a', 'z'
		c.Holds(c.Native()+"/f", string(want))
	}},
	{name: "mmap_store_past_the_end_is_lost", run: func(c *checkT) {
		// Inside the last page one may store past the end; the file never gets it.
		p := os.Getpagesize()
		c.Write(c.Path("f"), "12345")
		fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
		mem := c.mapFile(fd, p, unix.MAP_SHARED)
		copy(mem[3:], "xxxxxx")
		c.Ok(unix.Msync(mem, unix.MS_SYNC), "msync")
		c.Holds(c.Path("f"), "123xx")
		c.Holds(c.Native()+"/f", "123xx")
	}},
	{name: "mmap_past_the_end_is_sigbus", run: func(c *checkT) {
		c.Write(c.Path("f"), strings.Repeat("x", os.Getpagesize()))
		_, err := harness.ClientErr("touch", c.Path("f"), strconv.Itoa(os.Getpagesize()-1))
		c.Ok(err, "load of the last byte")
		_, err = harness.ClientErr("touch", c.Path("f"), strconv.Itoa(os.Getpagesize()))
		if err == nil || !strings.Contains(err.Error(), "SIGBUS") {
			c.Fatalf("load past the end: got %v, want SIGBUS", err)
		}
		c.Holds(c.Path("f"), strings.Repeat("x", os.Getpagesize()))
	}},
	{name: "mmap_of_a_file_that_shrank_is_sigbus", run: func(c *checkT) {
		p := os.Getpagesize()
		c.Write(c.Path("f"), strings.Repeat("x", 2*p))
		client := harness.StartClient(c, "mmap", c.Path("f"), "shared", strconv.Itoa(2*p))
		client.Hear("mapped")
		harness.Equal(c, client.Ask("load %d 1", p), `"x"`, "load before")
		c.Ok(unix.Truncate(c.Path("f"), int64(p)), "truncate")
		client.Say("load %d 1", p)
		err := client.WaitErr()
		if err == nil || !strings.Contains(err.Error(), "SIGBUS") {
			c.Fatalf("load after the truncate: got %v, want SIGBUS", err)
		}
	}},
}

// copyProgram copies a program into the directory under test.
func (c *checkT) copyProgram(from, to string) {
	path, err := exec.LookPath(from)
	c.Ok(err, "look for %s", from)
	data, err := os.ReadFile(path)
	c.Ok(err, "read %s", path)
	c.Ok(os.WriteFile(to, data, 0o755), "write %s", to)
}

// execChecks are about running programs.
var execChecks = []check{
	{name: "run_a_program", run: func(c *checkT) {
		c.copyProgram("echo", c.Path("echo"))
		harness.Equal(c, harness.Run(c, c.Path("echo"), "from", "the", "mount"), "from the mount\n", "output")
		c.As(harness.Alice, harness.AliceGroup, func() {
			harness.Equal(c, harness.Run(c, c.Path("echo"), "too"), "too\n", "output for another user")
		})
		c.Ok(unix.Chmod(c.Path("echo"), 0o644), "chmod")
		_, err := harness.RunErr(c.Path("echo"))
		c.Errno(err, unix.EACCES, "run without x")
	}},
	{name: "run_a_script", run: func(c *checkT) {
		c.Ok(os.WriteFile(c.Path("s"), []byte("#!/bin/sh\necho \"$0 says $1\"\n"), 0o755), "write")
		harness.Equal(c, harness.Run(c, c.Path("s"), "hello"), c.Path("s")+" says hello\n", "output")
	}},
	{name: "run_a_setuid_program", run: func(c *checkT) {
		c.copyProgram("id", c.Path("id"))
		c.Ok(unix.Chown(c.Path("id"), harness.Alice, harness.AliceGroup), "chown")
		c.Ok(unix.Chmod(c.Path("id"), 0o4755), "chmod")
		c.As(harness.Bob, harness.BobGroup, func() {
			harness.Equal(c, strings.TrimSpace(harness.Run(c, c.Path("id"), "-u")), strconv.Itoa(harness.Alice), "effective user")
		})
	}},
	{name: "write_to_a_running_program", run: func(c *checkT) {
		c.copyProgram("cat", c.Path("cat"))
		cmd := exec.Command(c.Path("cat"))
		p := harness.StartProc(c, cmd)
		harness.Equal(c, p.Ask("alive"), "alive", "answer")
		_, err := unix.Open(c.Path("cat"), unix.O_WRONLY, 0)
		c.Errno(err, unix.ETXTBSY, "open of a running program for writing")
		c.Ok(unix.Unlink(c.Path("cat")), "unlink of a running program")
		harness.Equal(c, p.Ask("still"), "still", "answer after unlink")
		p.Wait()
		c.copyProgram("cat", c.Path("cat"))
		w := c.Open(c.Path("cat"), unix.O_WRONLY, 0)
		_, err = harness.RunErr(c.Path("cat"))
		c.Errno(err, unix.ETXTBSY, "run of a program that is open for writing")
		unix.Close(w)
	}},
	{name: "run_a_program_just_written", run: func(c *checkT) {
		// Built, run and replaced as a compiler's test loop does.
		for _, word := range []string{"one", "two", "three"} {
			_ = unix.Unlink(c.Path("s"))
			c.Ok(os.WriteFile(c.Path("s"), []byte("#!/bin/sh\necho "+word+"\n"), 0o755), "write")
			harness.Equal(c, harness.Run(c, c.Path("s")), word+"\n", "output")
		}
	}},
}

// lockChecks are about locks between processes.
var lockChecks = []check{
	{name: "flock", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		one := harness.StartClient(c, "fd", c.Path("f"), "rw")
		two := harness.StartClient(c, "fd", c.Path("f"), "rw")
		one.Hear("open")
		two.Hear("open")
		harness.Equal(c, one.Ask("flock sh"), "ok", "one shares")
		harness.Equal(c, two.Ask("flock sh"), "ok", "two shares")
		harness.Equal(c, one.Ask("flock ex"), "error: EAGAIN", "one wants it alone")
		harness.Equal(c, two.Ask("flock un"), "ok", "two lets go")
		harness.Equal(c, one.Ask("flock ex"), "ok", "one has it alone")
		harness.Equal(c, two.Ask("flock sh"), "error: EAGAIN", "two comes too late")
		one.Wait()
		harness.Equal(c, two.Ask("flock ex"), "ok", "two, after the end of one")
		two.Wait()
	}},
	{name: "fcntl_locks", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		one := harness.StartClient(c, "fd", c.Path("f"), "rw")
		two := harness.StartClient(c, "fd", c.Path("f"), "rw")
		one.Hear("open")
		two.Hear("open")
		harness.Equal(c, one.Ask("getlock"), "free", "at first")
		harness.Equal(c, one.Ask("lock w"), "ok", "one locks")
		harness.Equal(c, two.Ask("lock r"), "error: EAGAIN", "two cannot")
		harness.Equal(c, two.Ask("getlock"), "held by "+itoa(one.Cmd.Process.Pid), "the holder")
		two.Say("waitlock w")
		harness.Equal(c, one.Ask("pwrite 0 locked"), "6", "the holder writes")
		harness.Equal(c, one.Ask("lock un"), "ok", "one unlocks")
		two.Hear("ok")
		harness.Equal(c, two.Ask("pread 0 6"), `"locked"`, "two reads")
		harness.Equal(c, one.Ask("lock r"), "error: EAGAIN", "one comes too late")
		two.Wait()
		harness.Equal(c, one.Ask("lock w"), "ok", "one, after the end of two")
		one.Wait()
	}},
	{name: "ofd_locks", run: func(c *checkT) {
		one := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		two := c.Open(c.Path("f"), unix.O_RDWR, 0)
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Len: 10}
		c.Ok(unix.FcntlFlock(uintptr(one), unix.F_OFD_SETLK, &lock), "lock")
		c.Errno(unix.FcntlFlock(uintptr(two), unix.F_OFD_SETLK, &lock), syscall.EAGAIN, "lock again")
		lock.Start = 10
		c.Ok(unix.FcntlFlock(uintptr(two), unix.F_OFD_SETLK, &lock), "lock of another range")
	}},
}
