package docker

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

const (
	// dockerBuildLimit is enough to fetch or make the base images too.
	dockerBuildLimit = 10 * time.Minute
	// dockerStopGrace is what docker stop gives the daemon before SIGKILL.
	dockerStopGrace = 20 * time.Second
)

// requireDocker skips or fails the test where no engine answers.
// integration/docker/with-engine.sh runs a command with one that does.
func requireDocker(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		need.Missing(t, "docker", "%v", err)
	}
	if _, err := harness.RunErr("docker", "version"); err != nil {
		need.Missing(t, "docker", "%v", err)
	}
}

// dockerImage builds the image of this tree, once, and returns its name. The
// image is left to the engine: its layers make the next build quick.
func dockerImage(t testing.TB) string {
	t.Helper()
	requireDocker(t)
	const image = "mapfs:test"
	if err := buildDockerImage(image); err != nil {
		t.Fatal(err)
	}
	return image
}

var (
	dockerBuildOnce sync.Once
	dockerBuildErr  error
)

func buildDockerImage(image string) error {
	dockerBuildOnce.Do(func() {
		_, dockerBuildErr = harness.RunCmd(exec.Command(harness.Repo("integration", "docker", "build.sh"), image), dockerBuildLimit)
	})
	return dockerBuildErr
}

// container is mapfs in a container, with BACKING and the mount point on the host.
type container struct {
	t       testing.TB
	id      string
	backing string // on the host
	mnt     string // on the host: for children only
}

// startContainer runs the image as the documentation says and returns when the
// mount answers inside.
func startContainer(t testing.TB, opts ...string) *container {
	t.Helper()
	harness.RequireFUSE(t)
	need.Root(t)
	image := dockerImage(t)
	top := harness.TempDir(t)
	c := &container{t: t, backing: harness.SubDir(t, top, "backing"), mnt: sharedDir(t, top)}

	args := append([]string{"run", "-d"}, dockerRights()...)
	args = append(args, "-v", c.backing+":/backing", "-v", c.mnt+":/mnt:rshared", image)
	if len(opts) > 0 {
		args = append(args, "-o", strings.Join(opts, ","))
	}
	c.id = strings.TrimSpace(harness.Run(t, "docker", append(args, "/backing", "/mnt")...))
	t.Cleanup(c.remove)

	for deadline := time.Now().Add(harness.MountLimit); ; time.Sleep(50 * time.Millisecond) {
		if out, _ := harness.RunErr("docker", "exec", c.id, "grep", " /mnt fuse", "/proc/mounts"); out != "" {
			return c
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing mounted in the container after %v:\n%s", harness.MountLimit, c.logs())
		}
	}
}

// dockerRights are the flags with which a container may mount.
func dockerRights() []string {
	args := []string{"--network", "none", "--device", "/dev/fuse", "--cap-add", "SYS_ADMIN"}
	if on, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); strings.HasPrefix(string(on), "Y") {
		// The default profile of AppArmor forbids mount(2).
		args = append(args, "--security-opt", "apparmor=unconfined")
	}
	return args
}

// sharedDir makes a directory whose mounts reach other mount namespaces and
// come back from them, as -v DIR:/mnt:rshared demands.
func sharedDir(t testing.TB, top string) string {
	t.Helper()
	shared := harness.SubDir(t, top, "shared")
	harness.MountFor(t, shared, "--bind", shared, shared)
	harness.Run(t, "mount", "--make-rshared", shared)
	return harness.SubDir(t, shared, "mnt")
}

// remove ends the container however the test ended, and its mount on the host.
func (c *container) remove() {
	if c.t.Failed() {
		c.t.Logf("log of the container:\n%s", c.logs())
	}
	if _, err := harness.RunErr("docker", "rm", "-f", "-v", c.id); err != nil {
		c.t.Errorf("remove the container: %v", err)
	}
	if harness.IsMounted(c.t, c.mnt) {
		c.t.Errorf("%s is still mounted after the container's end", c.mnt)
		_, _ = harness.RunErr("umount", "-l", c.mnt)
	}
}

func (c *container) logs() string {
	out, err := harness.RunCmd(exec.Command("sh", "-c", "docker logs "+c.id+" 2>&1"), harness.ClientTimeout)
	if err != nil {
		return err.Error()
	}
	return out
}

