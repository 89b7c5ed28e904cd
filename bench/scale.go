package main

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// A pair is two cells of which the second does the same on much more: its cost per
// operation is meant to be at most limit times the first's.
type pair struct {
	title       string
	little, lot string
}

const scaleLimit = 1.3

// The goals for the daemon's anonymous memory, in bytes.
const (
	memoryBase    = 32 * mib
	memoryPerFile = 300
)

// What knowing many files costs in memory, as the cells' names.
const (
	memoryEach  = "memory-per-file"
	memoryTotal = "memory-many"
)

func pairs(s *sizes) []pair {
	return []pair{
		{"random read 4 KiB, direct, 100 GiB sparse against 1 GiB", "sparse-read-1", "sparse-read-100"},
		{"random write 4 KiB, direct, 100 GiB sparse against 1 GiB", "sparse-write-1", "sparse-write-100"},
		{fmt.Sprintf("find and stat, %d known files against %d", s.many, s.few), "walk-few", "walk-many"},
		{fmt.Sprintf("stat, %d known files against %d", s.many, s.few), "stat-few", "stat-many"},
		{fmt.Sprintf("open + close, %d known files against %d", s.many, s.few), "open-few", "open-many"},
		{fmt.Sprintf("random read 4 KiB, direct, of %d open files against 1", s.mapped), "spread-1", "spread-many"},
	}
}

// scaleJobs measure whether an operation costs more when there is more of everything.
// They are about mapfs; native and two peers show what the kernel and the machine add.
func scaleJobs(s *sizes) []*job {
	rate := func(id string) cell { return cell{id: id, title: id, unit: "/s"} }
	return []*job{
		{
			name: "sparse files", per: "operation", peers: []string{native, mapfs, bindfs, gofuse},
			fresh: true, rounds: 3,
			cells:   []cell{rate("sparse-write-1"), rate("sparse-write-100"), rate("sparse-read-1"), rate("sparse-read-100")},
			prepare: prepareSparse, clean: cleanSparse,
			run: runSparse,
		},
		{
			name: "open files", per: "operation", peers: []string{native, mapfs, bindfs, gofuse},
			cells: []cell{rate("spread-1"), rate("spread-many")}, fresh: true, rounds: 3,
			prepare: func(g *ground) error { return makeSpread(g.shared("spread"), s.mapped) },
			clean:   func(g *ground) error { return os.RemoveAll(g.shared("spread")) },
			run:     runSpread,
		},
		{
			name: "known files", per: "run", peers: []string{native, mapfs, bindfs}, fresh: true, rounds: 1, apart: true,
			cells: []cell{
				rate("walk-few"), rate("walk-many"), rate("stat-few"), rate("stat-many"), rate("open-few"), rate("open-many"),
				{id: memoryEach}, {id: memoryTotal},
			},
			prepare: func(g *ground) error {
				if err := makeMany(g.shared("few"), s.few); err != nil {
					return err
				}
				return makeMany(g.shared("many"), s.many)
			},
			clean: func(g *ground) error {
				if err := os.RemoveAll(g.shared("few")); err != nil {
					return err
				}
				return os.RemoveAll(g.shared("many"))
			},
			run: runMany,
		},
	}
}

var sparseFiles = map[string]int64{"1": 1 << 30, "100": 100 << 30}

func prepareSparse(g *ground) error {
	for _, p := range g.peers {
		for name, size := range sparseFiles {
			path := g.own(p, "sparse"+name)
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				return err
			}
			if err := os.Truncate(path, size); err != nil {
				return err
			}
		}
	}
	return nil
}

