package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// Attributes and names are kept for one second by most peers; this is surely later.
const expiry = 1200 * time.Millisecond

// withExclusive are the peers where it counts how much the kernel may keep.
var withExclusive = []string{native, mapfs, exclusive, hp, bindfs, gofuse, plain, passthrough}

// metaJobs are the small metadata driver. Each works on one set of files and on a new
// mount: the first touch of every name is one, and passthrough_hp, which holds a
// descriptor for every file that the kernel knows, stays within the usual limits.
func metaJobs(s *sizes) []*job {
	rate := func(id, title string, goals []goal) cell {
		return cell{id: id, title: title, unit: "/s", goals: goals}
	}
	var list []*job
	add := func(group string, cells ...cell) {
		j := &job{
			name: "metadata: " + group, per: "operation", input: inputFiles,
			fresh: true, ext4: true, rounds: 3, cells: cells,
			peers: withExclusive,
		}
		j.run = func(ctx context.Context, t *target) (result, error) {
			dir := t.own(fmt.Sprintf("meta%d", t.round))
			values, err := clientJSON(ctx, "meta", group, dir, t.shared("files"), strconv.Itoa(s.files))
			if err != nil {
				return result{}, err
			}
			r := result{values: map[string]sample{}, units: values["ops"]}
			for _, c := range cells {
				r.values[c.id] = sample{values[c.id]}
			}
			return r, nil
		}
		list = append(list, j)
	}
	add("create, unlink",
		rate("create", "create", want(1.2, bindfs)),
		rate("unlink", "unlink", want(1.2, bindfs)))
	add("stat",
		rate("stat", "stat, first", want(1.2, bindfs)),
		rate("restat", "stat, again after the timeouts", want(1.2, bindfs)),
		rate("stat-cached", "stat, again within the timeouts", nil))
	add("readdir, missing",
		rate("readdir-stat", "readdir + stat", want(1.3, bindfs)),
		rate("missing", "stat of missing names", want(5, bindfs)))
	add("open",
		rate("open-read", "open + read 4 KiB + close", want(1.2, bindfs)))
	return list
}

// metaClient takes the group of operations, a directory to make, the directory of
// three prepared ones, and the number of files.
func metaClient(args []string) error {
	group, own, shared, n := args[0], args[1], args[2], number(args[3])
	m := measurement{values: map[string]float64{}}
	switch group {
	case "create, unlink":
		if err := syscall.Mkdir(own, 0o755); err != nil {
			return &os.PathError{Op: "mkdir", Path: own, Err: err}
		}
		mine := fileNames(own, n)
		m.do("create", mine, opCreate)
		m.do("unlink", mine, opUnlink)
		if err := syscall.Rmdir(own); m.err == nil {
			m.err = err
		}
	case "stat":
		known := fileNames(shared+"/a", n)
		m.do("stat", known, opStat)
		time.Sleep(expiry)
		m.do("restat", known, opStat)
		// Few enough to come round before the timeouts.
		few := known[:min(n, 200)]
		m.do("", few, opStat)
		m.do("stat-cached", repeated(few, n), opStat)
	case "readdir, missing":
		start := time.Now()
		names, err := readNames(shared + "/b")
		if err != nil {
			return err
		}
		m.do("", names, opStat)
		m.values["readdir-stat"] = float64(len(names)) / time.Since(start).Seconds()
		// A hundred names over and over, as a search path's are.
		m.do("missing", repeated(missingNames(shared+"/b"), n), opMissing)
	case "open":
		m.do("open-read", fileNames(shared+"/c", n), opOpenRead)
	default:
		return fmt.Errorf("no group %q", group)
	}
	if m.err != nil {
		return m.err
	}
	return printJSON(m.values)
}

// A measurement collects rates by name, until something fails.
type measurement struct {
	values map[string]float64
	err    error
}

// do calls op on every name and keeps how many it did per second, under id if that is
// not empty.
func (m *measurement) do(id string, names []string, op func(string) error) {
	if m.err != nil {
		return
	}
	seconds, err := each(names, op)
	if err != nil {
		m.err = fmt.Errorf("%s: %w", id, err)
		return
	}
	m.values["ops"] += float64(len(names))
	if id != "" {
		m.values[id] = float64(len(names)) / seconds
	}
}

// repeated returns the names over and over, n in all.
func repeated(names []string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = names[i%len(names)]
	}
	return list
}

// readNames returns the paths of a directory's entries, in its own order.
func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	for i, name := range names {
		names[i] = dir + "/" + name
	}
	return names, err
}

// missingNames returns names that are not in dir.
func missingNames(dir string) []string {
	names := fileNames(dir, 100)
	for i := range names {
		names[i] += ".missing"
	}
	return names
}

// makeFiles makes the three directories of n files; those of the last have a block
// of data.
func makeFiles(dir string, n int) error {
	for _, sub := range []string{"/a", "/b", "/c"} {
		if err := os.MkdirAll(dir+sub, 0o755); err != nil {
			return err
		}
		for _, name := range fileNames(dir+sub, n) {
			var data []byte
			if sub == "/c" {
				data = block
			}
			if err := os.WriteFile(name, data, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