// exec runs a shell command line inside the container.
func (c *container) exec(script string) string {
	c.t.Helper()
	return harness.Run(c.t, "docker", "exec", c.id, "sh", "-c", script)
}

// stop is docker stop, which is SIGTERM first. It returns the exit status.
func (c *container) stop() string {
	c.t.Helper()
	harness.Run(c.t, "docker", "stop", "-t", fmt.Sprint(int(dockerStopGrace.Seconds())), c.id)
	return strings.TrimSpace(harness.Run(c.t, "docker", "inspect", "-f", "{{.State.ExitCode}}", c.id))
}

// wantBacking checks the bytes that a file has in BACKING on the host.
func (c *container) wantBacking(name, want string) {
	c.t.Helper()
	got, err := os.ReadFile(filepath.Join(c.backing, name))
	if err != nil {
		c.t.Fatal(err)
	}
	if string(got) != want {
		c.t.Errorf("BACKING/%s: got %.40q (%d bytes), want %.40q (%d bytes)",
			name, got, len(got), want, len(want))
	}
}

// TestDockerInside uses the mount through docker exec.
func TestDockerInside(t *testing.T) {
	c := startContainer(t)
	random := make([]byte, 3<<20+17)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.backing, "big"), random, 0o644); err != nil {
		t.Fatal(err)
	}

	c.exec("printf hello >/mnt/f && sync /mnt/f")
	c.wantBacking("f", "hello")
	if got := c.exec("cat /mnt/f"); got != "hello" {
		t.Errorf("cat: got %q, want %q", got, "hello")
	}
	c.exec("truncate -s 3 /mnt/f && truncate -s 9 /mnt/f && sync /mnt/f")
	c.wantBacking("f", "hel\x00\x00\x00\x00\x00\x00")
	c.exec("dd if=/mnt/big of=/mnt/copy bs=4097 status=none && sync /mnt/copy && cmp /mnt/big /mnt/copy")
	c.wantBacking("copy", string(random))
	// The daemon is the container's process 1. Its file is mapped, not only read.
	if maps := c.exec("grep /backing/copy /proc/1/maps"); !strings.Contains(maps, " rw-s ") {
		t.Errorf("no shared writable mapping of /backing/copy in:\n%s", maps)
	}

	if got := c.stop(); got != "0" {
		t.Errorf("exit status after docker stop: got %s, want 0", got)
	}
}

// TestDockerHost uses the mount that a container makes from the host.
func TestDockerHost(t *testing.T) {
	c := startContainer(t, "allow_other")
	if !harness.IsMounted(t, c.mnt) {
		t.Fatalf("the container's mount is not seen at %s on the host", c.mnt)
	}
	on := func(name string) string { return filepath.Join(c.mnt, name) }

	harness.Run(t, "sh", "-c", "printf hello >"+on("f"))
	harness.Run(t, "sync", on("f"))
	c.wantBacking("f", "hello")
	if got := harness.Run(t, "cat", on("f")); got != "hello" {
		t.Errorf("cat: got %q, want %q", got, "hello")
	}
	harness.Run(t, "truncate", "-s", "3", on("f"))
	harness.Run(t, "truncate", "-s", "9000", on("f"))
	harness.Run(t, "sync", on("f"))
	c.wantBacking("f", "hel"+strings.Repeat("\x00", 8997))
	harness.Run(t, "dd", "if=/dev/urandom", "of="+on("big"), "bs=1M", "count=8", "conv=fsync", "status=none")
	harness.Run(t, "cmp", on("big"), filepath.Join(c.backing, "big"))

	// Written and not synced: the way out has to do that.
	harness.Run(t, "sh", "-c", "printf goodbye >"+on("last"))
	if got := c.stop(); got != "0" {
		t.Errorf("exit status after docker stop: got %s, want 0", got)
	}
	c.wantBacking("last", "goodbye")
	if harness.IsMounted(t, c.mnt) {
		t.Errorf("%s is still mounted after docker stop", c.mnt)
	}
}

