package main

import (
	"context"
	"time"
)

// A cell is one row of the table: one figure for every peer.
type cell struct {
	id        string
	title     string
	inSeconds bool   // the figure is a time; else it is a rate
	unit      string // of a rate: "B/s" or "/s"
	goals     []goal
}

// A goal says how fast subject is meant to be: factor times as fast as base.
type goal struct {
	subject string
	factor  float64
	base    string
}

// bestPeer stands for the fastest of the peers that do what mapfs does; the native
// directory and the kernel's passthrough are limits.
const bestPeer = "best peer"

var realPeers = []string{hp, bindfs, gofuse, plain}

func want(factor float64, base string) []goal { return []goal{{mapfs, factor, base}} }

// A job fills one or more cells by one run of a client on one peer.
type job struct {
	name  string
	cells []cell
	// per names what result.units counts: "operation", "MiB", "run".
	per string
	// input names what the job reads of the backing directory's shared part, or
	// overwrites in the peer's own; see ground.prepare.
	input string
	// fresh jobs get a new mount every time: the kernel knows none of its names.
	fresh bool
	// ext4 jobs run on ext4 as well.
	ext4 bool
	// peers are those that take part; nil stands for all but mapfs with
	// other options than its defaults.
	peers []string
	// rounds, if not 0, is the most rounds to run a long job for.
	rounds int
	// apart keeps the job out of the table of processor time and memory: what it
	// makes the daemon hold has cells of its own.
	apart bool
	// prepare makes what the job needs in the backing directory, and clean removes
	// it; either may be nil.
	prepare, clean func(*ground) error
	run            func(context.Context, *target) (result, error)
}

// A target is what one run of a job works on.
type target struct {
	*mount
	ground *ground
	size   *sizes
	round  int
}

// own returns a path in the peer's own part of the mount: it alone writes there, so
// that no peer's caches can be wrong about another's files.
func (t *target) own(name string) string { return t.root + "/" + t.peer.slug() + "/" + name }

// shared returns a path in the part that all peers read and none writes.
func (t *target) shared(name string) string { return t.root + "/shared/" + name }

// A result is what one run of a job gave.
type result struct {
	values map[string]sample // by cell; most have one value
	units  float64           // what the daemon's processor time is divided by
}

func one(id string, value, units float64) result {
	return result{map[string]sample{id: {value}}, units}
}

// Sizes are what a quick run has less of.
type sizes struct {
	rounds, ext4Rounds int
	dataOnExt4         bool   // fio's cells run on ext4 too
	runtime            string // of a fio run whose cost per operation does not change
	read, write        int64  // bytes of the files read and written in sequence
	random             int64  // bytes of the file read and written at random
	files              int    // in each directory of the metadata driver
	trees              []string
	inserts            int
	few, many          int           // known files
	mapped             int           // files mapped at a time
	samples            int           // of single operations among known files
	perRun             time.Duration // about what one run of a job takes on one peer
}

const mib = 1 << 20

var fullSizes = sizes{
	perRun: 1700 * time.Millisecond,
	rounds: 5, ext4Rounds: 3, dataOnExt4: true, runtime: "250ms",
	read: 256 * mib, write: 128 * mib, random: 64 * mib,
	files: 10_000, trees: []string{"net", "go", "encoding", "os", "sync", "testing", "text", "time"}, inserts: 300,
	few: 1000, many: 1_000_000, mapped: 10_000, samples: 3,
}

var quickSizes = sizes{
	perRun: 500 * time.Millisecond,
	rounds: 1, ext4Rounds: 1, runtime: "100ms",
	read: 64 * mib, write: 32 * mib, random: 16 * mib,
	files: 1000, trees: []string{"encoding", "sync"}, inserts: 40,
	few: 1000, many: 50_000, mapped: 2000, samples: 1,
}

// jobs returns everything that is measured, in the order of the table.
func jobs(s *sizes) []*job {
	list := append(dataJobs(s), metaJobs(s)...)
	list = append(list, treeJob(s), sqliteJob(s))
	return append(list, scaleJobs(s)...)
}
