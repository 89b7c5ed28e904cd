package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns the processor time of the process and all its threads, ended ones
// too, to the nanosecond: /proc counts in ticks of 10 ms, its CPU clock does not.
func cpuTime(pid int) (time.Duration, error) {
	if pid == 0 {
		return 0, nil
	}
	var ts unix.Timespec
	// The clock's number as in clock_getcpuclockid(3): CPUCLOCK_SCHED is 2.
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Memory that a daemon holds, in bytes.
type memory struct {
	// Anonymous is what only this daemon costs: heap, stacks, copied pages.
	Anonymous int64
	// PrivateDirty has beside it the dirty file pages that only it maps. Those are the
	// backing file's page cache, which would be there without the daemon too.
	PrivateDirty int64
}

// memoryOf reads a process's smaps_rollup; see proc_pid_smaps(5).
func memoryOf(pid int) (memory, error) {
	var m memory
	if pid == 0 {
		return m, nil
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return m, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) != 3 {
			continue
		}
		kib, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			continue
		}
		switch words[0] {
		case "Anonymous:":
			m.Anonymous = kib << 10
		case "Private_Dirty:":
			m.PrivateDirty = kib << 10
		}
	}
	return m, nil
}

func (m memory) max(o memory) memory {
	return memory{max(m.Anonymous, o.Anonymous), max(m.PrivateDirty, o.PrivateDirty)}
}

// An activity is what a process has done that is no system call.
type activity struct {
	CPU      time.Duration
	Switches int64 // context switches of all its threads, given up or taken away
	Faults   int64 // page faults, minor and major
}

func (a activity) minus(b activity) activity {
	return activity{a.CPU - b.CPU, a.Switches - b.Switches, a.Faults - b.Faults}
}

func activityOf(pid int) (activity, error) {
	var a activity
	var err error
	if a.CPU, err = cpuTime(pid); err != nil {
		return a, err
	}
	statuses, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		return a, err
	}
	for _, path := range statuses {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread ended
		}
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.HasSuffix(name, "ctxt_switches") {
				n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
				a.Switches += n
			}
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return a, err
	}
	// Fields from the state on, which follows the name's last parenthesis: minflt is
	// field 10 of proc_pid_stat(5), majflt 12, the state 3.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, i := range []int{10 - 3, 12 - 3} {
		n, _ := strconv.ParseInt(fields[i], 10, 64)
		a.Faults += n
	}
	return a, nil
}
