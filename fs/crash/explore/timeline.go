package explore

import (
	"mapfs/fs/crash"
)

// Moment is something that a recording has: an operation, a sync, a promise.
type Moment struct {
	// Event is how many events are before it.
	Event uint64
	// Number is that of an operation, 0 for anything else; What it is.
	Number uint64
	What   string
	// Sync and Promise say which of those it is.
	Sync, Promise bool
	// Durable is the event that has made an operation durable, 0 if none has.
	Durable uint64
}

// Timeline returns the moments of a recording, in order. Of the options the recording, the
// model and the directory count.
func Timeline(o *Options) (moments []Moment, err error) {
	pending := make(map[uint64]int) // moments by operation
	paths := make(map[crash.Inode]string)
	synced := false
	look := func(p *replay) {
		if !synced {
			return
		}
		synced = false
		still := make(map[uint64]bool)
		for _, op := range p.log.PendingOps() {
			still[op.Number] = true
		}
		for number, at := range pending {
			if !still[number] {
				moments[at].Durable = p.reached
				delete(pending, number)
			}
		}
	}
	p, err := eachEvent(o, func(p *replay, e *crash.Event) error {
		look(p)
		m := Moment{Event: p.reached}
		switch e.Kind {
		case crash.EventOp:
			op := e.Op
			m.Number, m.What = op.Number, op.String()
			pending[op.Number] = len(moments)
			paths[op.Inode] = op.Path
			if op.Kind == crash.Rename {
				paths[op.Inode] = op.ToPath
				paths[op.To.Dir] = op.ToDirPath
			}
			if op.Entry.Dir != 0 {
				paths[op.Entry.Dir] = op.DirPath
			}
		case crash.EventPromise:
			m.What, m.Promise = e.Text, true
		case crash.EventSync, crash.EventSyncRange:
			synced = true
			if paths[e.Inode] == "" {
				return nil // nothing of it is pending, and nobody has said what it is
			}
			m.What, m.Sync = "fsync "+paths[e.Inode], true
		case crash.EventReset, crash.EventPowerCut:
			synced = true
			m.What, m.Sync = string(e.Kind), true
		default:
			return nil
		}
		moments = append(moments, m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer p.close()
	look(p)
	return moments, nil
}
