package wire

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// fuseDevice is the device of fuse sessions (fuse(4)).
const fuseDevice = "/dev/fuse"

// openDevices returns the descriptors of this process that are open on
// /dev/fuse.
func openDevices() (map[int]bool, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	found := make(map[int]bool)
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == fuseDevice {
			if fd, err := strconv.Atoi(e.Name()); err == nil {
				found[fd] = true
			}
		}
	}
	return found, nil
}

// sessionDevice returns a duplicate of the descriptor of the session that was
// mounted since before was taken. The library keeps that descriptor to itself,
// and a reply straight from a mapping needs it.
func sessionDevice(before map[int]bool) (int, error) {
	now, err := openDevices()
	if err != nil {
		return -1, err
	}
	session := -1
	for fd := range now {
		if before[fd] {
			continue
		}
		if session >= 0 {
			return -1, errors.New("two new descriptors of " + fuseDevice)
		}
		session = fd
	}
	if session < 0 {
		return -1, errors.New("no new descriptor of " + fuseDevice)
	}
	dup, err := unix.FcntlInt(uintptr(session), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("dup of the session's descriptor: %w", err)
	}
	return dup, nil
}
