package crash

import (
	"testing"

	"mapfs/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
