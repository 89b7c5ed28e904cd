package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
)

const (
	fioRead  = "read"
	fioWrite = "write"
)

// dataJobs returns the cells that fio measures.
//
// Cells whose speed changes on the way (a cache fills, a file grows) do a fixed
// amount of work; those where every operation costs the same run for a fixed time.
func dataJobs(s *sizes) []*job {
	withWriteback := []string{native, mapfs, writeback, hp, bindfs, gofuse, plain, passthrough}
	timed := []string{"--time_based", "--runtime=" + s.runtime}
	direct := append([]string{"--direct=1"}, timed...)
	sizeArg := func(n int64) string { return "--size=" + strconv.FormatInt(n, 10) }

	var list []*job
	add := func(f fioJob, j job) {
		j.cells = []cell{f.cell}
		j.name = f.cell.id
		j.per, j.input = "operation", inputData
		if f.cell.unit == "B/s" {
			j.per = "MiB"
		}
		if j.run == nil {
			j.run = f.run
		}
		list = append(list, &j)
	}

	add(fioJob{
		cell: cell{id: "read-cold", title: "read 1 MiB, cold kernel cache", unit: "B/s", goals: want(1.25, bindfs)},
		kind: fioRead, file: "data", args: []string{"--rw=read", "--bs=1m", sizeArg(s.read)}, cold: true,
	}, job{ext4: true})
	again := fioJob{
		cell: cell{id: "read-again", title: "re-open and re-read", unit: "B/s", goals: want(1.0, native)},
		kind: fioRead, file: "data", args: []string{"--rw=read", "--bs=1m", sizeArg(s.read)},
	}
	add(again, job{ext4: true, run: again.runAgain})
	add(fioJob{
		cell: cell{id: "read-direct", title: "read 128 KiB, direct", unit: "B/s", goals: want(2, bindfs)},
		kind: fioRead, file: "data", args: append([]string{"--rw=read", "--bs=128k", sizeArg(s.read)}, direct...),
	}, job{})
	for _, block := range []struct {
		id, bs, title string
		goals         []goal
	}{
		{"write-1m", "1m", "write 1 MiB, new file", want(1.5, gofuse)},
		{"write-128k", "128k", "write 128 KiB, new file", nil},
	} {
		add(fioJob{
			cell: cell{id: block.id, title: block.title, unit: "B/s", goals: block.goals},
			// create_on_open: else fio grows the file to its size before it writes.
			kind: fioWrite, file: "new", remove: true,
			args: []string{"--rw=write", "--bs=" + block.bs, sizeArg(s.write), "--create_on_open=1", "--fallocate=none"},
		}, job{ext4: true, peers: withWriteback})
	}
	for _, n := range []string{"1", "4"} {
		add(fioJob{
			cell: cell{id: "randread-direct-" + n, title: "random read 4 KiB, direct, " + plural(n, "job"), unit: "/s", goals: want(1.1, bindfs)},
			kind: fioRead, file: "data", args: append([]string{"--rw=randread", "--bs=4k", "--numjobs=" + n, sizeArg(s.random)}, direct...),
		}, job{})
	}
	for _, n := range []string{"1", "4"} {
		var goals []goal
		if n == "1" {
			goals = want(1.8, bindfs)
		}
		add(fioJob{
			cell: cell{id: "randwrite-direct-" + n, title: "random write 4 KiB, direct, " + plural(n, "job"), unit: "/s", goals: goals},
			kind: fioWrite, file: "rw", args: append([]string{"--rw=randwrite", "--bs=4k", "--numjobs=" + n, sizeArg(s.random)}, direct...),
		}, job{})
	}
	for _, n := range []string{"1", "4"} {
		add(fioJob{
			cell: cell{id: "randread-" + n, title: "random read 4 KiB, buffered, cold, " + plural(n, "job"), unit: "/s"},
			// Not time_based: no block is read twice, so every read is a cold one.
			kind: fioRead, file: "data", cold: true,
			args: []string{"--rw=randread", "--bs=4k", "--numjobs=" + n, sizeArg(s.random), "--runtime=" + s.runtime},
		}, job{ext4: true})
	}
	for _, n := range []string{"1", "4"} {
		var goals []goal
		if n == "1" {
			goals = append(want(1.5, bindfs), goal{writeback, 0.5, native})
		}
		add(fioJob{
			cell: cell{id: "randwrite-" + n, title: "random write 4 KiB, buffered, " + plural(n, "job"), unit: "/s", goals: goals},
			kind: fioWrite, file: "rw", args: append([]string{"--rw=randwrite", "--bs=4k", "--numjobs=" + n, sizeArg(s.random)}, timed...),
		}, job{ext4: true, peers: withWriteback})
	}
	add(fioJob{
		cell: cell{id: "write-fsync", title: "random write 4 KiB + fsync", unit: "/s", goals: want(1.5, bindfs)},
		kind: fioWrite, file: "rw", args: append([]string{"--rw=randwrite", "--bs=4k", "--fsync=1", sizeArg(s.random)}, timed...),
	}, job{ext4: true})
	mapped := []string{"--ioengine=mmap", "--bs=4k", sizeArg(s.random), "--runtime=" + s.runtime}
	add(fioJob{
		cell: cell{id: "mmap-read", title: "client mmap, random read 4 KiB", unit: "/s", goals: want(1.0, bindfs)},
		kind: fioRead, file: "data", cold: true, args: append([]string{"--rw=randread"}, mapped...),
	}, job{ext4: true})
	add(fioJob{
		cell: cell{id: "mmap-write", title: "client mmap, random store 4 KiB, then fsync", unit: "/s"},
		// Until the kernel writes them back the stores are in the client's memory only, so
		// the time of end_fsync, which fio counts, belongs to them.
		kind: fioWrite, file: "rw", cold: true, args: append([]string{"--rw=randwrite", "--end_fsync=1"}, mapped...),
	}, job{ext4: true})
	return list
}

