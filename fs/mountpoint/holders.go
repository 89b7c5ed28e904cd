package mountpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Holder is somebody who may keep a mount busy.
type Holder struct {
	PID     int    // 0 for what is no process
	Command string // as ps(1) shows it
	What    string // what it holds, as "open file /mnt/a"
}

func (h Holder) String() string {
	if h.PID == 0 {
		return h.What
	}
	return fmt.Sprintf("%s (pid %d, %s)", h.Command, h.PID, h.What)
}

// Holders lists who may keep the mount at mountpoint busy, one Holder for each
// process, then the mounts below it. It sees what the caller may see: a user
// sees the user's own processes. It only reads the kernel's links, so that a
// stuck mount cannot stop it.
func Holders(mountpoint string) []Holder {
	table, err := readMountTable(mountInfo)
	if err != nil {
		return nil
	}
	path, err := resolveMountpoint(mountpoint, table)
	if err != nil {
		return nil
	}
	holders := holdersIn("/proc", path)
	for _, entry := range table {
		if entry.path != path && pathWithin(path, entry.path) {
			holders = append(holders, Holder{What: "the mount on " + entry.path})
		}
	}
	return holders
}

// holdersIn looks through the processes of a proc(5) directory.
func holdersIn(proc, mountpoint string) []Holder {
	var holders []Holder
	for _, pid := range processes(proc) {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		if what := heldBy(dir, mountpoint); what != "" {
			comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
			holders = append(holders, Holder{PID: pid, Command: strings.TrimSpace(string(comm)), What: what})
		}
	}
	return holders
}

// heldBy says what the process of dir holds below mountpoint, or "". Errors are
// passed over: processes end, and those of others cannot be read.
func heldBy(dir, mountpoint string) string {
	for _, link := range []struct{ name, what string }{
		{"cwd", "working directory"},
		{"root", "root directory"},
		{"exe", "runs"},
	} {
		target, err := os.Readlink(filepath.Join(dir, link.name))
		if err == nil && pathWithin(mountpoint, target) {
			return link.what + " " + target
		}
	}
	for _, fd := range entryNames(filepath.Join(dir, "fd")) {
		target, err := os.Readlink(filepath.Join(dir, "fd", fd))
		if err == nil && pathWithin(mountpoint, target) {
			return "open file " + target
		}
	}
	maps, _ := os.ReadFile(filepath.Join(dir, "maps"))
	for line := range strings.Lines(string(maps)) {
		// 7f00-7f10 rw-s 00000000 00:26 12   /mount/point/a file
		if i := strings.IndexByte(line, '/'); i >= 0 {
			target := unescapeMount(strings.TrimSuffix(line[i:], "\n"))
			if pathWithin(mountpoint, target) {
				return "mapped file " + target
			}
		}
	}
	return ""
}

// pathWithin tells whether path is dir or lies below it; both are clean.
func pathWithin(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// processes lists the process numbers in a proc(5) directory.
func processes(proc string) []int {
	var pids []int
	for _, name := range entryNames(proc) {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func entryNames(dir string) []string {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	return names
}
