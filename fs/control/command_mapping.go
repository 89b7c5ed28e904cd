package control

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/fs"
	"mapfs/fs/wire"
	"mapfs/mapping"
	"mapfs/mapping/explicit"
)

// prot returns the protection that the argument names.
func (c *command) prot() (int, error) {
	text := c.args["prot"]
	if text == "none" {
		return unix.PROT_NONE, nil
	}
	prot := 0
	for _, letter := range text {
		at := slices.IndexFunc(protLetters, func(f flagName) bool { return f.name == string(letter) })
		if at < 0 || prot&protLetters[at].bit != 0 {
			prot = 0
			break
		}
		prot |= protLetters[at].bit
	}
	if prot == 0 {
		// The letters can also be joined, each at most once.
		return 0, invalid("%s: prot=%s is none of none, r, w, x", c.verb, abbreviate(text))
	}
	return prot, nil
}

// mmapFlags returns the flags that the argument names; MAP_SHARED if there is none.
func (c *command) mmapFlags() (int, error) {
	text, given := c.args["flags"]
	if !given {
		return unix.MAP_SHARED, nil
	}
	flags := 0
	for name := range strings.SplitSeq(text, ",") {
		at := slices.IndexFunc(mmapFlags, func(f flagName) bool { return f.name == name })
		if at < 0 {
			var names []string
			for _, f := range mmapFlags {
				names = append(names, f.name)
			}
			return 0, invalid("%s: flags=%s: %s is none of %s", c.verb, abbreviate(text), abbreviate(name), strings.Join(names, ", "))
		}
		flags |= mmapFlags[at].bit
	}
	if sharing := flags & (unix.MAP_SHARED | unix.MAP_PRIVATE); sharing != unix.MAP_SHARED && sharing != unix.MAP_PRIVATE {
		return 0, invalid("%s: flags=%s must have one of shared and private", c.verb, abbreviate(text))
	}
	return flags, nil
}

// address returns the argument addr, which may be absent.
func (c *command) address() (uintptr, error) {
	text, given := c.args["addr"]
	if !given {
		return 0, nil
	}
	addr, err := strconv.ParseUint(strings.TrimPrefix(text, "0x"), 16, strconv.IntSize)
	if err != nil {
		return 0, invalid("%s: addr=%s is no address in hexadecimal", c.verb, abbreviate(text))
	}
	return uintptr(addr), nil
}

// require refuses a command that lacks one of the given arguments.
func (c *command) require(keys ...string) error {
	for _, key := range keys {
		if _, given := c.args[key]; !given {
			return invalid("%s: %s= is missing", c.verb, key)
		}
	}
	return nil
}

// openFor are the values of mmap's argument open.
var openFor = []string{"ro", "rw"}

// runMmap makes an explicit mapping and answers with its address.
func (t *Tree) runMmap(_ *ctlHandle, c *command) (string, error) {
	r, err := c.mmapRequest()
	if err != nil {
		return "", err
	}
	if err := t.s.AdmitDescriptor(); err != nil {
		return "", &refusal{wire.ErrnoOf(err), "mmap: the daemon has no descriptor left for the file of one more mapping"}
	}
	f, err := t.openPath(c.args["file"])
	if err != nil {
		why := plainText(err)
		if wire.ErrnoOf(err) == syscall.EINVAL {
			why = "no path from the mount's root, of names that are not empty, . or .."
		}
		return "", &refusal{wire.ErrnoOf(err), fmt.Sprintf("mmap: file=%s: %s", abbreviate(c.args["file"]), why)}
	}
	defer f.Release(true)
	access := c.args["open"]
	if access == "" && r.Flags&unix.MAP_SHARED != 0 && t.s.History() != nil {
		access = "ro" // what is stored would reach the backing file past the history
	}
	fd, writable, err := t.openAgain(f, access)
	if err != nil {
		return "", &refusal{wire.ErrnoOf(err), fmt.Sprintf("mmap: file=%s cannot be opened for open=%s: %s", abbreviate(c.args["file"]), access, plainText(err))}
	}
	defer unix.Close(fd)
	if err := c.fromFile(&r, fd, writable); err != nil {
		return "", err
	}
	if writable && r.Flags&unix.MAP_SHARED != 0 && t.s.History() != nil {
		return "", invalid("mmap: with -o history the backing file has what is durable, and stores must not reach it; use flags=private or open=ro")
	}
	m, err := t.arena.Mmap(f, fd, r)
	if err != nil {
		return "", c.explainMapping(err, r.Prot)
	}
	return strconv.FormatUint(uint64(m.Start()), 16), nil
}

