package crash

import "math"

// Steps returns the changes of a file's bytes that a sync of all of it would write now, in
// order.
func (l *Log) Steps(i Inode) []Step { return l.StepsIn(i, 0, math.MaxInt64) }

// StepsIn returns the changes that [Log.SyncRange] of the bytes from off to end makes
// durable: those of the bytes there, and of the size.
func (l *Log) StepsIn(i Inode, off, end int64) (steps []Step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ops := l.inodes[i]
	if ops == nil {
		return nil
	}
	add := func(s Step) {
		s.log = l
		steps = append(steps, s)
	}
	for _, op := range ops.data {
		if op.abandoned {
			continue
		}
		if op.Kind == Truncate {
			add(Step{Off: op.Size, Resize: true})
			continue
		}
		for at, to := max(op.Off, off), min(op.Off+op.Length, end); at < to; {
			if done := op.settledTo(at); done > at {
				at = done
				continue
			}
			next := op.unsettledTo(at, to)
			s := Step{Off: at, Length: next - at}
			if op.Kind != Fallocate {
				s.from = op
			}
			add(s)
			at = next
		}
		if op.extends() {
			add(Step{Off: op.Size, Resize: true, Grow: true})
		}
	}
	return steps
}
