//go:build !race

package wire

import "bazil.org/fuse"

// scrub does nothing outside tests.
func scrub(fuse.Request, []byte) {}
