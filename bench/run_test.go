package main

import (
	"testing"
	"time"
)

// TestRoughly: what is left is told in words that nobody takes for exact.
func TestRoughly(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "1 s", 1600 * time.Millisecond: "2 s", 59 * time.Second: "59 s", 90 * time.Second: "2 min", 26*time.Minute + 20*time.Second: "26 min",
	} {
		if got := roughly(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