func plural(n, noun string) string {
	if n == "1" {
		return n + " " + noun
	}
	return n + " " + noun + "s"
}

// A fioJob is one call of fio.
type fioJob struct {
	cell   cell
	kind   string
	file   string // the peer's own if written or own, else shared
	own    bool
	remove bool // the file is new every time
	cold   bool // begins with nothing of the file in the mount's own cache
	args   []string
}

func (f fioJob) path(t *target) string {
	if f.own || f.kind == fioWrite {
		return t.own(f.file)
	}
	return t.shared(f.file)
}

func (f fioJob) run(ctx context.Context, t *target) (result, error) {
	path := f.path(t)
	if f.remove {
		defer client(ctx, "rm", path)
	}
	args := append([]string{
		"--name=" + f.cell.id, "--filename=" + path, "--output-format=json", "--thread", "--group_reporting",
		// Without it fio spends longer on calibrating its clock than on a short run.
		"--clocksource=clock_gettime", "--disk_util=0",
	}, f.args...)
	// What is to be cold is the cache of the mount; the backing directory's stays,
	// or on ext4 the native directory would be the only one to read from the device.
	if f.cold && t.peer.name != native {
		args = append(args, "--invalidate=1")
	} else {
		args = append(args, "--invalidate=0")
	}
	out, err := runClient(ctx, nil, "fio", args...)
	if err != nil {
		return result{}, err
	}
	return f.parse(out)
}

// runAgain reads the file once, so that it is cached, and then lets fio open it anew.
func (f fioJob) runAgain(ctx context.Context, t *target) (result, error) {
	path := f.path(t)
	if _, err := client(ctx, "read", path); err != nil {
		return result{}, err
	}
	// Not to fill the machine's memory with every peer's copy.
	if t.peer.name != native {
		defer client(ctx, "drop", path)
	}
	return f.run(ctx, t)
}

// parse takes the figure out of fio's JSON.
func (f fioJob) parse(out []byte) (result, error) {
	type direction struct {
		IOBytes  float64 `json:"io_bytes"`
		TotalIOs float64 `json:"total_ios"`
		Runtime  float64 `json:"runtime"` // ms
	}
	var report struct {
		Jobs []map[string]json.RawMessage `json:"jobs"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return result{}, fmt.Errorf("fio's report: %w", err)
	}
	if len(report.Jobs) != 1 {
		return result{}, fmt.Errorf("fio reports %d groups, not one", len(report.Jobs))
	}
	var d direction
	if err := json.Unmarshal(report.Jobs[0][f.kind], &d); err != nil {
		return result{}, fmt.Errorf("fio's report: %w", err)
	}
	if d.Runtime == 0 || d.TotalIOs == 0 {
		return result{}, fmt.Errorf("fio did nothing: %+v", d)
	}
	seconds := d.Runtime / 1000
	if f.cell.unit == "B/s" {
		return one(f.cell.id, d.IOBytes/seconds, d.IOBytes/mib), nil
	}
	return one(f.cell.id, d.TotalIOs/seconds, d.TotalIOs), nil
}

// makeData makes the file that all read. Its bytes are of no importance, but no page
// of it may be a hole.
func makeData(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, mib)
	for i := range buf {
		buf[i] = byte(i>>12 + i)
	}
	for off := int64(0); off < size; off += mib {
		if _, err := f.WriteAt(buf, off); err != nil {
			return err
		}
	}
	return f.Close()
}
