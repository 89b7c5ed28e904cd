// Package image has real filesystems on images: files that loop devices make block devices
// of. It is for root on Linux.
package image

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// FS is a filesystem.
type FS struct {
	Name string
	// Size is that of the images that Make makes, in bytes.
	Size int64
	// Alone says that no two images with the same identity may be mounted at a time.
	Alone bool

	mkfs, fsck []string
	// options are those of mount(8) that an image needs whose copy is known.
	options string
}

// All returns the filesystems that are known.
func All() []FS {
	return []FS{
		{Name: "ext4", Size: 64 << 20, mkfs: []string{"mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "nodiscard"}, fsck: []string{"e2fsck", "-fn"}},
		{Name: "xfs", Size: 320 << 20, mkfs: []string{"mkfs.xfs", "-q", "-f", "-K"}, fsck: []string{"xfs_repair", "-n"}, options: "nouuid"},
		{Name: "btrfs", Size: 128 << 20, mkfs: []string{"mkfs.btrfs", "-q", "-f", "-K"}, fsck: []string{"btrfs", "check", "--readonly"}, Alone: true},
	}
}

// Of returns the filesystem of a name.
func Of(name string) (FS, error) {
	var names []string
	for _, f := range All() {
		if f.Name == name {
			return f, nil
		}
		names = append(names, f.Name)
	}
	last := len(names) - 1
	return FS{}, fmt.Errorf("choose %s or %s", strings.Join(names[:last], ", "), names[last])
}

// Missing returns what is missing on this machine to make and mount images; nil if nothing
// is.
func (f FS) Missing() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can mount a filesystem on an image")
	}
	if _, err := os.Stat(loopControl); err != nil {
		return fmt.Errorf("there are no loop devices here, as in most containers: %w", err)
	}
	for _, tool := range []string{f.mkfs[0], f.fsck[0]} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is not installed", tool)
		}
	}
	return nil
}

// Make makes an image with an empty filesystem.
func (f FS) Make(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Truncate(f.Size), file.Close()); err != nil {
		return err
	}
	out, err := exec.Command(f.mkfs[0], append(f.mkfs[1:len(f.mkfs):len(f.mkfs)], path)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", f.mkfs[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Check has the filesystem's own program look at an image that is not mounted, which
// changes nothing, and returns what it says if it finds anything wrong.
func (f FS) Check(path string) (wrong string, err error) {
	out, err := exec.Command(f.fsck[0], append(f.fsck[1:len(f.fsck):len(f.fsck)], path)...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Sprintf("%s: %v\n%s", f.fsck[0], err, out), nil
	}
	return "", err
}

// Mount mounts an image on a directory. The directory is given back by unmount.
func (f FS) Mount(path, dir string) (unmount func() error, err error) {
	device, err := attach(path)
	if err != nil {
		return nil, fmt.Errorf("a loop device for %s: %w", path, err)
	}
	// The device detaches itself when the last one closes it: the filesystem.
	defer device.Close()
	if err := unix.Mount(device.Name(), dir, f.Name, 0, f.options); err != nil {
		return nil, &os.PathError{Op: "mount " + f.Name, Path: path, Err: err}
	}
	return func() error { return unmountSoon(dir) }, nil
}

// unmountSoon unmounts a directory. A process that is being made has the files of its parent
// open until it runs its program: so one that was just closed can keep the mount busy for
// a moment.
func unmountSoon(dir string) error {
	for wait := time.Millisecond; ; wait *= 2 {
		err := unix.Unmount(dir, 0)
		if err != syscall.EBUSY {
			return os.NewSyscallError("umount", err)
		}
		if wait > longestWait {
			_ = unix.Unmount(dir, unix.MNT_DETACH) // it ends with whoever uses it
			return &os.PathError{Op: "umount", Path: dir, Err: err}
		}
		time.Sleep(wait)
	}
}

// longestWait is when unmountSoon gives up.
const longestWait = 4 * time.Second

const loopControl = "/dev/loop-control"

// attach makes a block device of a file; loop(4).
func attach(path string) (*os.File, error) {
	control, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	for {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, os.NewSyscallError("LOOP_CTL_GET_FREE", err)
		}
		device, err := os.OpenFile(filepath.Join("/dev", fmt.Sprint("loop", number)), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd())}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		copy(config.Info.File_name[:len(config.Info.File_name)-1], path)
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		if err != syscall.EBUSY { // somebody else was faster
			return nil, os.NewSyscallError("LOOP_CONFIGURE", err)
		}
	}
}
