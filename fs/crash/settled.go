package crash

import (
	"math"
	"slices"
)

// span is the bytes from off to end.
type span struct{ off, end int64 }

// settledTo returns up to where the bytes from off on are out of the log's hands: off if
// they are not.
func (op *Op) settledTo(off int64) int64 {
	for _, s := range op.settled {
		if s.off <= off && off < s.end {
			return op.settledTo(s.end)
		}
	}
	return off
}

// unsettledTo returns up to where, at most end, the bytes from off on are in its hands.
func (op *Op) unsettledTo(off, end int64) int64 {
	for _, s := range op.settled {
		if s.off > off {
			end = min(end, s.off)
		}
	}
	return end
}

// SyncRange notes that the bytes from off to end of a file are durable, and its size is:
// msync(2) of a range. The rest of its operations stays.
func (l *Log) SyncRange(i Inode, off, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ops := l.inodes[i]
	if ops == nil {
		return
	}
	l.recorder.write(Event{Kind: EventSyncRange, Inode: i, Off: off, End: end})
	least := int64(math.MaxInt64)
	for _, op := range slices.Backward(slices.Clone(ops.data)) {
		if op.Kind == Truncate {
			least = min(least, op.Size)
			op.durable = true
			l.remove(op)
			continue
		}
		op.OldSize = max(op.OldSize, op.Size)
		op.settled = append(op.settled, span{least, math.MaxInt64})
		l.settleBytes(op, off, end)
	}
	l.sweep(i)
}

// Revert notes that the bytes from off to end of a file are again what is durable.
func (l *Log) Revert(i Inode, off, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ops := l.inodes[i]
	if ops == nil {
		return
	}
	l.recorder.write(Event{Kind: EventRevert, Inode: i, Off: off, End: end})
	for _, op := range slices.Clone(ops.data) {
		if op.Kind != Truncate {
			l.settleBytes(op, off, end)
		}
	}
	l.sweep(i)
}

// RevertAll notes that a file's bytes and size are again what is durable.
func (l *Log) RevertAll(i Inode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ops := l.inodes[i]; ops != nil {
		l.recorder.write(Event{Kind: EventRevertAll, Inode: i})
		for _, op := range slices.Clone(ops.data) {
			op.durable = true
			l.remove(op)
		}
		l.sweep(i)
	}
}

// settleBytes takes the bytes from off to end out of an operation, and the operation out
// of the log if nothing is left of it.
func (l *Log) settleBytes(op *Op, off, end int64) {
	op.settled = append(op.settled, span{off, end})
	if op.settledTo(op.Off) >= op.Off+op.Length && !op.extends() {
		op.durable = true
		l.remove(op)
	}
}

// Abandon notes that no sync of the file will write what is pending of it now, as after a
// write-back that failed: it stays pending.
func (l *Log) Abandon(i Inode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ops := l.inodes[i]; ops != nil {
		l.recorder.write(Event{Kind: EventAbandon, Inode: i})
		for _, op := range ops.data {
			op.abandoned = !op.durable
		}
	}
}

// Left returns the bytes of an operation that are still in the log's hands: from the first
// to the last of them.
func (op *Op) Left() (off, length int64) {
	off, end := op.Off, op.Off+op.Length
	if op.Kind == Truncate || op.settled == nil {
		return off, op.Length
	}
	off = min(op.settledTo(off), end)
	for again := true; again; {
		again = false
		for _, s := range op.settled {
			if s.off < end && s.end >= end {
				end, again = max(s.off, off), end > off && s.off > off
			}
		}
	}
	return off, max(end-off, 0)
}
