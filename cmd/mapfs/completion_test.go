//go:build linux

package main

import (
	"runtime/debug"
	"strings"
	"testing"
)

// TestCompletion asks as the shells' scripts do, by the hidden command
// __complete: one candidate a line, then a colon and the directive.
func TestCompletion(t *testing.T) {
	const anything, filterDirs, noFiles, noFilesNoSpace = ":0\n", ":16\n", ":4\n", ":6\n"
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"/b", ""}, filterDirs},
		{[]string{"/b", "/m", ""}, noFiles},
		{[]string{"mount", ""}, filterDirs},
		{[]string{"-o", "ro,attr"}, "ro,attr_timeout=\n" + noFilesNoSpace},
		{[]string{"-o", "nodef"}, "nodefault_permissions\n" + noFilesNoSpace},
		{[]string{"-o", "_netd"}, noFilesNoSpace},
		{[]string{"mount", "--log-level", ""}, "debug\ninfo\nwarn\nerror\n" + noFiles},
		{[]string{"umount", ""}, "/mnt/a\n/mnt/b\n" + noFiles},
		{[]string{"umount", "/mnt/a", ""}, noFiles},
		{[]string{"-o", "xattr"}, "xattr_stats\n" + noFilesNoSpace},
		{[]string{"-o", "contr"}, "control=\n" + noFilesNoSpace},
		{[]string{"--metrics-addr", ""}, "127.0.0.1:\n" + noFilesNoSpace},
		{[]string{"status", ""}, anything},
		{[]string{"pages", ""}, anything},
		{[]string{"pages", "f", ""}, noFiles},
		{[]string{"msync", "--offset", ""}, noFiles},
		{[]string{"ctl", "f", ""}, noFiles},
		{[]string{"mode", "f", ""}, "shared\nprivate\nstaged\n" + noFiles},
		{[]string{"completion", ""}, "bash\nzsh\nfish\n" + noFiles},
		{[]string{"vers"}, "version\tPrint the version\n" + filterDirs},
	}
	for _, test := range tests {
		f := newFakeSystem()
		f.mountpoints = func() ([]string, error) { return []string{"/mnt/a", "/mnt/b"}, nil }
		got := f.run(append([]string{"__complete"}, test.args...)...)
		if got.code != exitDone || got.stdout != test.want {
			t.Errorf("complete %q:\ngot  %q (exit code %d)\nwant %q", test.args, got.stdout, got.code, test.want)
		}
	}

	f := newFakeSystem()
	if got := f.run("__complete", "umount", ""); got.stdout != filterDirs {
		t.Errorf("umount with nothing mounted: got %q, want directories", got.stdout)
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		got := newFakeSystem().run("completion", shell)
		if got.code != exitDone || got.stderr != "" || !strings.Contains(got.stdout, "completion") {
			t.Errorf("%s: exit code %d, stderr %q, %d bytes", shell, got.code, got.stderr, len(got.stdout))
		}
	}
}

func TestDescribeCommit(t *testing.T) {
	tests := []struct {
		settings []debug.BuildSetting
		want     string
	}{
		{nil, ""},
		{[]debug.BuildSetting{{Key: "vcs.modified", Value: "true"}}, ""},
		{[]debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "false"}}, " (0123456789ab)"},
		{[]debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}}, " (0123456789ab, modified)"},
		{[]debug.BuildSetting{{Key: "vcs.revision", Value: "short"}}, " (short)"},
	}
	for _, test := range tests {
		if got := describeCommit(test.settings); got != test.want {
			t.Errorf("%v: got %q, want %q", test.settings, got, test.want)
		}
	}
}
