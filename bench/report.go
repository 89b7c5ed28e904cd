package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A report turns results into Markdown and a plot.
type report struct {
	cast    *cast
	size    *sizes
	command string
	quick   bool
	machine []string
	jobs    []*job
	res     *results
	start   time.Time
	took    time.Duration
}

func newReport(ctx context.Context, c *cast, s *sizes, command string, quick bool) *report {
	r := &report{cast: c, size: s, command: command, quick: quick, machine: describeMachine(ctx), res: newResults(), start: time.Now()}
	for _, missing := range c.missing {
		r.res.notes = append(r.res.notes, "left out: "+missing)
	}
	return r
}

// describeMachine says what the figures depend on.
func describeMachine(ctx context.Context) []string {
	grep := func(path, pattern string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			return "unknown"
		}
		found := regexp.MustCompile(`(?m)` + pattern).FindStringSubmatch(string(text))
		if found == nil {
			return "unknown"
		}
		return found[1]
	}
	kib := 0.0
	fmt.Sscan(grep("/proc/meminfo", `^MemTotal:\s*(\d+)`), &kib) // stays 0 if unknown
	return []string{
		fmt.Sprintf("%d cores of %s, %.0f GiB of memory", runtime.NumCPU(), grep("/proc/cpuinfo", `^model name\s*: (.*)`), kib/mib),
		"Linux " + grep("/proc/sys/kernel/osrelease", `^([\d.]*\d)`) + ", " + grep("/etc/os-release", `^PRETTY_NAME="(.*)"`),
		runtime.Version() + ", " + firstLine(ctx, "fio", "--version"),
		"load average when it started: " + grep("/proc/loadavg", `^(\S+)`),
	}
}

// markdown returns the whole generated part. Plot is the plot's file name, if any.
func (r *report) markdown(plot string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }

	p("`%s`, %s, in %s; rounds on tmpfs: %d, on ext4: %d.\n", r.command, r.start.Format("2006-01-02"), r.took.Round(time.Second),
		r.size.rounds, r.size.ext4Rounds)
	for _, line := range r.machine {
		p("- %s", line)
	}
	for _, peer := range r.cast.peers {
		p("- %s: %s", peer.name, peer.note)
	}
	if r.quick {
		p("\n**A quick run**: small sizes and few rounds. It shows that all works; its figures are not to be quoted.")
	}
	if plot != "" {
		p("\n![How fast each is, the native directory being 1](%s)", plot)
	}
	for _, g := range []string{onTmpfs, onExt4} {
		if r.has(g) {
			r.ratios(p, g)
		}
	}
	r.against(p)
	r.scaling(p)
	r.costs(p)
	for _, g := range []string{onTmpfs, onExt4} {
		if r.has(g) {
			r.absolute(p, g)
		}
	}
	if len(r.res.notes) > 0 {
		p("\n### Not measured\n")
		for _, note := range r.res.notes {
			p("- %s", note)
		}
	}
	return b.String()
}

type printer func(format string, args ...any)

// cells returns the table's cells that were measured on the ground. Those of the jobs
// about scale have a table of their own.
func (r *report) cells(ground string) []cell {
	scale := make(map[string]bool)
	for _, j := range scaleJobs(r.size) {
		scale[j.name] = true
	}
	var cells []cell
	for _, j := range r.jobs {
		for _, c := range j.cells {
			if !scale[j.name] && len(r.res.cell(ground, c.id, native)) > 0 {
				cells = append(cells, c)
			}
		}
	}
	return cells
}

func (r *report) has(ground string) bool { return len(r.cells(ground)) > 0 }

// columns are the peers with a figure on the ground, native apart.
func (r *report) columns(ground string) []string {
	var names []string
	for _, name := range r.cast.names() {
		for _, c := range r.cells(ground) {
			if name != native && len(r.res.cell(ground, c.id, name)) > 0 {
				names = append(names, name)
				break
			}
		}
	}
	return names
}

func (p printer) row(words ...string) { p("| %s |", strings.Join(words, " | ")) }

func (p printer) head(words ...string) {
	p.row(words...)
	p("|---|%s", strings.Repeat("--:|", len(words)-1))
}

