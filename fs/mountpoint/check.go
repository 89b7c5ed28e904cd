package mountpoint

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotMapfs says that a path is not where a mapfs is mounted.
var ErrNotMapfs = errors.New("not a mapfs mount")

const (
	// Subtype is that of the mounts, and mountType how /proc/self/mountinfo names
	// them with it.
	Subtype   = "mapfs"
	mountType = "fuse." + Subtype

	// Helper is set-uid root and mounts for everybody (that of fuse3).
	Helper = "fusermount3"

	// patience bounds a look at a mount whose daemon may be stuck.
	patience = 2 * time.Second
)

// mountHost is what a mount needs of the machine, so that a test can take
// parts of it away.
type mountHost struct {
	euid       int
	mountTable string                       // /proc/self/mountinfo
	device     string                       // /dev/fuse
	fuseConf   string                       // /etc/fuse.conf
	mayMount   func() bool                  // mountingPossible
	lookPath   func(string) (string, error) // exec.LookPath
}

func thisHost() mountHost {
	return mountHost{
		euid:       os.Geteuid(),
		mountTable: mountInfo,
		device:     "/dev/fuse",
		fuseConf:   "/etc/fuse.conf",
		mayMount:   mountingPossible,
		lookPath:   exec.LookPath,
	}
}

// Request is a mount that is asked for.
type Request struct {
	// Backing is the directory that the mount shows, Mountpoint the one it appears on.
	Backing, Mountpoint string

	// These are options of mount(8) and fuse(8) that not everybody may use.
	AllowOther, DefaultPermissions, NonEmpty, SUID, Dev, Passthrough bool
}

// Check makes Backing and Mountpoint absolute and free of symlinks, and
// finds what would make the mount fail or hang before anything is mounted. Its
// errors are one line each, name the path and say what to do.
func (r *Request) Check() error { return thisHost().check(r) }

func (h mountHost) check(r *Request) error {
	if err := h.checkRights(r); err != nil {
		return err
	}
	// The mount point goes first: if it is a mapfs already, then looking at a
	// BACKING below it would ask that daemon, which may never answer.
	mountpoint, err := h.checkMountpoint(r.Mountpoint)
	if err != nil {
		return err
	}
	backing, err := checkBacking(r.Backing)
	if err != nil {
		return err
	}
	if err := checkApart(backing, mountpoint); err != nil {
		return err
	}
	// fusermount3 insists on this too, but says so only on its stderr.
	if h.euid != 0 && unix.Access(mountpoint, unix.W_OK) != nil {
		return fmt.Errorf("mountpoint %s is not writable; mount on a directory of your own", mountpoint)
	}
	if !r.NonEmpty {
		if err := checkEmpty(mountpoint); err != nil {
			return err
		}
	}
	if err := h.checkFuse(); err != nil {
		return err
	}
	r.Backing, r.Mountpoint = backing, mountpoint
	return nil
}

// checkRights refuses what the caller may not have, or should not want.
func (h mountHost) checkRights(r *Request) error {
	if h.euid == 0 {
		if r.AllowOther && !r.DefaultPermissions {
			// The daemon does every operation with its own rights; only
			// the kernel's check keeps users apart.
			return errors.New("allow_other without default_permissions would give every user root's rights on BACKING; drop nodefault_permissions")
		}
		return nil
	}
	for _, option := range []struct {
		name string
		set  bool
		hint string
	}{
		{"passthrough", r.Passthrough, "leave it out"},
		{"suid", r.SUID, "leave it out"},
		{"dev", r.Dev, "leave it out"},
	} {
		if option.set {
			return fmt.Errorf("option %s needs root; %s", option.name, option.hint)
		}
	}
	if r.AllowOther && !h.userAllowOther() {
		return fmt.Errorf("option allow_other is not permitted; ask root for a line 'user_allow_other' in %s", h.fuseConf)
	}
	return nil
}

// userAllowOther tells whether fuse.conf lets users mount with allow_other. It
// reads the file as fusermount3 does: the word on a line of its own.
func (h mountHost) userAllowOther() bool {
	conf, err := os.ReadFile(h.fuseConf)
	if err != nil {
		return false
	}
	lines := bufio.NewScanner(bytes.NewReader(conf))
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if strings.TrimSpace(text) == "user_allow_other" {
			return true
		}
	}
	return false
}

// checkMountpoint returns the mount point's true path.
func (h mountHost) checkMountpoint(path string) (string, error) {
	if path == "" {
		return "", errors.New("no mountpoint given")
	}
	table, err := readMountTable(h.mountTable)
	if err != nil {
		return "", err
	}
	path, err = resolveMountpoint(path, table)
	if err != nil {
		return "", describePath("mountpoint", path, err)
	}
	if entry, mounted := table.at(path); mounted && entry.fstype == mountType {
		return "", occupied(path, within(patience, path, asksDaemon))
	}
	var info os.FileInfo
	err = within(patience, path, func(path string) (err error) {
		info, err = os.Stat(path)
		return err
	})
	if err != nil {
		return "", describePath("mountpoint", path, err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("mountpoint %s is not a directory; mount on a directory", path)
	}
	return path, nil
}

// occupied says that a mapfs is mounted on path; lookErr is what a look at it
// gave. Only ENOTCONN means a dead daemon: EACCES, say, is a sign of life,
// because without allow_other FUSE lets nobody but the mounter in, not even
// root.
func occupied(path string, lookErr error) error {
	switch {
	case isDead(lookErr):
		return fmt.Errorf("mountpoint %s has a dead mapfs mount; clean it up with 'mapfs umount %s'", path, path)
	case errors.Is(lookErr, os.ErrDeadlineExceeded):
		return fmt.Errorf("mountpoint %s has a mapfs mount that does not answer; see what its daemon does, or detach it with 'mapfs umount -l %s'", path, path)
	default:
		return fmt.Errorf("mountpoint %s already is a mapfs mount; unmount it first with 'mapfs umount %s'", path, path)
	}
}

func checkEmpty(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return describePath("mountpoint", dir, err)
	}
	defer d.Close()
	switch _, err := d.Readdirnames(1); {
	case err == nil:
		return fmt.Errorf("mountpoint %s is not empty; choose an empty directory, or hide its files with '-o nonempty'", dir)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return describePath("mountpoint", dir, err)
	}
}