// mmapRequest returns what mmap's arguments say by themselves. A length that is not given
// is 0.
func (c *command) mmapRequest() (r explicit.Request, err error) {
	r.Name = c.args["name"]
	if _, given := c.args["prot"]; given {
		if r.Prot, err = c.prot(); err != nil {
			return r, err
		}
	}
	if r.Flags, err = c.mmapFlags(); err != nil {
		return r, err
	}
	if access, given := c.args["open"]; given && !slices.Contains(openFor, access) {
		return r, invalid("mmap: open=%s is none of %s", abbreviate(access), strings.Join(openFor, ", "))
	}
	if err := c.require("name", "file"); err != nil {
		return r, err
	}
	if err := fs.CheckName(r.Name); err != nil {
		return r, &refusal{wire.ErrnoOf(err), fmt.Sprintf("mmap: name=%s is no name of a directory entry of 1 to %d bytes", abbreviate(r.Name), unix.NAME_MAX)}
	}
	if r.Addr, err = c.address(); err != nil {
		return r, err
	}
	if _, given := c.args["addr"]; r.Flags&(unix.MAP_FIXED|unix.MAP_FIXED_NOREPLACE) != 0 && !given {
		return r, invalid("mmap: flags=%s needs addr=", abbreviate(c.args["flags"]))
	}
	var length int64
	r.Offset, length, err = c.span()
	r.Length = uint64(length)
	return r, err
}

// fromFile fills in what is not given and follows from the file: the protection that the
// descriptor allows, and the length up to its end.
func (c *command) fromFile(r *explicit.Request, fd int, writable bool) error {
	if _, given := c.args["prot"]; !given {
		r.Prot = unix.PROT_READ
		if writable {
			r.Prot |= unix.PROT_WRITE
		}
	}
	r.Writable = writable
	if r.Length > 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Size <= r.Offset {
		return invalid("mmap: the file has %d bytes and none at offset=%d; give a length", st.Size, r.Offset)
	}
	r.Length = uint64(st.Size - r.Offset)
	return nil
}

// openPath returns a regular file of the mount by its path from the mount's root,
// with a reference. No symbolic link is followed, and nothing outside the backing
// directory is reached.
func (t *Tree) openPath(path string) (*mapping.File, error) {
	names := strings.Split(path, "/")
	if len(names) > fs.MaxDepth {
		return nil, syscall.ENAMETOOLONG
	}
	n := t.s.Root()
	for i, name := range names {
		var st unix.Stat_t
		next, err := t.s.Lookup(n, name, &st)
		if err != nil {
			return nil, err
		}
		defer t.s.Forget(next)
		kind := st.Mode & unix.S_IFMT
		switch {
		case kind == unix.S_IFLNK:
			return nil, syscall.ELOOP
		case i < len(names)-1 && kind != unix.S_IFDIR:
			return nil, syscall.ENOTDIR
		case i == len(names)-1 && kind != unix.S_IFREG:
			return nil, syscall.ENODEV // mmap(2): not a file that can be mapped
		}
		n = next
	}
	f, err := t.s.Open(n)
	if err == nil && f.Name() == "" {
		f.SetName(t.s.Path(n))
	}
	return f, err
}

// openAgain opens a file once more for the access that mmap's argument open names.
// Without one it is opened for writing where that is allowed, programs excepted: nobody
// could run one that is open for writing.
func (t *Tree) openAgain(f *mapping.File, access string) (fd int, writable bool, err error) {
	var st unix.Stat_t
	if err := f.Stat(&st); err != nil {
		return -1, false, err
	}
	if access == "rw" || access == "" && st.Mode&0o111 == 0 {
		err := os.NewSyscallError("open", syscall.EROFS)
		if !t.s.Options().ReadOnly {
			fd, err = fs.Reopen(f, unix.O_RDWR)
		}
		if err == nil || access == "rw" {
			return fd, err == nil, err
		}
	}
	fd, err = fs.Reopen(f, unix.O_RDONLY)
	return fd, false, err
}

