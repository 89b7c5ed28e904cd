//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"mapfs/cmd/mapfs/crashreport"
	"mapfs/fs/crash/explore"
	"mapfs/internal/quote"
)

// The files in the directory of a report.
const (
	reportFile = "report.json"
	pageFile   = "index.html"
)

// write tells of a report, and writes the files that are wanted.
func (s *crashSearch) write(home string, report *explore.Report) error {
	type file struct {
		path  string
		write func(io.Writer) error
	}
	asJSON := func(w io.Writer) error { return crashreport.JSON(w, report) }
	files := []file{{s.flags.json, asJSON}, {s.flags.junit, func(w io.Writer) error { return crashreport.JUnit(w, report) }}}
	if s.flags.report != "" {
		moments, err := explore.Timeline(&s.options)
		if err != nil {
			return err
		}
		files = append(files, file{filepath.Join(home, reportFile), asJSON},
			file{filepath.Join(home, pageFile), func(w io.Writer) error { return crashreport.Page(w, report, moments) }})
		if err := s.keepStates(home, report); err != nil {
			return err
		}
	}
	for _, f := range files {
		if f.path == "" {
			continue
		}
		if err := writeFile(f.path, s.stdout, f.write); err != nil {
			return err
		}
	}
	if s.flags.json == "-" || s.flags.junit == "-" {
		return nil
	}
	out := bufio.NewWriter(s.stdout)
	crashreport.Text(out, report, s.where())
	return out.Flush()
}

// where says where the report is kept, or how it could be.
func (s *crashSearch) where() string {
	switch {
	case s.flags.report != "":
		return keptIn(s.flags.report)
	case s.merged:
		return ""
	}
	return "To keep the states and a page that shows them, run it again with --report DIR."
}

// keepStates makes the states of the findings in the report's directory.
func (s *crashSearch) keepStates(home string, report *explore.Report) error {
	for i := range report.Findings {
		f := &report.Findings[i]
		if err := explore.Build(&s.options, f, stateDir(home, f.ID)); err != nil {
			return err
		}
	}
	return nil
}

// stateDir is where a report has the state of a finding.
func stateDir(home string, id int) string { return filepath.Join(home, "states", fmt.Sprint(id)) }

// writeFile writes a file, or standard output if it is called "-".
func writeFile(path string, stdout io.Writer, write func(io.Writer) error) error {
	if path == "-" {
		return write(stdout)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(f)
	return errors.Join(write(out), out.Flush(), f.Close())
}

// keptIn says where a report is kept.
func keptIn(dir string) string {
	return fmt.Sprintf("See %s; 'mapfs crash replay %s 1' makes the first state again.", quote.Path(filepath.Join(dir, pageFile)), quote.Path(dir))
}

// crashProgress is a line on a terminal that says how far a search is.
type crashProgress struct {
	w     io.Writer
	shown bool
}

func newCrashProgress(w io.Writer) *crashProgress {
	f, ok := w.(*os.File)
	if !ok || !isTerminal(f) || f.Name() == os.DevNull {
		return &crashProgress{}
	}
	return &crashProgress{w: w}
}

func (p *crashProgress) tell(now explore.Progress) {
	if p.w == nil {
		return
	}
	p.shown = true
	fmt.Fprintf(p.w, "\r\x1b[K%d states, %d different, %d not good, at most %v left", now.States, now.Distinct, now.Failures, now.Left.Round(time.Second))
}

// end takes the line away.
func (p *crashProgress) end() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
