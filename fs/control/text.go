package control

import (
	"strconv"

	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
)

// errnoName names the errno of an error, or 0 for none.
func errnoName(err error) string {
	if err == nil {
		return "0"
	}
	errno := wire.ErrnoOf(err)
	if name := unix.ErrnoName(errno); name != "" {
		return name
	}
	return strconv.Itoa(int(errno))
}

// msyncFlags names the flags of msync(2).
func msyncFlags(flags int) string {
	return flagNames(flags, []flagName{{unix.MS_SYNC, "sync"}, {unix.MS_ASYNC, "async"}, {unix.MS_INVALIDATE, "invalidate"}})
}

// openFlags names the access mode and the flags of open(2) that matter here.
func openFlags(flags int) string {
	access := [...]string{"rdonly", "wronly", "rdwr", "rdwr"}[flags&unix.O_ACCMODE]
	more := flagNames(flags, []flagName{
		{unix.O_APPEND, "append"}, {unix.O_CREAT, "creat"}, {unix.O_EXCL, "excl"}, {unix.O_TRUNC, "trunc"},
		{unix.O_DIRECT, "direct"}, {unix.O_SYNC &^ unix.O_DSYNC, "sync"}, {unix.O_DSYNC, "dsync"},
	})
	if more == "none" {
		return access
	}
	return access + "," + more
}

// flagName is a bit and what it is called.
type flagName struct {
	bit  int
	name string
}

// flagNames joins the names of the bits that are set.
func flagNames(flags int, names []flagName) string {
	text := ""
	for _, f := range names {
		if flags&f.bit != 0 {
			if text != "" {
				text += ","
			}
			text += f.name
		}
	}
	if text == "" {
		return "none"
	}
	return text
}

// orNone is text, or "none" for no text.
func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}
