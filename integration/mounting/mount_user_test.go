package mounting

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// nobody is in every /etc/passwd.
const nobody, nobodyGroup = 65534, 65534

// mountAs is mountWith for a daemon of the user nobody, whom fusermount3 finds in /etc/passwd; the mount
// point and BACKING are his.
func mountAs(t *testing.T, dir string, opts ...string) *harness.Mounted {
	t.Helper()
	need.Root(t)
	need.Tool(t, "setpriv")
	harness.OpenDevice(t)
	point := harness.SubDir(t, harness.TempDir(t), "mnt")
	for _, d := range []string{dir, point} {
		if err := os.Chown(d, nobody, nobodyGroup); err != nil {
			t.Fatal(err)
		}
	}
	return harness.MountWith(t, dir, harness.MountConfig{Dir: point, Opts: opts, User: nobody, Wrap: []string{
		"setpriv", fmt.Sprint("--reuid=", nobody), fmt.Sprint("--regid=", nobodyGroup), "--clear-groups", "--",
	}})
}

// mountFlags returns the options of a mount in /proc/self/mounts.
func mountFlags(t *testing.T, dir string) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[1] == dir {
			return strings.Split(fields[3], ",")
		}
	}
	t.Fatalf("%s is not mounted", dir)
	return nil
}

// TestMountFlags gives a user, and root, the flags of mount(8) that fusermount3 lets
// everybody have, and nodiratime, which is the daemon's alone. They are in the mount table, and they hold.
func TestMountFlags(t *testing.T) {
	need.Root(t)
	harness.EachFS(t, func(t *testing.T, top string) {
		for _, who := range []string{"user", "root"} {
			t.Run(who, func(t *testing.T) {
				dir := harness.SubDir(t, top, who)
				program := filepath.Join(dir, "program")
				if err := os.WriteFile(program, []byte("#!/bin/sh\necho runs\n"), 0o755); err != nil {
					t.Fatal(err)
				}
				mounting := func(opts ...string) *harness.Mounted { return harness.Mount(t, dir, opts...) }
				client := func(args ...string) (string, error) { return harness.RunErr(args[0], args[1:]...) }
				if who == "user" {
					if err := os.Chown(program, nobody, nobodyGroup); err != nil {
						t.Fatal(err)
					}
					mounting = func(opts ...string) *harness.Mounted { return mountAs(t, dir, opts...) }
					client = func(args ...string) (string, error) {
						return harness.RunCmd(harness.As(exec.Command(args[0], args[1:]...), nobody, nobodyGroup), harness.ClientTimeout)
					}
				}
				past := []unix.Timespec{harness.LongAgo, {Nsec: unix.UTIME_OMIT}}
				for _, name := range []string{program, dir} {
					if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, past, 0); err != nil {
						t.Fatal(err)
					}
				}
				m := mounting("noexec", "noatime", "nodiratime")
				flags := " " + strings.Join(mountFlags(t, m.Dir), " ") + " "
				for _, flag := range []string{"noexec", "noatime", "nosuid", "nodev"} {
					if !strings.Contains(flags, " "+flag+" ") {
						t.Errorf("%s is not among the mount's flags:%s", flag, flags)
					}
				}
				if out, err := client(m.Path("program")); err == nil {
					t.Errorf("a program ran in spite of noexec: %s", out)
				}
				if out, err := client("sh", "-ec", `cat "$1"/program; ls "$1"; dd if="$1/program" bs=3`, "sh", m.Dir); err != nil {
					t.Fatalf("%v %s", err, out)
				}
				m.Unmount()
				for _, name := range []string{program, dir} {
					var st unix.Stat_t
					if err := unix.Stat(name, &st); err != nil {
						t.Fatal(err)
					}
					if st.Atim != harness.LongAgo {
						t.Errorf("the access time of %s has changed in spite of noatime", name)
					}
				}
				m = mounting()
				if out, err := client(m.Path("program")); err != nil || out != "runs\n" {
					t.Errorf("a program without noexec: %v %s", err, out)
				}
			})
		}
	})
}
