package control

import (
	"encoding/binary"
	"fmt"
	"strings"

	"bazil.org/fuse"

	"mapfs/fs/crash"
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
			b.WriteString(quotePath(path))
		}
		b.WriteByte('\n')
		return true
	})
	return nil
}

// writeOp writes what an operation is: its number, kind, path, and what it did.
func writeOp(b *strings.Builder, op *crash.Op) {
	fmt.Fprintf(b, "%d %s %s", op.Number, op.Kind, quotePath(op.Path))
	switch op.Kind {
	case crash.Rename:
		fmt.Fprintf(b, " %s", quotePath(op.ToPath))
	case crash.Write, crash.Store, crash.Fallocate:
		off, length := op.Left()
		if op.Kind == crash.Fallocate && length == 0 {
			off, length = op.OldSize, op.Size-op.OldSize
		}
		fmt.Fprintf(b, " %d %d", off, length)
	case crash.Truncate:
		fmt.Fprintf(b, " from=%d to=%d", op.OldSize, op.Size)
	case crash.Setxattr, crash.Removexattr:
		fmt.Fprintf(b, " %s", quotePath(strings.TrimPrefix(op.Attr, "xattr:")))
	case crash.Chmod:
		fmt.Fprintf(b, " %04o", binary.LittleEndian.Uint32(op.New)&0o7777)
	case crash.Chown:
		fmt.Fprintf(b, " %d %d", binary.LittleEndian.Uint32(op.New[4:]), binary.LittleEndian.Uint32(op.New[8:]))
	}
	if op.PID != 0 {
		fmt.Fprintf(b, " pid=%d", op.PID)
	}
}