func cleanSparse(g *ground) error {
	for _, p := range g.peers {
		for name := range sparseFiles {
			if err := os.Remove(g.own(p, "sparse"+name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// runSparse writes first: fio's random offsets are the same in every run, so that the
// reads find data, until they come to where the writes did not.
func runSparse(ctx context.Context, t *target) (result, error) {
	r := result{values: map[string]sample{}}
	for _, kind := range []string{fioWrite, fioRead} {
		for _, gib := range []string{"1", "100"} {
			f := fioJob{cell: cell{id: "sparse-" + kind + "-" + gib}, kind: kind, file: "sparse" + gib, own: true, args: []string{
				"--rw=rand" + kind, "--bs=4k", "--direct=1", "--size=" + gib + "g", "--time_based", "--runtime=" + t.size.runtime,
				// A map of all blocks of 100 GiB would take fio longer than the run.
				"--norandommap", "--fallocate=none",
			}}
			got, err := f.run(ctx, t)
			if err != nil {
				return result{}, err
			}
			r.values[f.cell.id] = got.values[f.cell.id]
			r.units += got.units
		}
	}
	return r, nil
}

func makeSpread(dir string, n int) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	data := make([]byte, 4*len(block))
	for _, name := range fileNames(dir, n) {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func runSpread(ctx context.Context, t *target) (result, error) {
	values, err := clientJSON(ctx, "spread", t.shared("spread"), strconv.Itoa(t.size.mapped), t.size.runtime)
	if err != nil {
		return result{}, err
	}
	return result{
		values: map[string]sample{"spread-1": {values["one"]}, "spread-many": {values["many"]}},
		units:  values["ops"],
	}, nil
}

// spreadClient opens n files of a directory and reads blocks of the first one, and
// then of all of them at random, after every file was read once.
func spreadClient(args []string) error {
	dir, n := args[0], number(args[1])
	runtime, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	ops := 0
	var fds []int
	read := func(fd int) error {
		ops++
		_, err := syscall.Pread(fd, block, int64(rand.IntN(4)*len(block)))
		return err
	}
	for _, name := range fileNames(dir, n) {
		fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_DIRECT, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: name, Err: err}
		}
		fds = append(fds, fd)
	}
	rate := func(fds []int) (float64, error) {
		start, count := time.Now(), 0
		for time.Since(start) < runtime {
			if err := read(fds[rand.IntN(len(fds))]); err != nil {
				return 0, err
			}
			count++
		}
		return float64(count) / time.Since(start).Seconds(), nil
	}
	one, err := rate(fds[:1])
	if err != nil {
		return err
	}
	for _, fd := range fds {
		if err := read(fd); err != nil {
			return err
		}
	}
	many, err := rate(fds)
	if err != nil {
		return err
	}
	return printJSON(map[string]float64{"one": one, "many": many, "ops": float64(ops)})
}

// Files of the many are laid out in directories of this many.
const filesPerDir = 100

// makeMany makes n empty files below dir.
func makeMany(dir string, n int) error {
	for d := range n / filesPerDir {
		sub := manyDir(dir, d)
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		if _, err := each(fileNames(sub, filesPerDir), func(name string) error { return syscall.Mknod(name, syscall.S_IFREG|0o644, 0) }); err != nil {
			return err
		}
	}
	return nil
}

func manyDir(dir string, d int) string { return fmt.Sprintf("%s/d%05d", dir, d) }

// runMany measures single operations on a mount that knows few files, lets it get to
// know many, and measures them again.
func runMany(ctx context.Context, t *target) (result, error) {
	r := result{values: map[string]sample{}, units: 1}
	for _, tree := range []struct {
		name  string
		files int
	}{{"few", t.size.few}, {"many", t.size.many}} {
		before, err := memoryOf(t.pid())
		if err != nil {
			return result{}, err
		}
		dir := t.shared(tree.name)
		walked, err := clientJSON(ctx, "walk", dir)
		if err != nil {
			return result{}, err
		}
		if int(walked["files"]) != tree.files {
			return result{}, fmt.Errorf("the walk found %v files of %d", walked["files"], tree.files)
		}
		r.values["walk-"+tree.name] = sample{walked["files"] / walked["seconds"]}
		after, err := memoryOf(t.pid())
		if err != nil {
			return result{}, err
		}
		if tree.name == "many" && t.pid() != 0 {
			r.values[memoryEach] = sample{float64(after.Anonymous-before.Anonymous) / float64(tree.files)}
			r.values[memoryTotal] = sample{float64(after.Anonymous)}
		}
		for range t.size.samples {
			visited, err := clientJSON(ctx, "visit", dir, strconv.Itoa(tree.files))
			if err != nil {
				return result{}, err
			}
			for _, op := range []string{"stat", "open"} {
				id := op + "-" + tree.name
				r.values[id] = append(r.values[id], visited[op])
			}
		}
	}
	return r, nil
}

// walkClient looks at every file of a tree, as find with a test of its attributes.
func walkClient(args []string) error {
	start, files := time.Now(), 0
	err := filepath.WalkDir(args[0], func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		return opStat(path)
	})
	if err != nil {
		return err
	}
	return printJSON(map[string]float64{"files": float64(files), "seconds": time.Since(start).Seconds()})
}

// visitClient stats five hundred files and opens five hundred others, after the
// kernel's own knowledge of them has run out. They lie in ten directories, spread over
// all.
func visitClient(args []string) error {
	dir, dirs := args[0], number(args[1])/filesPerDir
	var names [2][]string
	for i := range 10 {
		names[i%2] = append(names[i%2], fileNames(manyDir(dir, i*dirs/10), filesPerDir)...)
	}
	time.Sleep(expiry)
	values := map[string]float64{}
	for i, phase := range []struct {
		id string
		op func(string) error
	}{{"stat", opStat}, {"open", opOpenClose}} {
		seconds, err := each(names[i], phase.op)
		if err != nil {
			return err
		}
		values[phase.id] = float64(len(names[i])) / seconds
	}
	return printJSON(values)
}
