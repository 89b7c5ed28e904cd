package explore

import (
	"errors"
	"maps"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
)

// withAttr returns what an inode is with a changed attribute. xattrs stays as it is.
func withAttr(made crash.Made, xattrs map[string][]byte, attr string, value []byte) (crash.Made, map[string][]byte) {
	name, isXattr := strings.CutPrefix(attr, crash.AttrXattr)
	switch {
	case isXattr:
		xattrs = maps.Clone(xattrs)
		if xattrs == nil {
			xattrs = make(map[string][]byte)
		}
		if value == nil {
			delete(xattrs, name)
		} else {
			xattrs[name] = value
		}
	case attr == crash.AttrMode:
		made.Mode, made.UID, made.GID = crash.ParseMode(value)
	}
	return made, xattrs
}

// readXattrs returns a file's extended attributes, none where there can be none.
func readXattrs(path string) (map[string][]byte, error) {
	list := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, syscall.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "llistxattr", Path: path, Err: err}
	}
	xattrs := make(map[string][]byte)
	value := make([]byte, 1<<16)
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		m, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, &os.PathError{Op: "lgetxattr", Path: path, Err: err}
		}
		xattrs[name] = append([]byte{}, value[:m]...)
	}
	return xattrs, nil
}

// giveAttrs gives a new file, directory or the like its owner, mode and extended
// attributes. Who is not root cannot give files away: they stay the user's.
func giveAttrs(path string, made *crash.Made, xattrs map[string][]byte) error {
	if os.Geteuid() == 0 {
		if err := os.Lchown(path, int(made.UID), int(made.GID)); err != nil {
			return err
		}
	}
	for name, value := range xattrs {
		if err := unix.Lsetxattr(path, name, value, 0); err != nil && os.Geteuid() == 0 {
			return &os.PathError{Op: "lsetxattr", Path: path, Err: err}
		}
	}
	if made.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	if err := unix.Chmod(path, made.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	return nil
}
