package wire

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/fs/mountpoint"
)

// fuseDevice is the device of fuse sessions (fuse(4)).
const fuseDevice = "/dev/fuse"

// connect mounts and returns the descriptor of the connection: by mount(2) where the
// process may, else with the helper that is set-uid root.
func (o *Options) connect() (int, error) {
	if os.Geteuid() == 0 {
		fd, err := o.connectDirectly()
		if !errors.Is(err, syscall.EPERM) {
			return fd, err
		}
		// Root of a container without CAP_SYS_ADMIN: the helper says why not.
	}
	return o.connectByHelper()
}

// connectDirectly mounts by mount(2).
func (o *Options) connectDirectly() (int, error) {
	fd, err := unix.Open(fuseDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: fuseDevice, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Stat(o.Mountpoint, &st); err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "stat", Path: o.Mountpoint, Err: err}
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d", fd, st.Mode&unix.S_IFMT, os.Getuid(), os.Getgid())
	if o.AllowOther {
		data += ",allow_other"
	}
	if o.DefaultPermissions {
		data += ",default_permissions"
	}
	if err := unix.Mount(o.FSName, o.Mountpoint, "fuse."+mountpoint.Subtype, o.mountFlags(), data); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("mount", err)
	}
	return fd, nil
}

// mountFlags returns the flags of mount(2).
func (o *Options) mountFlags() uintptr {
	var flags uintptr
	for _, option := range o.words() {
		flags |= option.flag
	}
	return flags
}

// mountWord is a flag of mount(2), and the word for it.
type mountWord struct {
	flag uintptr
	word string
}

// words returns the options that mount(2) has flags for.
func (o *Options) words() []mountWord {
	var words []mountWord
	for _, option := range []struct {
		on bool
		mountWord
	}{
		{o.ReadOnly, mountWord{unix.MS_RDONLY, "ro"}},
		{!o.SUID, mountWord{unix.MS_NOSUID, "nosuid"}},
		{!o.Dev, mountWord{unix.MS_NODEV, "nodev"}},
		{o.NoExec, mountWord{unix.MS_NOEXEC, "noexec"}},
		{o.NoATime, mountWord{unix.MS_NOATIME, "noatime"}},
	} {
		if option.on {
			words = append(words, option.mountWord)
		}
	}
	return words
}

// helperOptions returns the argument of the helper's -o.
func (o *Options) helperOptions() string {
	escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace
	words := []string{"fsname=" + escape(o.FSName), "subtype=" + mountpoint.Subtype}
	for _, option := range o.words() {
		words = append(words, option.word)
	}
	for _, option := range []struct {
		on   bool
		word string
	}{
		{o.SUID, "suid"}, {o.Dev, "dev"},
		{o.AllowOther, "allow_other"}, {o.DefaultPermissions, "default_permissions"},
	} {
		if option.on {
			words = append(words, option.word)
		}
	}
	return strings.Join(words, ",")
}

// connectByHelper has fusermount3 mount. It sends the descriptor over the socket whose
// number is in the variable _FUSE_COMMFD.
func (o *Options) connectByHelper() (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	defer theirs.Close()
	helper := exec.Command(mountpoint.Helper, "-o", o.helperOptions(), "--", o.Mountpoint)
	// A Ctrl-C is sent to the whole group. The helper is not to die of it.
	helper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	helper.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	helper.ExtraFiles = []*os.File{theirs}
	var said bytes.Buffer
	helper.Stderr = &said
	if err := helper.Run(); err != nil {
		return -1, helperError(err, said.String())
	}
	return receiveDescriptor(pair[0])
}

// helperError is why the helper did not mount: what it said, and how it ended if it said
// nothing.
func helperError(err error, output string) error {
	var said []string
	for line := range strings.Lines(output) {
		if text := strings.TrimPrefix(strings.TrimSpace(line), mountpoint.Helper+": "); text != "" {
			said = append(said, text)
		}
	}
	if len(said) == 0 {
		return fmt.Errorf("%s: %w", mountpoint.Helper, err)
	}
	return fmt.Errorf("%s: %s", mountpoint.Helper, strings.Join(said, "; "))
}

// receiveDescriptor reads the descriptor that the helper has sent.
func receiveDescriptor(socket int) (int, error) {
	control := make([]byte, unix.CmsgSpace(4))
	_, length, _, _, err := unix.Recvmsg(socket, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:length])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("%s sent no descriptor", mountpoint.Helper)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("%s sent no descriptor", mountpoint.Helper)
	}
	return fds[0], nil
}