// TestDockerControl follows a file in a container as the script control_follow
// does outside. A container's seccomp filter can take cachestat(2) away; then the
// engine's own record still tells, and the mount's status says why the kernel does
// not.
func TestDockerControl(t *testing.T) {
	script, err := txtar.ParseFile(harness.Repo("integration", "scripts", "testdata", "control_follow.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(script.Files, func(f txtar.File) bool { return f.Name == "follow.sh" })
	c := startContainer(t)
	cmd := exec.Command("docker", "exec", "-i", "-w", "/tmp", c.id, "sh", "-s", "/mnt")
	cmd.Stdin = bytes.NewReader(script.Files[i].Data)
	out, err := harness.RunCmd(cmd, harness.ClientTimeout)
	if err != nil || out != "followed\n" {
		t.Errorf("follow.sh: %q %v", out, err)
	}
	status := c.exec("cat /mnt/.mapfs/status")
	ok := strings.Contains(status, "\nsource_cachestat ok\n") && strings.Contains(status, "\nsources cachestat,")
	why := strings.Contains(status, "\nsource_cachestat ENOSYS: ") || strings.Contains(status, "\nsource_cachestat EPERM: ")
	if ok == why {
		t.Errorf("status says neither that cachestat works nor why it does not:\n%s", status)
	}
	if got := c.stop(); got != "0" {
		t.Errorf("exit status after docker stop: got %s, want 0", got)
	}
}

// TestDockerModes stores to private and staged files, and through explicit
// mappings, in a container: what the seccomp filter of the engine takes away
// (process_vm_writev(2) above all) has its way around.
func TestDockerModes(t *testing.T) {
	c := startContainer(t, "mode=staged")
	c.exec(`
set -ex
cd /mnt
echo old >f; sync f
[ "$(cat /backing/f)" = old ]
echo new >f
[ "$(cat f) $(cat /backing/f)" = "new old" ]
grep -q C .mapfs/files/f/pages
sync f
[ "$(cat /backing/f)" = new ]
mapfs mode f private
echo mine >f
[ "$(cat f) $(cat /backing/f)" = "mine new" ]
mapfs msync --invalidate f
[ "$(cat f)" = new ]
mapfs mode f shared
mapfs ctl . 'mmap name=m file=f prot=r'
[ "$(head -c 3 .mapfs/mappings/m/memory)" = new ]
if printf x >.mapfs/mappings/m/memory; then exit 1; fi
mapfs ctl . 'mmap name=w file=f flags=private'
printf NEW | dd of=.mapfs/mappings/w/memory conv=notrunc status=none
[ "$(head -c 3 .mapfs/mappings/w/memory) $(cat f)" = "NEW new" ]
grep -q '^copied_pages 1$' .mapfs/mappings/w/status
mapfs events --no-follow . | grep -q 'fault .*signal=SIGSEGV'
rmdir .mapfs/mappings/m .mapfs/mappings/w
echo last >g`)
	if got := c.stop(); got != "0" {
		t.Errorf("exit status after docker stop: got %s, want 0", got)
	}
	c.wantBacking("f", "new\n")
	c.wantBacking("g", "last\n")
}

// TestDockerKilled is the container's crash: bytes that write(2) acknowledged
// stay, and a new container serves them.
func TestDockerKilled(t *testing.T) {
	c := startContainer(t)
	c.exec("printf acknowledged >/mnt/f")
	harness.Run(t, "docker", "kill", "--signal", "KILL", c.id)
	harness.Run(t, "docker", "wait", c.id)
	c.wantBacking("f", "acknowledged")
	if harness.IsMounted(t, c.mnt) {
		// The mount was the dead container's; the host's copy of it is dead too.
		harness.Run(t, harness.Binary, "umount", c.mnt)
	}
	harness.Run(t, "docker", "start", c.id)
	for deadline := time.Now().Add(harness.MountLimit); ; time.Sleep(50 * time.Millisecond) {
		out, err := harness.RunErr("docker", "exec", c.id, "sh", "-c", "grep -q ' /mnt fuse' /proc/mounts && cat /mnt/f")
		if err == nil {
			if out != "acknowledged" {
				t.Errorf("cat: got %q, want %q", out, "acknowledged")
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the started container does not mount: %v\n%s", err, c.logs())
		}
	}
	if got := c.stop(); got != "0" {
		t.Errorf("exit status after docker stop: got %s, want 0", got)
	}
}
