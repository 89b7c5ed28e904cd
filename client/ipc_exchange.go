package client

import (
	"context"
	"slices"
	"time"
)

// Two processes exchange the messages 1 to count in rounds, each answered by the
// same message, and then the messages count+1 to 2*count in one stream, all of
// them answered by one. Numbers tell which of them was lost.

// pass sends message n.
func (l *link) pass(ctx context.Context, p pattern, n int64) error {
	msg, err := l.out.reserve(ctx)
	if err != nil {
		return err
	}
	p.fill(msg, uint64(n))
	return l.out.send(ctx)
}

// take receives a message, which should be message n, and counts it.
func (l *link) take(ctx context.Context, p pattern, n int64, t *tally) error {
	msg, err := l.in.receive(ctx)
	if err != nil {
		return err
	}
	if p.is(msg, uint64(n)) {
		t.Whole++
	} else {
		t.Torn++
	}
	return l.in.release()
}

// measure is what the process that began has seen.
type measure struct {
	roundTrip time.Duration // the median
	stream    time.Duration // for all messages and the one answer
	tally
}

// lead is the exchange in the process that begins.
func (l *link) lead(ctx context.Context, p pattern, count int64) (measure, error) {
	var m measure
	rounds := make([]time.Duration, 0, count)
	for n := int64(1); n <= count; n++ {
		start := time.Now()
		if err := l.pass(ctx, p, n); err != nil {
			return m, err
		}
		if err := l.take(ctx, p, n, &m.tally); err != nil {
			return m, err
		}
		rounds = append(rounds, time.Since(start))
	}
	slices.Sort(rounds)
	m.roundTrip = rounds[len(rounds)/2]

	start := time.Now()
	for n := count + 1; n <= 2*count; n++ {
		if err := l.pass(ctx, p, n); err != nil {
			return m, err
		}
	}
	err := l.take(ctx, p, 2*count, &m.tally)
	m.stream = time.Since(start)
	return m, err
}

// follow is the exchange in the other process.
func (l *link) follow(ctx context.Context, p pattern, count int64) (tally, error) {
	var t tally
	for n := int64(1); n <= count; n++ {
		if err := l.take(ctx, p, n, &t); err != nil {
			return t, err
		}
		if err := l.pass(ctx, p, n); err != nil {
			return t, err
		}
	}
	for n := count + 1; n <= 2*count; n++ {
		if err := l.take(ctx, p, n, &t); err != nil {
			return t, err
		}
	}
	return t, l.pass(ctx, p, 2*count)
}

// The same without a semaphore: the messages 1 to count go one way, and nobody
// waits for anybody. Only shared memory can be used so; the kernel synchronises
// the other media whether one wants it or not.

// spill is lead without synchronisation.
func (l *link) spill(ctx context.Context, p pattern, count int64) error {
	if l.shared != nil {
		return l.shared.overwrite(ctx, p, count)
	}
	for n := int64(1); n <= count; n++ {
		if err := l.pass(ctx, p, n); err != nil {
			return err
		}
	}
	return nil
}

// mop is follow without synchronisation.
func (l *link) mop(ctx context.Context, p pattern, count int64) (tally, error) {
	if l.shared != nil {
		return l.shared.watch(ctx, p)
	}
	var t tally
	for n := int64(1); n <= count; n++ {
		if err := l.take(ctx, p, n, &t); err != nil {
			return t, err
		}
	}
	return t, nil
}
