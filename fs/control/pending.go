package control

import (
	"fmt"
	"strings"

	"bazil.org/fuse"

	"mapfs/fs/crash"
	"mapfs/internal/quote"
)

// writePending writes the operations that a power cut could take.
func (t *Tree) writePending(b *strings.Builder, _ *node, _ *fuse.Header) error {
	t.s.Pending(func(op *crash.Op, needs []string) bool {
		writeOp(b, op)
		for i, path := range needs {
			if i == 0 {
				b.WriteString(" needs fsync ")
			} else {
				b.WriteString(", fsync ")
			}
			b.WriteString(quote.Path(path))
		}
		b.WriteByte('\n')
		return true
	})
	return nil
}

// writeOp writes what an operation is: its number, kind, path, and what it did.
func writeOp(b *strings.Builder, op *crash.Op) {
	fmt.Fprintf(b, "%d %s", op.Number, op)
	if op.PID != 0 {
		fmt.Fprintf(b, " pid=%d", op.PID)
	}
}
