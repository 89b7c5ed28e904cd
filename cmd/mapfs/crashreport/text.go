// Package crashreport writes what a search for power cuts has found: as text, JSON, JUnit XML
// and as a page.
package crashreport

import (
	"encoding/json"
	"fmt"
	"io"

	"mapfs/fs/crash/explore"
)

// Text tells of a report. where says where it is kept, or how it could be; "" for
// neither.
func Text(w io.Writer, r *explore.Report, where string) {
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

// JSON writes a report as documented in mapfs-crash(1).
func JSON(w io.Writer, report *explore.Report) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(report)
}
