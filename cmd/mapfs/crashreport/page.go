package crashreport

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"

	"mapfs/fs/crash/explore"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is what the template of a report's page shows.
type page struct {
	*explore.Report
	Counted  string
	Findings []pageFinding
	Moments  []explore.Moment
	More     int // moments that are left out
}

// pageFinding is a finding with its chart.
type pageFinding struct {
	*explore.Finding
	Headline string
	Missing  []string
	Chart    chart
}

// chart is the operations around a power cut: each is a bar from when it was done to
// when it was durable, or to the power cut.
type chart struct {
	Width, Height int
	Bars          []bar
	Lines         []line
	Cut           int // where on the x axis
}

type bar struct {
	Y, X, Length int
	Text, Class  string // lost, kept or durable
}

type line struct {
	X           int
	Text, Class string // sync or promise
}

// Of the page.
const (
	labelWidth  = 330 // pixels
	barHeight   = 20
	chartWidth  = 620
	mostBars    = 40
	mostMoments = 2000
)

// Page writes a page that shows a report, and the moments of the recording; see
// [explore.Timeline].
func Page(w io.Writer, r *explore.Report, moments []explore.Moment) error {
	p := page{Report: r, Counted: fmt.Sprintf("%s, %d of them different", count(r.States, "state"), r.Distinct), Moments: moments}
	if len(moments) > mostMoments {
		p.Moments, p.More = moments[:mostMoments], len(moments)-mostMoments
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		shown := pageFinding{Finding: f, Headline: r.Headline(f), Chart: draw(moments, f)}
		for _, m := range f.Missing {
			shown.Missing = append(shown.Missing, m.Sentence(f))
		}
		p.Findings = append(p.Findings, shown)
	}
	return pageTemplate.Execute(w, p)
}

// draw makes the chart of a finding: the operations that were pending, and the last ones
// before them.
func draw(moments []explore.Moment, f *explore.Finding) (p chart) {
	lost := make(map[uint64]bool)
	for _, op := range f.Lost {
		lost[op.Number] = true
	}
	var ops []explore.Moment
	for _, m := range moments {
		if m.Number != 0 && m.Event < f.Event {
			ops = append(ops, m)
		}
	}
	ops = ops[max(len(ops)-mostBars, 0):]
	if len(ops) == 0 {
		return p
	}
	first, last := ops[0].Event, f.Event
	x := func(event uint64) int {
		return labelWidth + int(event-first)*chartWidth/int(last-first+1)
	}
	p.Cut = x(last)
	for i, m := range ops {
		b := bar{Y: (i + 1) * barHeight, X: x(m.Event), Text: fmt.Sprint(m.Number, " ", m.What), Class: "kept"}
		end := p.Cut
		switch {
		case lost[m.Number]:
			b.Class = "lost"
		case m.Durable != 0 && m.Durable <= f.Event:
			b.Class = "durable"
			end = x(m.Durable)
		}
		b.Length = max(end-b.X, 3)
		p.Bars = append(p.Bars, b)
	}
	for _, m := range moments {
		if m.Event < first || m.Event >= f.Event || m.Number != 0 {
			continue
		}
		class := "promise"
		if m.Sync {
			class = "sync"
		}
		p.Lines = append(p.Lines, line{x(m.Event), m.What, class})
	}
	p.Width, p.Height = labelWidth+chartWidth+130, (len(ops)+2)*barHeight
	return p
}
