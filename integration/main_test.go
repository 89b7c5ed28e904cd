// Package integration holds the black-box tests: the built mapfs binary, real
// mounts, real programs.
//
// The test process never touches a mount itself. A process that waits in the
// kernel for a FUSE daemon cannot always be killed, and a test that hangs tells
// nothing; so whatever touches a mount is a child with a time limit: a program
// (run, runCmd) or this test binary started again as a client (client,
// startClient).
//
// Environment:
//
//	MAPFS_BINARY   test this binary instead of building one
//	MAPFS_RACE=1   build the daemon with the race detector
//	MAPFS_REQUIRE  comma list of features (fuse, root, docker, ...) whose
//	               absence is a failure instead of a skip
package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// mapfsBin is the absolute path of the binary under test.
var mapfsBin string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "client" {
		os.Exit(clientMain(os.Args[2:]))
	}
	os.Exit(testMain(m))
}

// testMain exists because os.Exit runs no deferred calls.
func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "mapfs-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// Other users run the binary too.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}

	if bin := os.Getenv("MAPFS_BINARY"); bin != "" {
		if mapfsBin, err = filepath.Abs(bin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	} else {
		mapfsBin = filepath.Join(dir, "mapfs")
		if err := buildMapfs(mapfsBin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// buildMapfs builds the command into the file out.
func buildMapfs(out string) error {
	args := []string{"build", "-o", out}
	env := append(os.Environ(), "CGO_ENABLED=0") // as make build does
	if os.Getenv("MAPFS_RACE") == "1" {
		args, env = append(args, "-race"), os.Environ()
	}
	cmd := exec.Command("go", append(args, "./cmd/mapfs")...)
	cmd.Env = env
	// go test runs a package's tests in the package's directory.
	cmd.Dir = ".."
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd.Args, err, msg)
	}
	return nil
}
