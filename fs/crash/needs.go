package crash

import "errors"

// Needs returns the numbers of the fewest pending operations that can survive a power cut
// with the given one, and its own.
func (l *Log) Needs(number uint64) ([]uint64, error) {
	keep := []uint64{number}
	has := map[uint64]bool{number: true}
	add := func(op *Op) {
		if !has[op.Number] && !op.durable {
			has[op.Number] = true
			keep = append(keep, op.Number)
		}
	}
	for {
		_, err := l.Cut(Choice{Keep: keep})
		var refused *Refusal
		if !errors.As(err, &refused) {
			return keep, err
		}
		l.mu.Lock()
		if l.model.orders(refused.Missing) {
			// With it all that are before in the order: one by one they would take long.
			for _, op := range l.ordered {
				if op.Number <= refused.Missing.Number {
					add(op)
				}
			}
		}
		add(refused.Missing)
		l.mu.Unlock()
	}
}

// PendingOps returns the pending operations in order.
func (l *Log) PendingOps() (ops []*Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for op := l.first; op != nil; op = op.after {
		if !op.durable {
			ops = append(ops, op)
		}
	}
	return ops
}

// Missing returns the paths that a sync is missing of for an operation to be durable.
func (l *Log) Missing(op *Op) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return op.needs()
}
