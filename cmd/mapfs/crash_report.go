//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

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
	files := map[string]func(io.Writer) error{
		s.flags.json:  func(w io.Writer) error { return writeReportJSON(w, report) },
		s.flags.junit: func(w io.Writer) error { return writeJUnit(w, report) },
	}
	if s.flags.report != "" {
		files[filepath.Join(home, reportFile)] = files[s.flags.json]
		if s.flags.json == "" {
			files[filepath.Join(home, reportFile)] = func(w io.Writer) error { return writeReportJSON(w, report) }
		}
		files[filepath.Join(home, pageFile)] = func(w io.Writer) error { return writeReportPage(w, report, &s.options) }
		if err := s.keepStates(home, report); err != nil {
			return err
		}
	}
	delete(files, "")
	for path, write := range files {
		if err := writeFile(path, s.stdout, write); err != nil {
			return err
		}
	}
	if s.flags.json == "-" || s.flags.junit == "-" {
		return nil
	}
	out := bufio.NewWriter(s.stdout)
	printReport(out, report, s.where())
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

func writeReportJSON(w io.Writer, report *explore.Report) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(report)
}

// printReport tells of a report. where says where it is kept, or how it could be; "" for
// neither.
func printReport(w io.Writer, r *explore.Report, where string) {
	for i := range r.Findings {
		fmt.Fprint(w, r.Story(&r.Findings[i]))
	}
	counted := fmt.Sprintf("%s, %d of them different", count(r.States, "state"), r.Distinct)
	if r.Shard != "" {
		counted += fmt.Sprintf(", %d in shard %s", r.Checked, r.Shard)
	}
	switch {
	case r.Failures > 0:
		fmt.Fprintf(w, "%s %s not good (%s; %s; %.1f s).\n", count(r.Failures, "state"), isOrAre(r.Failures), counted, rulesOf(r), r.Seconds)
	case r.Operations == 0:
		fmt.Fprintln(w, "Nothing was done that a power cut could take.")
	default:
		fmt.Fprintf(w, "No power cut breaks it: %s (%s; %.1f s).\n", counted, rulesOf(r), r.Seconds)
	}
	if !r.Complete {
		fmt.Fprintln(w, "The search is not complete: its budget is used up; see --budget.")
	}
	if r.Failures == 0 {
		return
	}
	if r.Device != "" {
		fmt.Fprintln(w, "Which sync is missing is told without --fs, by the rules of --model.")
	} else {
		fmt.Fprintln(w, "An fsync(2) of a file or directory waits until it is on the disk; in a shell: sync PATH.")
	}
	if where != "" {
		fmt.Fprintln(w, where)
	}
}

// keptIn says where a report is kept.
func keptIn(dir string) string {
	return fmt.Sprintf("See %s; 'mapfs crash replay %s 1' makes the first state again.", quote.Path(filepath.Join(dir, pageFile)), quote.Path(dir))
}

func isOrAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// count is a number of things.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// rulesOf says what decides what a power cut leaves.
func rulesOf(r *explore.Report) string {
	if r.Device != "" {
		return r.Device + " itself"
	}
	return "rules of " + r.Model
}

// junitSuite is what a CI system shows of a report. Its form is that which Ant and Jenkins
// read.
type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	ClassName string        `xml:"classname,attr"`
	Name      string        `xml:"name,attr"`
	Time      string        `xml:"time,attr"`
	Failure   *junitFailure `xml:"failure"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",cdata"`
}

// writeJUnit writes a report as JUnit XML: a failure for each finding, or a single test
// that has passed.
func writeJUnit(w io.Writer, r *explore.Report) error {
	name := "power cuts by the rules of " + r.Model
	suite := junitSuite{Name: "mapfs crash", Failures: len(r.Findings), Time: fmt.Sprintf("%.3f", r.Seconds)}
	for i := range r.Findings {
		f := &r.Findings[i]
		suite.Cases = append(suite.Cases, junitCase{
			ClassName: "mapfs.crash", Name: fmt.Sprintf("%s: finding %d", name, f.ID), Time: "0",
			Failure: &junitFailure{Message: printable(r.Headline(f)), Type: "powercut", Text: printable(r.Story(f) + f.Output)},
		})
	}
	if len(suite.Cases) == 0 {
		suite.Cases = []junitCase{{ClassName: "mapfs.crash", Name: name, Time: suite.Time}}
	}
	suite.Tests = len(suite.Cases)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// printable leaves out what XML has no place for.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0xfffe || r == 0xffff {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
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
	fmt.Fprintf(p.w, "\r\x1b[K%s, %d different, %d not good, at most %v left", count(now.States, "state"), now.Distinct, now.Failures, now.Left.Round(time.Second))
}

// end takes the line away.
func (p *crashProgress) end() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
