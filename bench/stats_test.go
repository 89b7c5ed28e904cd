package main

import "testing"

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		s    sample
		want float64
	}{
		{nil, 0},
		{sample{3}, 3},
		{sample{9, 1}, 5},
		{sample{9, 1, 2}, 2},
		{sample{4, 1, 3, 2}, 2.5},
	} {
		if got := test.s.median(); got != test.want {
			t.Errorf("median of %v: got %v, want %v", test.s, got, test.want)
		}
	}
}

func TestRatio(t *testing.T) {
	fast, slow := sample{200}, sample{100}
	if got := fast.ratio(slow, false); got != 2 {
		t.Errorf("of rates: got %v, want 2", got)
	}
	// As times, 100 is the faster one.
	if got := slow.ratio(fast, true); got != 2 {
		t.Errorf("of times: got %v, want 2", got)
	}
	if got := fast.ratio(nil, false); got != 0 {
		t.Errorf("without a base: got %v, want 0", got)
	}
}

func TestJudge(t *testing.T) {
	steady := sample{100, 100, 100}
	for _, test := range []struct {
		s, base sample
		goal    float64
		want    verdict
	}{
		{sample{130, 140, 150}, steady, 1.2, met},
		{sample{110, 140, 150}, steady, 1.2, met + noiseAbout},
		{sample{90, 100, 110}, steady, 1.2, notMet},
		{sample{90, 100, 130}, steady, 1.2, notMet + noiseAbout},
		{sample{140, 140, 140}, sample{90, 100, 130}, 1.2, met + noiseAbout},
		{sample{110, 110, 110}, sample{90, 100, 130}, 1.2, notMet + noiseAbout},
		{nil, steady, 1.2, noVerdict},
	} {
		if got := judge(test.s, test.base, test.goal, false); got != test.want {
			t.Errorf("%v against %v, goal %v: got %q, want %q", test.s, test.base, test.goal, got, test.want)
		}
	}
}
