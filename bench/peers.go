package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// The peers' names, as goals and tables call them.
const (
	native      = "native"
	mapfs       = "mapfs"
	writeback   = "mapfs -o writeback"
	exclusive   = "mapfs -o exclusive"
	hp          = "passthrough_hp"
	bindfs      = "bindfs"
	gofuse      = "go-fuse"
	plain       = "plain bazil"
	passthrough = "go-fuse passthrough"
)

// A peer is one way to reach the backing directory.
type peer struct {
	name string
	note string // what it is, for the report
	// argv is the daemon that stays in the foreground; nil is the directory itself.
	argv func(backing, mountpoint string) []string
}

// slug is the peer's name as part of a path.
func (p *peer) slug() string {
	return strings.NewReplacer(" ", "", "=", "").Replace(p.name)
}

// A cast is the peers that can be had here, and why the others cannot.
type cast struct {
	peers   []*peer
	missing []string
}

func (c *cast) names() []string {
	var names []string
	for _, p := range c.peers {
		names = append(names, p.name)
	}
	return names
}

// makeCast builds the peers that are built and finds those that are installed. The
// programs it builds stay in bin: they are the build's, not the run's.
func makeCast(ctx context.Context, src, bin, mapfsBin string) (*cast, error) {
	for _, name := range []string{"plain", "gofuse"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(bin, name), "./"+name)
		cmd.Dir = src
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building %s: %w\n%s", name, err, out)
		}
	}
	if _, err := os.Stat(mapfsBin); err != nil {
		return nil, fmt.Errorf("no mapfs to measure: %w", err)
	}

	c := &cast{}
	add := func(name, note string, argv ...string) {
		p := &peer{name: name, note: note}
		if len(argv) > 0 {
			p.argv = func(backing, mountpoint string) []string {
				return append(append([]string{}, argv...), backing, mountpoint)
			}
		}
		c.peers = append(c.peers, p)
	}
	add(native, "the backing directory itself")
	add(mapfs, firstLine(ctx, mapfsBin, "version")+", defaults", mapfsBin, "-f", "--log-level=warn")
	add(writeback, "the same with the kernel's writeback cache", mapfsBin, "-f", "--log-level=warn", "-o", "writeback")
	add(exclusive, "the same with the promise that nobody else changes the backing directory: names, attributes and directories for a day, writeback cache",
		mapfsBin, "-f", "--log-level=warn", "-o", "exclusive")
	if program, err := makeHP(ctx, src, bin); err != nil {
		c.missing = append(c.missing, fmt.Sprintf("%s: %v", hp, err))
	} else {
		add(hp, "example of libfuse "+version(ctx, "fusermount3", "--version")+
			", built from Debian's source, defaults: writeback cache, one day of timeouts", program, "--foreground")
	}
	if program, err := exec.LookPath("bindfs"); err != nil {
		c.missing = append(c.missing, "bindfs: the Debian package is not installed")
	} else {
		add(bindfs, "Debian's bindfs "+version(ctx, "bindfs", "--version")+", defaults", program, "-f")
	}
	add(gofuse, "loopback of github.com/hanwen/go-fuse/v2 "+moduleVersion(ctx, src, "github.com/hanwen/go-fuse/v2")+
		", the kernel's passthrough off", filepath.Join(bin, "gofuse"))
	add(plain, "fs.Serve of bazil.org/fuse "+moduleVersion(ctx, src, "bazil.org/fuse")+
		" and pread, `bench/plain`", filepath.Join(bin, "plain"))
	add(passthrough, "the same as go-fuse with the kernel's passthrough on: the daemon sees no read and no write; a limit, no peer",
		filepath.Join(bin, "gofuse"), "-passthrough")
	return c, nil
}

// makeHP returns the path of passthrough_hp, built on the first run.
func makeHP(ctx context.Context, src, bin string) (string, error) {
	program := filepath.Join(bin, "passthrough_hp")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	cmd := exec.CommandContext(ctx, filepath.Join(src, "passthrough_hp.sh"), program)
	out, err := cmd.CombinedOutput()
	if err != nil {
		os.Stderr.Write(out)
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", errors.New(lines[len(lines)-1])
	}
	return program, nil
}

// only leaves the peers in the list; native is always among them, because ratios
// need it.
func (c *cast) only(list []string) error {
	for _, name := range list {
		if !slices.Contains(c.names(), name) {
			return fmt.Errorf("no peer %q; there are %q", name, c.names())
		}
	}
	c.peers = slices.DeleteFunc(c.peers, func(p *peer) bool {
		return p.name != native && !slices.Contains(list, p.name)
	})
	return nil
}

// moduleVersion returns the version of a module that the peers are built with.
func moduleVersion(ctx context.Context, src, path string) string {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", path)
	cmd.Dir = src
	out, err := cmd.Output()
	if err != nil {
		return "(version unknown)"
	}
	return strings.TrimSpace(string(out))
}

// firstLine returns the first line a program prints.
func firstLine(ctx context.Context, argv ...string) string {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return argv[0] + " (version unknown)"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

// version returns the last word of the first line a program prints: its version.
func version(ctx context.Context, argv ...string) string {
	words := strings.Fields(firstLine(ctx, argv...))
	return words[len(words)-1]
}
