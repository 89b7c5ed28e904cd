package mountpoint

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Unmount takes the mapfs at mountpoint out of the mount table, also one whose
// daemon is dead. A lazy unmount succeeds while it is in use; the mount then
// ends with its last user.
//
// Errors are *os.PathError: ErrNotMapfs, or an errno of umount2(2), of which
// EBUSY says that somebody uses the mount (see Holders).
func Unmount(mountpoint string, lazy bool) error {
	entry, err := findMount(mountpoint)
	if err != nil {
		return err
	}
	if user := os.Geteuid(); user != 0 {
		if entry.user != strconv.Itoa(user) {
			// fusermount3 would say that there is no such mount.
			return &os.PathError{Op: "umount", Path: entry.path, Err: syscall.EPERM}
		}
		return helperUnmount(entry.path, lazy)
	}
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	if err := unix.Unmount(entry.path, flags); err != nil {
		return &os.PathError{Op: "umount", Path: entry.path, Err: err}
	}
	return nil
}

// helperUnmount unmounts for a user without privilege.
func helperUnmount(path string, lazy bool) error {
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	helper := exec.Command(Helper, append(args, "--", path)...)
	// A Ctrl-C is sent to the whole group. The helper is not to die of it.
	helper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	output, err := helper.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = helperError(string(output))
	}
	if err != nil {
		return &os.PathError{Op: "umount", Path: path, Err: err}
	}
	return nil
}

// helperError makes the errno again that fusermount3 has put into words: its
// exit status is 1 for all of them. It never translates its messages.
func helperError(output string) error {
	output = strings.TrimSpace(output)
	for _, errno := range []syscall.Errno{syscall.EBUSY, syscall.EPERM, syscall.EACCES, syscall.EINVAL} {
		if strings.HasSuffix(strings.ToLower(output), ": "+errno.Error()) {
			return errno
		}
	}
	if output == "" {
		return errors.New(Helper + " failed")
	}
	return errors.New(strings.ReplaceAll(output, "\n", "; "))
}
