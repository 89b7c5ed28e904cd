package control

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/fs"
	"mapfs/fs/wire"
	"mapfs/mapping"
)

// advices are the values of madvise's argument.
var advices = map[string]int{
	"dontneed": unix.MADV_DONTNEED, "willneed": unix.MADV_WILLNEED,
	"cold": unix.MADV_COLD, "pageout": unix.MADV_PAGEOUT,
}

// onFile runs what a command asks of the range of a file, which it opens for that.
func (t *Tree) onFile(n *fs.Node, c *command, run func(f *mapping.File, off, length int64) error) (string, error) {
	off, length, err := c.span()
	if err != nil {
		return "", err
	}
	f, err := t.s.Open(n)
	if err != nil {
		return "", err
	}
	defer f.Release(true)
	if err := run(f, off, length); err != nil {
		return "", c.explain(err, f.Size())
	}
	if c.verb == "msync" && f.Mode() == mapping.Private {
		return "nothing was written: the mode is private, and its changes never reach the file", nil
	}
	if c.verb == "msync" && c.args["flags"] == "async" && t.s.History() != nil {
		return "nothing was written: with a history the file has what is durable, and MS_ASYNC makes nothing durable", nil
	}
	return "ok", nil
}

// runFileMsync does "msync" of a file.
func (t *Tree) runFileMsync(h *ctlHandle, c *command) (string, error) {
	flags, err := c.msyncFlags()
	if err != nil {
		return "", err
	}
	return t.onFile(h.target, c, func(f *mapping.File, off, length int64) error {
		if flags&unix.MS_SYNC != 0 {
			if err := t.s.FailMsync(h.target, f); err != nil {
				return err
			}
		}
		err := t.s.Msync(h.target, f, off, length, flags)
		if err == nil && flags&unix.MS_INVALIDATE != 0 {
			t.changed(h.target)
		}
		return err
	})
}

// runFileMadvise does "madvise" of a file.
func (t *Tree) runFileMadvise(h *ctlHandle, c *command) (string, error) {
	advice, known := advices[c.args["advice"]]
	if !known {
		return "", invalid("madvise: advice=%s is none of dontneed, willneed, cold, pageout", abbreviate(c.args["advice"]))
	}
	return t.onFile(h.target, c, func(f *mapping.File, off, length int64) error {
		err := t.s.Madvise(h.target, f, off, length, advice)
		if err == nil && advice == unix.MADV_DONTNEED && f.Mode() != mapping.Shared {
			t.changed(h.target)
		}
		return err
	})
}

// runFileMlock and runFileMunlock do "mlock" and "munlock" of a file.
func (t *Tree) runFileMlock(h *ctlHandle, c *command) (string, error) {
	return t.onFile(h.target, c, (*mapping.File).Mlock)
}

func (t *Tree) runFileMunlock(h *ctlHandle, c *command) (string, error) {
	return t.onFile(h.target, c, (*mapping.File).Munlock)
}

// runMode does "mode shared|private|staged".
func (t *Tree) runMode(h *ctlHandle, c *command) (string, error) {
	n := h.target
	mode, err := mapping.ParseMode(c.args[""])
	if err != nil {
		return "", invalid("mode: %v", err)
	}
	if mode != mapping.Staged && t.s.History() != nil {
		return "", invalid("mode: with -o history every file is staged: the backing file has what is durable")
	}
	if t.s.Options().Passthrough && mode != mapping.Shared {
		return "", invalid("mode: with -o passthrough the kernel reads and writes the file itself: it stays shared")
	}
	f, err := t.s.Open(n)
	if err != nil {
		return "", err
	}
	defer f.Release(true)
	if old := f.Mode(); old != mode {
		if err := t.mayStage(n, mode); err != nil {
			return "", err
		}
		switch err := f.SetMode(mode); wire.ErrnoOf(err) {
		case 0:
		case syscall.EBUSY:
			do := "msync"
			if old == mapping.Private {
				do = "msync flags=invalidate"
			}
			return "", &refusal{syscall.EBUSY, fmt.Sprintf("mode: the file has unsynced bytes as %s; '%s' first", old, do)}
		case syscall.EACCES:
			return "", &refusal{syscall.EACCES, "mode: the daemon may not read the file, and a private mapping needs to"}
		default:
			return "", err
		}
		t.changed(n)
	}
	return "ok", nil
}

// mayStage refuses the mode staged for a file that cannot be written to: what is staged
// could never be written back.
func (t *Tree) mayStage(n *fs.Node, mode mapping.Mode) error {
	if mode != mapping.Staged {
		return nil
	}
	err := t.s.Access(n, unix.W_OK)
	if errno := wire.ErrnoOf(err); err == nil || errno == syscall.ESTALE {
		return nil // what has no name any more is known to who has it open
	}
	return &refusal{wire.ErrnoOf(err), fmt.Sprintf("mode: what is staged could never be written to the file: %s", plainText(err))}
}

// msyncFlags returns the flags of msync(2) that the argument names; MS_SYNC if
// there is none.
func (c *command) msyncFlags() (int, error) {
	text, given := c.args["flags"]
	if !given {
		return unix.MS_SYNC, nil
	}
	flags := 0
	for name := range strings.SplitSeq(text, ",") {
		switch name {
		case "sync":
			flags |= unix.MS_SYNC
		case "async":
			flags |= unix.MS_ASYNC
		case "invalidate":
			flags |= unix.MS_INVALIDATE
		default:
			return 0, invalid("msync: flags=%s: %s is none of sync, async, invalidate", abbreviate(text), abbreviate(name))
		}
	}
	if flags&unix.MS_SYNC != 0 && flags&unix.MS_ASYNC != 0 {
		return 0, invalid("msync: flags=%s: sync and async contradict each other", abbreviate(text))
	}
	return flags, nil
}

// explain makes a sentence of what a system call refused.
func (c *command) explain(err error, size int64) error {
	errno := wire.ErrnoOf(err)
	why := err.Error()
	switch {
	case errno == syscall.ENOMEM && c.verb == "mlock":
		why = fmt.Sprintf("either the range is not mapped, for the file has %d bytes, or more may not be locked (RLIMIT_MEMLOCK)", size)
	case errno == syscall.ENOMEM:
		why = fmt.Sprintf("the range is not mapped: the file has %d bytes", size)
	case errno == syscall.EBUSY, errno == syscall.EINVAL && c.verb == "madvise":
		why = "pages in the range are locked by mlock"
	case errno == syscall.EPERM && c.verb == "mlock":
		why = "the daemon may not lock memory (RLIMIT_MEMLOCK is 0)"
	}
	return &refusal{errno, c.verb + ": " + why}
}

// runSync does "sync".
func (t *Tree) runSync(_ *ctlHandle, _ *command) (string, error) {
	if err := t.s.Sync(); err != nil {
		return "", &refusal{wire.ErrnoOf(err), "sync: " + strings.ReplaceAll(err.Error(), "\n", "; ")}
	}
	return "ok", nil
}