// plainText is the error at the bottom of a chain, without the name of the system
// call.
func plainText(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

// mappingCall is what a command asks of the pages of explicit mappings: by address
// or by offset in one of them.
type mappingCall struct {
	byAddress func(a *explicit.Arena, addr uintptr, length uint64) error
	byOffset  func(m *explicit.Mapping, off, length int64) error
	prot      int
	flags     int // of msync
	argument  string
}

// parseMapping returns what a command on explicit mappings asks for.
func (c *command) parseMapping() (call mappingCall, err error) {
	switch c.verb {
	case "munmap":
		call = mappingCall{byAddress: (*explicit.Arena).Munmap, byOffset: (*explicit.Mapping).Unmap}
	case "mlock":
		call = mappingCall{byAddress: (*explicit.Arena).Mlock, byOffset: (*explicit.Mapping).Mlock}
	case "munlock":
		call = mappingCall{byAddress: (*explicit.Arena).Munlock, byOffset: (*explicit.Mapping).Munlock}
	case "mprotect":
		call.argument = "prot"
		if _, given := c.args["prot"]; given {
			if call.prot, err = c.prot(); err != nil {
				return call, err
			}
		}
		call.byAddress = func(a *explicit.Arena, addr uintptr, length uint64) error { return a.Mprotect(addr, length, call.prot) }
		call.byOffset = func(m *explicit.Mapping, off, length int64) error { return m.Mprotect(off, length, call.prot) }
	case "msync":
		call.argument = "flags"
		if call.flags, err = c.msyncFlags(); err != nil {
			return call, err
		}
		call.byAddress = func(a *explicit.Arena, addr uintptr, length uint64) error { return a.Msync(addr, length, call.flags) }
		call.byOffset = func(m *explicit.Mapping, off, length int64) error { return m.Msync(off, length, call.flags) }
	case "madvise":
		call.argument = "advice"
		advice, known := advices[c.args["advice"]]
		if _, given := c.args["advice"]; given && !known {
			return call, invalid("madvise: advice=%s is none of dontneed, willneed, cold, pageout", abbreviate(c.args["advice"]))
		}
		call.byAddress = func(a *explicit.Arena, addr uintptr, length uint64) error { return a.Madvise(addr, length, advice) }
		call.byOffset = func(m *explicit.Mapping, off, length int64) error { return m.Madvise(off, length, advice) }
	}
	if call.argument != "" && call.argument != "flags" {
		err = c.require(call.argument)
	}
	return call, err
}

// runAtAddress does what a line in the root's ctl says of the pages at an address.
func (t *Tree) runAtAddress(_ *ctlHandle, c *command) (string, error) {
	call, err := c.parseMapping()
	if err != nil {
		return "", err
	}
	if name, given := c.args["name"]; given {
		if len(c.keys) > 1 {
			return "", invalid("munmap: name= unmaps all; to unmap a part give addr= and length=")
		}
		m := t.arena.Find(name)
		if m == nil {
			return "", &refusal{syscall.ENOENT, fmt.Sprintf("munmap: no mapping has the name %s", abbreviate(name))}
		}
		if err := m.Unmap(0, m.Length()); err != nil {
			return "", c.explainMapping(err, 0)
		}
		return "ok", nil
	}
	if err := c.require("addr", "length"); err != nil {
		return "", err
	}
	addr, err := c.address()
	if err != nil {
		return "", err
	}
	length, err := strconv.ParseUint(c.args["length"], 10, 64)
	if err != nil {
		return "", invalid("%s: length=%s is no number of bytes", c.verb, abbreviate(c.args["length"]))
	}
	touched := t.arena.Within(addr, length)
	if err := call.byAddress(t.arena, addr, length); err != nil {
		return "", c.explainMapping(err, call.prot)
	}
	for _, m := range touched {
		t.afterCommand(m, call)
	}
	return "ok", nil
}

// runInMapping does what a line in an explicit mapping's own ctl says.
func (t *Tree) runInMapping(h *ctlHandle, c *command) (string, error) {
	m := h.explicit
	call, err := c.parseMapping()
	if err != nil {
		return "", err
	}
	off, length, err := c.span()
	if err != nil {
		return "", err
	}
	if m.Gone() {
		return "", &refusal{syscall.ESTALE, c.verb + ": the mapping is gone"}
	}
	if length == 0 {
		length = max(m.Length()-off, 1)
	}
	if err := call.byOffset(m, off, length); err != nil {
		return "", c.explainMapping(err, call.prot)
	}
	t.afterCommand(m, call)
	return "ok", nil
}

// afterCommand has the kernel drop what it has cached of a file, if that is what
// a command on its mapping is for.
func (t *Tree) afterCommand(m *explicit.Mapping, call mappingCall) {
	if call.flags&unix.MS_INVALIDATE != 0 {
		t.changedBelow(m.FileID())
	}
}

// explainMapping makes a sentence of what was refused to an explicit mapping.
func (c *command) explainMapping(err error, prot int) error {
	var known *explicit.Refusal
	if errors.As(err, &known) {
		return &refusal{known.Errno, c.verb + ": " + known.Why}
	}
	errno := wire.ErrnoOf(err)
	why := plainText(err)
	switch {
	case errno == syscall.EACCES && prot&unix.PROT_WRITE != 0:
		why = "a shared mapping with prot=w needs a file that is open for writing (open=rw)"
	case errno == syscall.EACCES:
		why = "the file is not open for this protection"
	case errno == syscall.EPERM && prot&unix.PROT_EXEC != 0:
		why = "the filesystem of the file is mounted noexec, so prot=x is refused"
	case errno == syscall.EBUSY, errno == syscall.EINVAL && c.verb == "madvise":
		why = "pages in the range are locked by mlock"
	case errno == syscall.EAGAIN, errno == syscall.EPERM && c.verb == "mlock":
		why = "more may not be locked (RLIMIT_MEMLOCK)"
	case errno == syscall.ENOMEM && c.verb == "mlock":
		why = "more may not be locked (RLIMIT_MEMLOCK), or pages in the range cannot be had"
	case errno == syscall.EOVERFLOW:
		why = "offset and length lead past the largest size of a file"
	case errno == syscall.ENODEV:
		why = "the filesystem of the file cannot map files"
	}
	return &refusal{errno, c.verb + ": " + why}
}