// ratios prints what fraction of the native speed each peer has, and the goals, which
// are for tmpfs.
func (r *report) ratios(p printer, ground string) {
	p("\n### On %s, as parts of the native speed\n", ground)
	columns := r.columns(ground)
	heads := append([]string{"cell", native}, columns...)
	if ground == onTmpfs {
		heads = append(heads, "goal", "reached", "verdict")
	}
	p.head(heads...)
	metN, goalN := 0, 0
	for _, c := range r.cells(ground) {
		base := r.res.cell(ground, c.id, native)
		row := []string{c.title, "1"}
		for _, name := range columns {
			row = append(row, formatRatio(r.res.cell(ground, c.id, name).ratio(base, c.inSeconds)))
		}
		if ground == onTmpfs {
			var goals, reached, verdicts []string
			for _, goal := range c.goals {
				text, got, v := r.judge(ground, c, goal)
				goals, reached, verdicts = append(goals, text), append(reached, formatRatio(got)), append(verdicts, string(v))
				if v != noVerdict {
					goalN++
				}
				if strings.HasPrefix(string(v), string(met)) {
					metN++
				}
			}
			row = append(row, strings.Join(goals, "; "), strings.Join(reached, "; "), strings.Join(verdicts, "; "))
		}
		p.row(row...)
	}
	if ground == onTmpfs {
		p("\n%d of %d goals are met. \"Reached\" is the speed in parts of what the goal names; a verdict is within noise "+
			"when a single round of one, against the median of the other, lies on the other side of the goal.", metN, goalN)
	}
}

// judge returns the goal in words, how fast the subject is in parts of its base, and
// what to think of that.
func (r *report) judge(ground string, c cell, g goal) (text string, got float64, v verdict) {
	subject, base := r.res.cell(ground, c.id, g.subject), r.res.cell(ground, c.id, g.base)
	baseName := g.base
	if g.base == bestPeer {
		best := 0.0
		for _, name := range realPeers {
			s := r.res.cell(ground, c.id, name)
			if ratio := s.ratio(r.res.cell(ground, c.id, native), c.inSeconds); ratio > best {
				best, base, baseName = ratio, s, "best peer, "+name
			}
		}
	}
	text = fmt.Sprintf("%g x %s", g.factor, baseName)
	if g.subject != mapfs {
		text = g.subject + ": " + text
	}
	return text, subject.ratio(base, c.inSeconds), judge(subject, base, g.factor, c.inSeconds)
}

// against prints mapfs's speed in parts of each peer's.
func (r *report) against(p printer) {
	columns := r.columns(onTmpfs)
	if !slices.Contains(columns, mapfs) || len(columns) < 2 {
		return
	}
	p("\n### mapfs against each, on tmpfs\n")
	heads := []string{"cell"}
	for _, name := range columns {
		if name != mapfs {
			heads = append(heads, "/ "+name)
		}
	}
	p.head(heads...)
	for _, c := range r.cells(onTmpfs) {
		row := []string{c.title}
		for _, name := range columns {
			if name != mapfs {
				row = append(row, formatRatio(r.res.cell(onTmpfs, c.id, mapfs).ratio(r.res.cell(onTmpfs, c.id, name), c.inSeconds)))
			}
		}
		p.row(row...)
	}
	for _, family := range []string{"randread-direct", "randwrite-direct", "randread", "randwrite"} {
		single, four := r.res.cell(onTmpfs, family+"-1", mapfs), r.res.cell(onTmpfs, family+"-4", mapfs)
		if ratio := four.ratio(single, false); ratio != 0 {
			p("\n%s: 4 jobs do %s times as much in sum as one (goal: never less; %s).", family, formatRatio(ratio), judge(four, single, 1, false))
		}
	}
}

