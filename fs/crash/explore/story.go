package explore

import (
	"fmt"
	"strings"

	"mapfs/internal/quote"
)

// mostLines bounds the operations and lines of output that are told of a finding.
const mostLines = 5

// Story tells of a finding, in a few lines.
func (r *Report) Story(f *Finding) string {
	story := fmt.Sprintf("%d. %s\n", f.ID, r.Headline(f))
	row := func(label, text string) { story += fmt.Sprintf("     %-8s %s\n", label, text) }
	label := "lost"
	for i, op := range f.Lost {
		if r.Device != "" {
			row(label, fmt.Sprintf("%d of the device's writes, none of them flushed", len(f.Lost)))
			break
		}
		if i == mostLines {
			row(label, fmt.Sprintf("and %d more", len(f.Lost)-i))
			break
		}
		row(label, fmt.Sprintf("%d %s", op.Number, op.What))
		label = ""
	}
	if f.Relied != nil {
		row("kept", fmt.Sprintf("%d %s", f.Relied.Number, f.Relied.What))
	}
	if r.Check != "" {
		row("check", fmt.Sprintf("exit status %d%s", f.Status, firstLine(f.Output)))
	}
	for _, m := range f.Missing {
		row("missing", m.Sentence(f))
	}
	return story
}

// Headline says what is wrong in one sentence.
func (r *Report) Headline(f *Finding) string {
	what := "something is lost"
	switch {
	case r.Device != "":
		what = "what " + r.Device + " recovers is not good"
	case len(f.Lost) == 0:
		what = "the check fails although nothing is lost: it would without a power cut"
	case len(f.Differs) > 0:
		what = strings.Join(f.Differs, ", ")
	}
	if f.Broken && f.Promise != "" {
		return fmt.Sprintf("%q was promised. After a power cut then, %s.", f.Promise, what)
	}
	return fmt.Sprintf("After a power cut after operation %d, %s.", f.After, what)
}

// Sentence says where the sync is missing of a finding.
func (m *Sync) Sentence(f *Finding) string {
	where := fmt.Sprintf("fsync %s after %q", quote.Path(m.Path), m.After.What)
	switch {
	case m.Before != nil:
		where += fmt.Sprintf(" and before %q", m.Before.What)
	case f.Promise != "":
		where += fmt.Sprintf(" and before %q is promised", f.Promise)
	}
	if m.Prevents {
		return where + "; with it this cannot happen"
	}
	return where + ", which alone is not enough"
}

// firstLine is ": " and the first line of some output, "" if there is none.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if line == "" {
		return ""
	}
	return ": " + line
}
