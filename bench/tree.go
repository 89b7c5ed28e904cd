package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// treeJob runs the everyday programs on a real source tree, a part of Go's own.
func treeJob(s *sizes) *job {
	seconds := func(id string, goals []goal) cell {
		return cell{id: id, title: id, inSeconds: true, goals: goals}
	}
	return &job{
		name: "source tree", per: "run", input: inputTree, fresh: true, ext4: true, rounds: 3, peers: withExclusive,
		cells: []cell{
			seconds("find", want(1.0, bestPeer)),
			seconds("grep -r", want(1.0, bestPeer)),
			seconds("tar x", nil),
			seconds("git status", nil),
			seconds("cp -r", want(1.0, bestPeer)),
			seconds("rm -r", want(1.0, bestPeer)),
		},
		run: runTree,
	}
}

func runTree(ctx context.Context, t *target) (result, error) {
	r := result{values: map[string]sample{}, units: 1}
	shared, mine, copied := t.shared("tree"), t.own("tree"), t.own("copy")
	for _, step := range []struct {
		id   string // "" is not measured
		argv []string
		exit int
	}{
		// Both see a tree that the kernel knows nothing of: the mount is new, and grep
		// finds the names that find has looked at, but none of the data.
		{id: "find", argv: []string{"find", shared, "-name", "*.go"}},
		{id: "grep -r", argv: []string{"grep", "-r", "a string that is nowhere in there", shared}, exit: 1},
		{argv: []string{"mkdir", mine}},
		{id: "tar x", argv: []string{"tar", "-xf", t.ground.path("tree.tar"), "-C", mine}},
		// The first one finds every file changed since the index was made, and reads it.
		{argv: []string{"git", "-C", mine, "status", "--short"}},
		{id: "git status", argv: []string{"git", "-C", mine, "status", "--short"}},
		{id: "cp -r", argv: []string{"cp", "-r", mine, copied}},
		{id: "rm -r", argv: []string{"rm", "-r", copied}},
		{argv: []string{"rm", "-r", mine}},
	} {
		start := time.Now()
		_, err := runClient(ctx, nil, step.argv[0], step.argv[1:]...)
		took := time.Since(start).Seconds()
		if code, ok := exitCode(err); !ok {
			return result{}, err
		} else if code != step.exit {
			return result{}, fmt.Errorf("%s ends with %d instead of %d: %v", step.argv[0], code, step.exit, err)
		}
		if step.id != "" {
			r.values[step.id] = sample{took}
		}
	}
	return r, nil
}

// makeTree copies the named parts of Go's own source to dir, makes a repository of it
// and an archive.
func makeTree(ctx context.Context, parts []string, dir, archive string) error {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(out)), "src")
	for _, part := range parts {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join(source, part))); err != nil {
			return err
		}
	}
	for _, argv := range [][]string{
		{"git", "-C", dir, "init", "-q"},
		{"git", "-C", dir, "add", "-A"},
		{"git", "-C", dir, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0", "commit", "-q", "-m", "tree"},
		{"git", "-C", dir, "-c", fmt.Sprintf("pack.threads=%d", runtime.NumCPU()), "repack", "-adq"},
		{"tar", "-cf", archive, "-C", dir, "."},
	} {
		if _, err := runClient(ctx, nil, argv[0], argv[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// exitCode returns the code a program ended with; not ok is one that did not run.
func exitCode(err error) (code int, ok bool) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, true
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), true
	}
	return 0, false
}

// sqliteJob measures inserts, each its own transaction.
func sqliteJob(s *sizes) *job {
	j := &job{
		name: "sqlite", per: "operation", ext4: true,
		cells: []cell{{id: "sqlite", title: "sqlite, inserts in transactions of one", unit: "/s"}},
	}
	j.run = func(ctx context.Context, t *target) (result, error) {
		var sql strings.Builder
		sql.WriteString("create table t(id integer primary key, body text);\n")
		for i := range s.inserts {
			fmt.Fprintf(&sql, "insert into t values(%d, '%s');\n", i, strings.Repeat("x", 100))
		}
		path := t.own("test.db")
		defer client(ctx, "rm", path)
		start := time.Now()
		if _, err := runClient(ctx, strings.NewReader(sql.String()), "sqlite3", "-batch", "-bail", path); err != nil {
			return result{}, err
		}
		inserts := float64(s.inserts)
		return one("sqlite", inserts/time.Since(start).Seconds(), inserts), nil
	}
	return j
}
