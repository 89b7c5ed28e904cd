//go:build race

package control

// The race detector makes sync.Pool drop what it is given at random, so what is
// allocated says nothing.
const raceEnabled = true
