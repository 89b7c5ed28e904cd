package client

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the other process of the tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		var other func([]string) error
		switch os.Args[1] {
		case "peer":
			other = func(args []string) error {
				return RunPeer(context.Background(), args[0], os.Stdin, os.Stdout)
			}
		case "dying-peer":
			other = func(args []string) error {
				time.AfterFunc(100*time.Millisecond, func() { _ = unix.Kill(os.Getpid(), unix.SIGKILL) })
				return RunPeer(context.Background(), args[0], os.Stdin, os.Stdout)
			}
		case "count":
			other = countUnderSemaphore
		}
		if other != nil {
			if err := other(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

func testPeer(argument string) *exec.Cmd { return otherProcess("peer", argument) }

func otherProcess(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	// A process with the race detector sleeps for a second at its end.
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	return cmd
}

// onEachFS runs test on a disk and on tmpfs, where there are both.
func onEachFS(t *testing.T, test func(t *testing.T, dir string)) {
	t.Helper()
	for _, fs := range []struct{ name, parent string }{{"disk", os.TempDir()}, {"tmpfs", "/dev/shm"}} {
		t.Run(fs.name, func(t *testing.T) {
			dir, err := os.MkdirTemp(fs.parent, "mapfs-client-test-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			test(t, dir)
		})
	}
}

// newFile makes a file with size bytes that are not zero.
func newFile(t testing.TB, dir string, size int64) string {
	t.Helper()
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i%251) + 1
	}
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mustMap maps a file until the end of the test.
func mustMap(t testing.TB, path string, opts Options) *Mapping {
	t.Helper()
	m, err := Map(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return m
}

const protRW = unix.PROT_READ | unix.PROT_WRITE

// mapsOf returns the lines of /proc/self/maps with the path.
func mapsOf(t testing.TB, path string) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, path) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// countUnderSemaphore adds 1 to a number in the file so many times, by a load
// and a store that a semaphore of the value 1 holds together.
func countUnderSemaphore(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), protRW, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(mem)
	return countUp(mem, n)
}

func countUp(mem []byte, n int) error {
	s := semaphoreAt(mem)
	number := mem[64:]
	for range n {
		if err := s.wait(context.Background()); err != nil {
			return err
		}
		binary.NativeEndian.PutUint64(number, binary.NativeEndian.Uint64(number)+1)
		if err := s.post(1); err != nil {
			return err
		}
	}
	return nil
}
