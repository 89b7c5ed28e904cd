package main

import "slices"

// A sample is one cell's value on one peer in every round: operations or bytes per
// second, or seconds, as the cell says.
type sample []float64

// median returns the middle value, and the mean of the middle two when the number of
// rounds is even. It is 0 without any round.
func (s sample) median() float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

func (s sample) min() float64 { return slices.Min(s) }
func (s sample) max() float64 { return slices.Max(s) }

// ratio says how many times as fast the median of s is as that of base, for cells
// whose values are rates, or times if inSeconds. It is 0 where one of them is missing.
func (s sample) ratio(base sample, inSeconds bool) float64 {
	return ratio(s.median(), base.median(), inSeconds)
}

func ratio(value, base float64, inSeconds bool) float64 {
	if value <= 0 || base <= 0 {
		return 0
	}
	if inSeconds {
		return base / value
	}
	return value / base
}

// A verdict is what one run can say about a goal.
type verdict string

const (
	met        verdict = "met"
	notMet     verdict = "not met"
	noVerdict  verdict = "-"
	noiseAbout verdict = ", within noise"
)

// judge compares s with goal times base. Where a single round of either against the
// other's median lies on the other side of the line, the verdict says that noise could
// turn it.
func judge(s, base sample, goal float64, inSeconds bool) verdict {
	got := s.ratio(base, inSeconds)
	if got == 0 || goal == 0 {
		return noVerdict
	}
	v := notMet
	if got >= goal {
		v = met
	}
	turned := func(value, base float64) bool { return (ratio(value, base, inSeconds) >= goal) != (v == met) }
	if slices.ContainsFunc(s, func(value float64) bool { return turned(value, base.median()) }) ||
		slices.ContainsFunc(base, func(value float64) bool { return turned(s.median(), value) }) {
		return v + noiseAbout
	}
	return v
}
