package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// The plot's measures, in pixels.
const (
	labelWidth = 270
	plotWidth  = 520
	barHeight  = 8
	groupGap   = 8
	legendRow  = 18
	margin     = 16
)

// Ratios from a hundredth of the native speed to one and a half: the axis is
// logarithmic, because a linear one would show nothing of most peers.
const (
	axisLow  = 0.01
	axisHigh = 1.5
)

// Colours that colour-blind readers can tell apart too (Okabe and Ito).
var colours = map[string]string{
	mapfs: "#d55e00", writeback: "#e69f00", exclusive: "#f0a3c0", hp: "#009e73", bindfs: "#0072b2",
	gofuse: "#56b4e9", plain: "#999999", passthrough: "#dddddd",
}

// svg draws, for each cell on tmpfs, every peer's speed in parts of the native one.
func (r *report) svg() string {
	names := r.columns(onTmpfs)
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	text := func(x, y float64, anchor, s string) {
		p(`<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, x, y, anchor, escape(s))
	}

	y := float64(margin + 14)
	width := float64(labelWidth + plotWidth + 3*margin)
	text(margin, y, "start", "Speed on tmpfs in parts of the native directory's (logarithmic; longer is faster)")
	y += 10
	x := float64(margin)
	for _, name := range names {
		step := 24 + 7*float64(len(name))
		if x+step > width-margin {
			x, y = margin, y+legendRow
		}
		p(`<rect x="%.1f" y="%.1f" width="10" height="10" fill="%s"/>`, x, y, colours[name])
		text(x+14, y+9, "start", name)
		x += step
	}
	y += legendRow + 16

	top, left := y, float64(labelWidth+margin)
	at := func(ratio float64) float64 {
		part := math.Log(min(max(ratio, axisLow), axisHigh)/axisLow) / math.Log(axisHigh/axisLow)
		return part * plotWidth
	}
	for _, c := range r.cells(onTmpfs) {
		base := r.res.cell(onTmpfs, c.id, native)
		start := y
		for _, name := range names {
			ratio := r.res.cell(onTmpfs, c.id, name).ratio(base, c.inSeconds)
			if ratio == 0 {
				continue
			}
			p(`<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"><title>%s</title></rect>`,
				left, y, max(at(ratio), 1), barHeight-1, colours[name], escape(fmt.Sprintf("%s, %s: %s", c.title, name, formatRatio(ratio))))
			y += barHeight
		}
		text(left-8, (start+y)/2+4, "end", c.title)
		y += groupGap
	}
	for _, tick := range []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1} {
		stroke := "#cccccc"
		if tick == 1 {
			stroke = "#000000"
		}
		p(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="0.7"/>`, left+at(tick), top-4, left+at(tick), y, stroke)
		text(left+at(tick), top-7, "middle", fmt.Sprint(tick))
	}
	height := y + margin
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="11">
<rect width="100%%" height="100%%" fill="#ffffff"/>
`, width, height, width, height) + b.String() + "</svg>\n"
}

func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}