// scaling prints what an operation costs when there is more of everything.
func (r *report) scaling(p printer) {
	title := false
	for _, pair := range pairs(r.size) {
		row := []string{pair.title}
		seen := false
		for _, name := range []string{native, mapfs, bindfs, gofuse} {
			little, lot := r.res.cell(onTmpfs, pair.little, name), r.res.cell(onTmpfs, pair.lot, name)
			cost := little.ratio(lot, false)
			row = append(row, formatRatio(cost))
			seen = seen || cost != 0
		}
		if !seen {
			continue
		}
		if !title {
			title = true
			p("\n### Cost as the work grows, on tmpfs\n")
			p("How many times an operation's cost with little is its cost with much; goal for mapfs: at most %g.\n", scaleLimit)
			p.head("what grows", native, mapfs, bindfs, gofuse, "verdict")
		}
		// At most 1.3 times the cost is at least 1/1.3 of the speed.
		v := judge(r.res.cell(onTmpfs, pair.lot, mapfs), r.res.cell(onTmpfs, pair.little, mapfs), 1/scaleLimit, false)
		p.row(append(row, string(v))...)
	}
	for _, name := range r.cast.names() {
		each, total := r.res.cell(onTmpfs, memoryEach, name), r.res.cell(onTmpfs, memoryTotal, name)
		if len(each) == 0 {
			continue
		}
		text := ""
		if name == mapfs {
			v := met
			if total.median() > memoryBase+memoryPerFile*float64(r.size.many) {
				v = notMet
			}
			text = fmt.Sprintf(" (goal: under %d MiB and %d bytes per file; %s)", memoryBase/mib, memoryPerFile, v)
		}
		p("\n%s's daemon: %.0f bytes of anonymous memory per known file, %.1f MiB in all with %d of them%s.",
			name, each.median(), total.median()/mib, r.size.many, text)
	}
}

// costs prints the daemons' processor time and memory.
func (r *report) costs(p printer) {
	names := r.columns(onTmpfs)
	if len(names) == 0 {
		return
	}
	p("\n### What the daemons use, on tmpfs\n")
	p.head(append([]string{"processor time, us", "per"}, names...)...)
	for _, j := range r.jobs {
		row, seen := []string{j.name, j.per}, false
		for _, name := range names {
			s := r.res.cpu[key{onTmpfs, j.name, name}]
			text := "-"
			if len(s) > 0 {
				text, seen = formatNumber(s.median()*1e6), true
			}
			row = append(row, text)
		}
		if seen && !j.apart {
			p.row(row...)
		}
	}
	p("")
	p.head(append([]string{"most memory seen, MiB", ""}, names...)...)
	anonymous, private := []string{"anonymous", ""}, []string{"private dirty", ""}
	for _, name := range names {
		m := r.res.memory[name]
		anonymous = append(anonymous, fmt.Sprintf("%.1f", float64(m.Anonymous)/mib))
		private = append(private, fmt.Sprintf("%.1f", float64(m.PrivateDirty)/mib))
	}
	p.row(anonymous...)
	p.row(private...)
	p("\nPrivate dirty counts mapped pages of the backing files that no other process maps. " +
		"They are page cache, which is there without the daemon too; what the daemon itself takes is the anonymous memory.")
}

// absolute prints the figures themselves.
func (r *report) absolute(p printer, ground string) {
	names := append([]string{native}, r.columns(ground)...)
	p("\n### The figures on %s: median (minimum to maximum)\n", ground)
	p.head(append([]string{"cell", "unit"}, names...)...)
	var spreads sample
	for _, c := range r.cells(ground) {
		row := []string{c.title, c.displayUnit()}
		for _, name := range names {
			s := r.res.cell(ground, c.id, name)
			row = append(row, c.format(s))
			if len(s) > 1 {
				spreads = append(spreads, (s.max()-s.min())/s.median())
			}
		}
		p.row(row...)
	}
	if len(spreads) > 0 {
		p("\nNoise: in half of all figures the rounds lie within %.0f %% of each other (maximum less minimum, in parts of the median); in the worst, %.0f %%.",
			100*spreads.median(), 100*spreads.max())
	}
}

func (c cell) displayUnit() string {
	switch {
	case c.inSeconds:
		return "ms"
	case c.unit == "B/s":
		return "MiB/s"
	}
	return c.unit
}

func (c cell) format(s sample) string {
	if len(s) == 0 {
		return "-"
	}
	scale := 1.0
	switch c.displayUnit() {
	case "ms":
		scale = 1000
	case "MiB/s":
		scale = 1.0 / mib
	}
	return fmt.Sprintf("%s (%s to %s)", formatNumber(s.median()*scale), formatNumber(s.min()*scale), formatNumber(s.max()*scale))
}

// formatNumber gives three figures, and no fractions where they say nothing.
func formatNumber(v float64) string {
	switch {
	case v >= 100_000:
		return fmt.Sprintf("%.0fk", v/1000)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func formatRatio(v float64) string {
	switch {
	case v == 0 || math.IsInf(v, 0):
		return "-"
	case v < 0.1:
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
