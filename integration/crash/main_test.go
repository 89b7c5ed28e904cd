package crash

import (
	"os"
	"testing"

	"mapfs/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// lessIfSlow returns a number of repetitions, and a fifth of it where the daemon has the race
// detector, which makes it some times slower: the races are in the first ones.
func lessIfSlow(n int) int {
	if os.Getenv("MAPFS_RACE") != "" {
		return n / 5
	}
	return n
}
