package crashreport

import (
	"encoding/xml"
	"fmt"
	"io"
	"mapfs/fs/crash/explore"
	"strings"
)

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

// JUnit writes a report as JUnit XML: a failure for each finding, or a single test
// that has passed.
func JUnit(w io.Writer, r *explore.Report) error {
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
