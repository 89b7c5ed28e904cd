package ctltree

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestWithin plays a mount that never answers.
func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		_, err := Within(time.Minute, "/m/f", func() (int, error) { <-stuck; return 1, nil })
		const want = "no answer from the mount in 1m0s, its daemon is stuck or very busy: /m/f"
		if err == nil || err.Error() != want {
			t.Errorf("stuck: got %v, want %s", err, want)
		}
		close(stuck)
		broken := errors.New("broken")
		if n, err := Within(time.Minute, "x", func() (int, error) { return 2, broken }); n != 2 || err != broken {
			t.Errorf("an answer: got %d, %v", n, err)
		}
	})
}
