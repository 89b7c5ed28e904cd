package docker

import (
	"os/exec"
	"strings"
	"testing"

	"mapfs/docs/lab"
	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// TestDockerLab follows every exercise in a container with the documented flags, on a
// volume.
func TestDockerLab(t *testing.T) {
	need.Root(t)
	image := dockerImage(t)
	args := append([]string{"run", "-d", "--entrypoint", "sleep", "-v", harness.Ext4Dir(t) + ":/lab"}, dockerRights()...)
	id := strings.TrimSpace(harness.Run(t, "docker", append(args, image, "infinity")...))
	t.Cleanup(func() {
		if _, err := harness.RunErr("docker", "rm", "-f", "-v", id); err != nil {
			t.Errorf("remove the container: %v", err)
		}
	})
	for _, e := range lab.Exercises() {
		t.Run(e.Name, func(t *testing.T) {
			cmd := exec.Command("docker", "exec", "-i", "-w", "/lab", "-e", "LC_ALL=C", "-e", "TERM=dumb", "-e", "NO_COLOR=1",
				id, "bash", "--norc", "--noprofile")
			sh := &harness.LabShell{Process: harness.StartProc(t, cmd)}
			sh.Say("exec 2>&1")
			dir := strings.TrimSuffix(e.Name, ".md")
			for _, command := range []string{"mkdir -p " + dir + "/backing " + dir + "/mnt", "cd " + dir, "mapfs backing mnt"} {
				if out := sh.Run(command); len(out) > 0 {
					t.Fatalf("%s: %q", command, out)
				}
			}
			sh.Unmount = func() {
				if out := sh.Run("mapfs umount mnt"); len(out) > 0 {
					t.Errorf("mapfs umount mnt: %q", out)
				}
			}
			harness.FollowExercise(t, sh, harness.WithoutDirty(e))
		})
	}
}

// TestDockerVerbs gives the image commands that are no mount.
func TestDockerVerbs(t *testing.T) {
	image := dockerImage(t)
	for _, c := range []struct{ args, want string }{
		{"lab 1", "# 01 What a mapping is\n"},
		{"lab", " 1  What a mapping is\n"},
		{"version", "mapfs "},
		{"--help", "mapfs mounts a mirror"},
		{"", "mapfs mounts a mirror"},
	} {
		args := append([]string{"run", "--rm", "--network", "none", image}, strings.Fields(c.args)...)
		if out := harness.Run(t, "docker", args...); !strings.Contains(out, c.want) {
			t.Errorf("docker run IMAGE %s: no %q in\n%s", c.args, c.want, out)
		}
	}
	if out, err := harness.RunErr("docker", "run", "--rm", "--network", "none", image, "nothing"); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("docker run IMAGE nothing: %v %s", err, out)
	}
}
