// Package harness is what the black-box tests share: the built mapfs binary, real
// mounts, real programs. The tests are in the folders beside it, by subject.
//
// The test process never touches a mount itself. A process that waits in the
// kernel for a FUSE daemon cannot always be killed, and a test that hangs tells
// nothing; so whatever touches a mount is a child with a time limit: a program
// ([Run], [RunCmd]) or this test binary started again as a client ([Client],
// [StartClient]).
//
// Environment:
//
//	MAPFS_BINARY   test this binary instead of building one
//	MAPFS_RACE=1   build the daemon with the race detector
//	MAPFS_REQUIRE  comma list of features (fuse, root, docker, ...) whose
//	               absence is a failure instead of a skip
package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Binary is the absolute path of the binary under test.
var Binary string

// Main runs the tests of a package, or, in a test binary that was started again as a
// client, what the client is to do. It is for TestMain.
func Main(m *testing.M) {
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

	Binary = filepath.Join(dir, "mapfs")
	if bin := os.Getenv("MAPFS_BINARY"); bin != "" {
		err = copyFile(bin, Binary) // to where everybody can run it
	} else {
		err = buildMapfs(Binary)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func copyFile(from, to string) error {
	program, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, program, 0o755)
}

// Repo is a path from the repository's root. go test runs a package's tests in the
// package's directory.
func Repo(elem ...string) string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(append([]string{dir}, elem...)...)
		}
		if dir == filepath.Dir(dir) {
			panic("the tests do not run in the repository")
		}
		dir = filepath.Dir(dir)
	}
}

// buildMapfs builds the command into the file out.
func buildMapfs(out string) error {
	cmd := exec.Command(Repo("cmd", "build.sh"), out)
	if os.Getenv("MAPFS_RACE") == "1" {
		cmd = exec.Command("go", "build", "-race", "-o", out, "./cmd/mapfs")
	}
	cmd.Dir = Repo()
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd.Args, err, msg)
	}
	return nil
}
