package mountpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// mountInfo is the kernel's list of what is mounted (proc_pid_mountinfo(5)). To
// find a mount in it asks nothing of the daemon, which may be dead or stuck.
const mountInfo = "/proc/self/mountinfo"

// mountEntry is one line of the mount table.
type mountEntry struct {
	minor  uint32 // of st_dev; for FUSE also the connection's number
	path   string
	fstype string
	user   string // FUSE: the number of the user who mounted it
}

type mountTable []mountEntry

// readMountTable parses a file like /proc/self/mountinfo.
func readMountTable(name string) (mountTable, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var table mountTable
	for line := range strings.Lines(string(text)) {
		// 36 35 98:0 /root /mount/point rw,noatime master:1 - ext4 /dev/sda rw
		before, after, found := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !found || len(left) < 6 || len(right) < 3 {
			return nil, fmt.Errorf("%s: unexpected line %q", name, line)
		}
		_, minor, _ := strings.Cut(left[2], ":")
		number, err := strconv.ParseUint(minor, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s: unexpected device in line %q", name, line)
		}
		entry := mountEntry{minor: uint32(number), path: unescapeMount(left[4]), fstype: right[0]}
		for option := range strings.SplitSeq(right[2], ",") {
			if user, ok := strings.CutPrefix(option, "user_id="); ok {
				entry.user = user
			}
		}
		table = append(table, entry)
	}
	return table, nil
}

// unescapeMount undoes the kernel's \ooo for blanks, newlines and backslashes.
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// at returns the mount that is seen at path: of several, the last one.
func (t mountTable) at(path string) (mountEntry, bool) {
	for i := len(t) - 1; i >= 0; i-- {
		if t[i].path == path {
			return t[i], true
		}
	}
	return mountEntry{}, false
}

// findMount returns the mapfs at mountpoint, which may be given by any path.
func findMount(mountpoint string) (mountEntry, error) {
	table, err := readMountTable(mountInfo)
	if err != nil {
		return mountEntry{}, err
	}
	path, err := resolveMountpoint(mountpoint, table)
	if err != nil {
		return mountEntry{}, &os.PathError{Op: "umount", Path: path, Err: bareError(err)}
	}
	entry, ok := table.at(path)
	if !ok || entry.fstype != mountType {
		return mountEntry{}, &os.PathError{Op: "umount", Path: path, Err: ErrNotMapfs}
	}
	return entry, nil
}

// ConnectionID returns the number of the FUSE connection that serves the mount at path,
// which must be absolute and free of symlinks. It names the connection's directory in
// /sys/fs/fuse/connections.
func ConnectionID(path string) (uint32, error) {
	table, err := readMountTable(mountInfo)
	if err != nil {
		return 0, err
	}
	entry, ok := table.at(path)
	if !ok {
		return 0, &os.PathError{Op: "mountinfo", Path: path, Err: ErrNotMapfs}
	}
	return entry.minor, nil
}

// List lists where mapfs is mounted, in the order of mounting.
func List() ([]string, error) {
	table, err := readMountTable(mountInfo)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, entry := range table {
		if entry.fstype == mountType {
			paths = append(paths, entry.path)
		}
	}
	return paths, nil
}

// resolveMountpoint makes path absolute and free of symlinks, like
// filepath.EvalSymlinks, but never looks at what is mounted there: lstat(2) of
// a dead mount fails, and of a stuck one hangs. A path that does not exist is
// returned for the caller's stat to fail on. On an error the path is the one
// that failed.
func resolveMountpoint(path string, table mountTable) (string, error) {
	path, err := absolute(path)
	if err != nil {
		return path, err
	}
	const maxLinks = 40 // as the kernel
	for range maxLinks {
		if base := filepath.Base(path); base == "." || base == ".." || base == "/" {
			// No name of its own that could be a link.
			resolved, err := filepath.EvalSymlinks(path)
			if err != nil {
				return path, err
			}
			return resolved, nil
		}
		parent, base := filepath.Split(strings.TrimRight(path, "/"))
		dir, err := filepath.EvalSymlinks(parent)
		if err != nil {
			return path, err
		}
		path = filepath.Join(dir, base)
		if _, mounted := table.at(path); mounted {
			return path, nil
		}
		target, err := os.Readlink(path)
		if err != nil {
			return path, nil
		}
		if !filepath.IsAbs(target) {
			target = dir + "/" + target
		}
		path = target
	}
	return path, syscall.ELOOP
}

// absolute is filepath.Abs without its cleaning, which takes "link/.." for
// nothing although the kernel follows the link first.
func absolute(path string) (string, error) {
	if filepath.IsAbs(path) {
		return path, nil
	}
	wd, err := os.Getwd()
	if err != nil {
		return path, err
	}
	return strings.TrimSuffix(wd, "/") + "/" + path, nil
}
