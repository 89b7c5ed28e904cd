//go:build race

package explore_test

// raceDetector says that all takes many times as long.
const raceDetector = true
