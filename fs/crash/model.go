package crash

import "fmt"

// Model says which pending operations a sync makes durable, and which can survive a power
// cut without which others.
//
// These rules hold in every model. An operation on a name needs the earlier ones on the
// same name; a rename is one operation on both of its names. A directory is removed only
// when it is empty (rmdir(2)), so the removal needs what emptied it. A directory that was
// moved into another needs what moved that one, or the ones above it: a tree has no
// circles. Of one page, or one torn part of a page, writes survive in their order.
type Model interface {
	// Name is what the model is called.
	Name() string

	// orders reports whether an operation belongs to those that survive only in their
	// order, each with all before it.
	orders(op *Op) bool
	// early returns the size that a data operation gives its file in the order of names,
	// and so without the bytes; 0 if it does not. ops are those on the file before it.
	early(l *Log, ops *inodeOps, op *Op) int64
	// flushes returns the changes of bytes that an operation sends on their way, and without
	// which it does not survive. It is asked when op is done.
	flushes(l *Log, op *Op) []*Op
	// commits returns the pending operations that a sync makes durable, beside the
	// bytes of the file itself.
	commits(l *Log, s Sync) []*Op
	// closed notes that a file was closed.
	closed(l *Log, ops *inodeOps)
	// refuses returns what op cannot survive without of what was dropped before it, by the
	// model's own rules; nil if it can. Of a write it is asked for each part: the bytes
	// from off to end.
	refuses(op *Op, d *dropped, off, end int64) *lack
}

// lack is the lost operation that another one cannot survive without. why is a sentence
// with a place for the lost one.
type lack struct {
	lost *Op
	why  string
}

// String says why.
func (l *lack) String() string { return fmt.Sprintf(l.why, l.lost.brief()) }

// Models returns the models by name.
func Models() []Model { return []Model{Posix{}, Ext4{}} }

// ModelOf returns the model of a name.
func ModelOf(name string) (Model, error) {
	names := ""
	for _, m := range Models() {
		if m.Name() == name {
			return m, nil
		}
		if names != "" {
			names += " or "
		}
		names += m.Name()
	}
	return nil, fmt.Errorf("choose %s", names)
}
