package wire

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"unsafe"
)

func TestWireSizes(t *testing.T) {
	// sizeof of the structures in linux/fuse.h, protocol 7.33.
	for _, c := range []struct {
		name string
		got  uintptr
		want uintptr
	}{
		{"fuse_out_header", unsafe.Sizeof(outHeader{}), 16},
		{"fuse_attr", unsafe.Sizeof(Attr{}), 88},
		{"fuse_attr_out", unsafe.Sizeof(AttrOut{}), 104},
		{"fuse_entry_out", unsafe.Sizeof(EntryOut{}), 128},
		{"fuse_open_out", unsafe.Sizeof(OpenOut{}), 16},
		{"fuse_write_out", unsafe.Sizeof(WriteOut{}), 8},
		{"fuse_getxattr_out", unsafe.Sizeof(XattrOut{}), 8},
		{"fuse_statfs_out", unsafe.Sizeof(StatfsOut{}), 80},
		{"fuse_dirent", unsafe.Sizeof(Dirent{}), 24},
	} {
		if c.got != c.want {
			t.Errorf("struct %s has %d bytes here, want %d", c.name, c.got, c.want)
		}
	}
}

func TestErrnoOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{syscall.ENOENT, syscall.ENOENT},
		{os.NewSyscallError("openat", syscall.EACCES), syscall.EACCES},
		{&os.PathError{Op: "open", Path: "x", Err: syscall.EROFS}, syscall.EROFS},
		{fmt.Errorf("twice: %w", os.NewSyscallError("pwrite", syscall.ENOSPC)), syscall.ENOSPC},
		{fmt.Errorf("no errno at all"), syscall.EIO},
		{os.ErrClosed, syscall.EIO},
	} {
		if got := ErrnoOf(c.err); got != c.want {
			t.Errorf("ErrnoOf(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}