// checkBacking returns the backing directory's true path.
func checkBacking(path string) (string, error) {
	if path == "" {
		return "", errors.New("no backing directory given")
	}
	path, err := absolute(path)
	if err != nil {
		return "", err
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", describePath("backing directory", path, err)
	}
	info, err := os.Stat(resolved)
	if err != nil {
		return "", describePath("backing directory", resolved, err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("backing path %s is not a directory; name the directory to mirror", path)
	}
	return resolved, nil
}

// describePath words err for the user; what says which of the two paths it is.
func describePath(what, path string, err error) error {
	path = filepath.Clean(path)
	hint := "check its path"
	switch {
	case errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("%s %s does not exist; create it, or check the path", what, path)
	case errors.Is(err, syscall.ENOTDIR):
		hint = "a part of the path is a file"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		hint = "check its permissions and those of the directories above"
	case isDead(err):
		hint = fmt.Sprintf("a dead mount; unmount it first with 'umount %s'", path)
	case errors.Is(err, os.ErrDeadlineExceeded):
		hint = "something mounted there is stuck"
	}
	return fmt.Errorf("%s %s: %w; %s", what, path, bareError(err), hint)
}

// bareError takes the path off err, for messages that name it already.
func bareError(err error) error {
	if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// checkApart refuses a directory inside the other: the mount would show itself,
// or the daemon would wait for its own answers. Both paths are absolute and
// free of symlinks. Directories are compared by identity as well as by name,
// because a bind mount gives one directory two names.
func checkApart(backing, mountpoint string) error {
	same, err := sameDir(backing, mountpoint)
	if err != nil {
		return err
	}
	if same {
		return fmt.Errorf("backing directory and mountpoint are the same directory, %s; mount on another one", mountpoint)
	}
	if inside, err := dirContains(backing, mountpoint); err != nil {
		return err
	} else if inside {
		return fmt.Errorf("mountpoint %s lies inside the backing directory %s; mount on a directory outside it", mountpoint, backing)
	}
	if inside, err := dirContains(mountpoint, backing); err != nil {
		return err
	} else if inside {
		return fmt.Errorf("backing directory %s lies inside the mountpoint %s; mount on a directory that does not hold it", backing, mountpoint)
	}
	return nil
}

// dirContains tells whether dir is one of the directories above path.
func dirContains(dir, path string) (bool, error) {
	for path != "/" {
		path = filepath.Dir(path)
		if same, err := sameDir(dir, path); same || err != nil {
			return same, err
		}
	}
	return false, nil
}

func sameDir(a, b string) (bool, error) {
	if a == b {
		return true, nil
	}
	aInfo, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	bInfo, err := os.Stat(b)
	if err != nil {
		return false, err
	}
	return os.SameFile(aInfo, bInfo), nil
}

// checkFuse finds out whether this machine, or container, can mount at all.
func (h mountHost) checkFuse() error {
	const advice = "load the kernel module with 'modprobe fuse' (in Docker, run the container with '--device /dev/fuse --cap-add SYS_ADMIN')"
	// The node can be there while the module is not, or while a container
	// forbids it. The helper opens it with the rights of its caller.
	device, err := os.OpenFile(h.device, os.O_RDWR, 0)
	if errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("%s: %w; where the package udev is installed, its rule KERNEL==\"fuse\", MODE=\"0666\" (50-udev-default.rules) opens the device to all; else ask root for 'chmod 666 %s'", h.device, bareError(err), h.device)
	}
	if err != nil {
		return fmt.Errorf("%s: %w; %s", h.device, bareError(err), advice)
	}
	device.Close()
	if !h.mayMount() {
		return errors.New("this container may not mount; run it with '--cap-add SYS_ADMIN' (Docker)")
	}
	if h.euid == 0 {
		return nil // mount(2) needs no help
	}
	if _, err := h.lookPath(Helper); err != nil {
		return fmt.Errorf("%s is not in PATH; install the package fuse3 (on Debian and Ubuntu: apt-get install fuse3)", Helper)
	}
	return nil
}

// mountingPossible tells whether any process here can mount, a set-uid helper
// included: containers take the capability away from all of them.
func mountingPossible() bool {
	has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_ADMIN, 0, 0, 0)
	return err != nil || has != 0
}

// asksDaemon makes the daemon of the mount at path answer. A stat(2) would not:
// the kernel keeps attributes for a while, also those of the dead.
func asksDaemon(path string) error {
	var statfs unix.Statfs_t
	return unix.Statfs(path, &statfs)
}

// within looks at a path that may be a stuck mount: it ends with
// os.ErrDeadlineExceeded. The goroutine that still waits then ends with the
// mount.
func within(limit time.Duration, path string, look func(string) error) error {
	looked := make(chan error, 1)
	go func() { looked <- look(path) }()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case err := <-looked:
		return err
	case <-timeout.C:
		return os.ErrDeadlineExceeded
	}
}

// isDead reports whether an error is what a mount answers whose daemon is gone:
// ENOTCONN, or ECONNABORTED to who asked while it went.
func isDead(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
}
