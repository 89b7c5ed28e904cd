package explore

import (
	"errors"
	"fmt"
	"os"

	"mapfs/fs/crash"
)

// A power cut between two events that make nothing durable leaves nothing that one before
// the next sync could not leave: what was done meanwhile is lost then. So the places that
// are looked at are those before a sync, before a promise, and the end; what survives there
// in the order of the operations stands for all places between.

// isBarrier reports whether the place before an event is one of those.
func isBarrier(e *crash.Event) bool {
	switch e.Kind {
	case crash.EventOp, crash.EventKnow, crash.EventClosed, crash.EventBegin, crash.EventEnd:
		return false
	}
	return true
}

// scan is a first look at a recording.
type scan struct {
	points   []uint64 // how many events are before each place
	ops      []*crash.Op
	promises []promise
}

// scanRecording follows a recording to its end.
func scanRecording(o *Options) (*scan, error) {
	s := new(scan)
	last := uint64(0) // the replay's version at the last place
	p, err := eachEvent(o, func(p *replay, e *crash.Event) error {
		p.blind = true
		if e.Kind == crash.EventOp {
			op := *e.Op
			s.ops = append(s.ops, &op)
		}
		if isBarrier(e) && p.version > last {
			s.points = append(s.points, p.reached)
			last = p.version
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer p.close()
	if p.version > last {
		s.points = append(s.points, p.reached)
	}
	s.promises = p.promises
	return s, nil
}

// errEnough ends eachEvent early, without an error.
var errEnough = errors.New("enough")

// eachEvent follows a recording to its end, or until before returns an error, which is
// called before each event. The caller closes the replay.
func eachEvent(o *Options, before func(*replay, *crash.Event) error) (*replay, error) {
	dir, err := os.MkdirTemp(o.Dir, "replay-")
	if err != nil {
		return nil, err
	}
	p, err := newReplay(o.Recording, o.Model, dir)
	if err != nil {
		return nil, err
	}
	err = o.Recording.Each(func(e *crash.Event) error {
		if err := before(p, e); err != nil {
			return err
		}
		return p.apply(e)
	})
	p.ended = err == nil
	if err != nil && err != errEnough {
		p.close()
		return nil, fmt.Errorf("event %d of the recording: %w", p.reached, err)
	}
	return p, nil
}

// portions are how many places are looked at with every strategy before the next ones.
var portions = []int{20, 200}

// levels parts the places: first some from everywhere, then more, then all others.
func levels(points []uint64) (parts [][]uint64) {
	left := points
	for _, most := range portions {
		if len(left) <= most {
			break
		}
		var some, others []uint64
		step := float64(len(left)-1) / float64(most-1)
		for i, point := range left {
			if i == int(float64(len(some))*step+0.5) {
				some = append(some, point)
			} else {
				others = append(others, point)
			}
		}
		parts = append(parts, some)
		left = others
	}
	return append(parts, left)
}
