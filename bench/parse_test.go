package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestParseFio(t *testing.T) {
	report := []byte(`{"jobs": [{"jobname": "x",
		"read": {"io_bytes": 4194304, "total_ios": 1024, "runtime": 500},
		"write": {"io_bytes": 0, "total_ios": 0, "runtime": 0}}]}`)
	got, err := fioJob{cell: cell{id: "x", unit: "/s"}, kind: fioRead}.parse(report)
	if err != nil {
		t.Fatal(err)
	}
	if want := 2048.0; got.values["x"][0] != want || got.units != 1024 {
		t.Errorf("operations: got %v in %v units, want %v in 1024", got.values["x"], got.units, want)
	}
	got, err = fioJob{cell: cell{id: "x", unit: "B/s"}, kind: fioRead}.parse(report)
	if err != nil {
		t.Fatal(err)
	}
	if want := 8388608.0; got.values["x"][0] != want || got.units != 4 {
		t.Errorf("bytes: got %v in %v units, want %v in 4", got.values["x"], got.units, want)
	}
	if _, err := (fioJob{kind: fioWrite}).parse(report); err == nil {
		t.Error("a job that did nothing passes")
	}
}

func TestParseStrace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "summary")
	text := `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.060000          60       500           read
 30.00    0.030000          30      1000        12 futex
------ ----------- ----------- --------- --------- ----------------
100.00    0.100000          60      1500        12 total
`
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := parseStrace(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := []callCount{{"futex", 1000}, {"read", 500}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The CPU clock of a process is addressed by a number made of its pid.
func TestCPUTime(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 20*time.Millisecond; {
	}
	after, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after <= before || after-before > 5*time.Second {
		t.Errorf("20 ms of work took %v of processor time", after-before)
	}
}

func TestActivityAndMemory(t *testing.T) {
	a, err := activityOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if a.CPU == 0 || a.Faults == 0 || a.Switches == 0 {
		t.Errorf("a running process has done nothing: %+v", a)
	}
	m, err := memoryOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if m.Anonymous == 0 || m.PrivateDirty == 0 {
		t.Errorf("a running process has no memory: %+v", m)
	}
}
