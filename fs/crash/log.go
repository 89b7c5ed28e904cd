package crash

import (
	"cmp"
	"slices"
	"sync"
)

// Log is the operations on a tree that are not durable yet, in order. All its methods may
// be called from many goroutines at a time; who changes one thing from two goroutines
// must see to it himself that the log is told in the order of the changes.
type Log struct {
	model Model
	page  int64 // bytes of a page: what survives whole

	onDurable func(*Op)

	mu    sync.Mutex
	store byteStore
	last  uint64 // the newest number

	// first to newest are the operations that are pending, or durable and needed still.
	first, newest *Op

	names  map[Inode]map[string]*name // that pending operations change, by directory
	byDir  map[Inode][]*Op            // that wait for a sync of the directory; some are durable by now
	moves  map[Inode][]*Op            // of directories into others, by the directory that moved
	inodes map[Inode]*inodeOps
	// ordered are the operations that survive in their order only, if the model has such,
	// and orderedAt is the newest operation when such were made durable last.
	ordered   []*Op
	orderedAt uint64
	early     []*Op // with an early size that is not durable yet
	// holes are the blocks of files that have no place, as far as the log was told of them; see
	// the ext4 model.
	holes map[Inode][]span

	promises []Promise
	promised int       // bytes in them
	recorder *recorder // nil if nobody wants a recording
}

// name is an entry that pending operations change.
type name struct {
	base Inode // what is durable there
	ops  []*Op // the pending ones, in order
}

// inodeOps are the operations on one inode.
type inodeOps struct {
	data, attrs []*Op // in order; data with durable ones
	refs        References
	// changed is the number of the newest operation that changed the inode in any way,
	// reached that of the newest which fdatasync(2) has to write for the data to be
	// found: that made it, or changed its size.
	changed, reached uint64
}

// References count the operations in a log that need an inode: to place it under a name,
// or at all.
type References struct{ Names, All int }

// Options say how a log is kept.
type Options struct {
	Model Model
	// PageSize is that of the kernel, in bytes.
	PageSize int
	// MaxMemory is how many bytes of operations are kept in memory; the others go to an
	// unlinked file in Dir.
	MaxMemory int64
	Dir       string
	// Durable, if it is set, is told of every operation on names or attributes that a
	// sync makes durable, in their order. The log is locked meanwhile.
	Durable func(*Op)
}

// New returns an empty log. Close gives up what it keeps.
func New(o Options) (*Log, error) {
	l := &Log{model: o.Model, page: int64(o.PageSize), onDurable: o.Durable}
	l.store.maxMemory = int(max(o.MaxMemory/segmentSize, 1))
	if err := l.store.open(o.Dir); err != nil {
		return nil, err
	}
	l.reset()
	return l, nil
}

// reset forgets every operation.
func (l *Log) reset() {
	l.first, l.newest, l.ordered, l.early = nil, nil, nil, nil
	l.names = make(map[Inode]map[string]*name)
	l.byDir = make(map[Inode][]*Op)
	l.moves = make(map[Inode][]*Op)
	l.inodes = make(map[Inode]*inodeOps)
	l.holes = make(map[Inode][]span)
}

// Reset forgets every operation: the tree is durable as it is. Numbers go on.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recorder.write(Event{Kind: EventReset})
	l.forgetAll()
}

// forgetAll forgets every operation and its bytes.
func (l *Log) forgetAll() {
	l.reset()
	l.store.reset()
}

// PowerFailed notes that the tree is what a power cut by the choice leaves: State of
// [Log.Cut] is durable, and nothing is pending.
func (l *Log) PowerFailed(c Choice) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recorder.write(Event{Kind: EventPowerCut, Text: l.model.Name(), Choice: &c})
	l.forgetAll()
}

// Close gives up what the log keeps. A recording must have ended. Nobody may use the log any
// more.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetAll()
	l.store.file.Close()
}

// Keep copies bytes that are about to be written. The error is that of the file for what
// memory has no room for; nothing is kept then. Either they go into an operation, or
// [Log.GiveUp] takes them.
func (l *Log) Keep(p []byte) (Bytes, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.store.put(p)
}

// GiveUp gives back what Keep kept, for an operation that was not done.
func (l *Log) GiveUp(b *Bytes) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.store.release(b)
}

// Add notes an operation that has just been done, and takes op over.
func (l *Log) Add(op *Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	op.Number = l.last
	op.before = l.newest
	if l.newest == nil {
		l.first = op
	} else {
		l.newest.after = op
	}
	l.newest = op
	if l.model.orders(op) {
		l.ordered = append(l.ordered, op)
	}
	switch {
	case op.Kind.isName():
		op.flushes = l.model.flushes(l, op)
		l.addName(op)
	case op.Kind.isData():
		ops := l.inode(op.Inode)
		if op.early = l.model.early(l, ops, op); op.early > 0 {
			l.early = append(l.early, op)
		}
		ops.data = append(ops.data, op)
	default:
		ops := l.inode(op.Inode)
		ops.attrs = append(ops.attrs, op)
	}
	l.refer(op, 1)
	l.recorder.op(op, &l.store)
}

// addName notes an operation on names.
func (l *Log) addName(op *Op) {
	op.waits = true
	l.byDir[op.Entry.Dir] = append(l.byDir[op.Entry.Dir], op)
	switch op.Kind {
	case Unlink, Rmdir:
		l.touch(op.Entry, op.Inode, op)
	case Rename:
		l.touch(op.Entry, op.Inode, op)
		l.touch(op.To, op.Replaced, op)
		if op.Entry.Dir == op.To.Dir {
			break
		}
		op.waitsTo = true
		l.byDir[op.To.Dir] = append(l.byDir[op.To.Dir], op)
		if op.IsDir {
			l.moves[op.Inode] = append(l.moves[op.Inode], op)
		}
	default:
		l.touch(op.Entry, 0, op)
	}
}

// touch notes that op changes an entry, which led to the inode was until then.
func (l *Log) touch(e Entry, was Inode, op *Op) {
	names := l.names[e.Dir]
	if names == nil {
		names = make(map[string]*name)
		l.names[e.Dir] = names
	}
	n := names[e.Name]
	if n == nil {
		n = &name{base: was}
		names[e.Name] = n
	}
	n.ops = append(n.ops, op)
}

// inode returns what is known of an inode, made if need be.
func (l *Log) inode(i Inode) *inodeOps {
	ops := l.inodes[i]
	if ops == nil {
		ops = new(inodeOps)
		l.inodes[i] = ops
	}
	return ops
}

// refer counts n more operations for each inode that op needs.
func (l *Log) refer(op *Op, n int) {
	for i, inode := range op.inodes() {
		if inode == 0 {
			continue
		}
		ops := l.inode(inode)
		ops.refs.All += n
		if n > 0 {
			ops.changed = op.Number
			if i >= 2 || i == 0 && (op.Kind < Link || op.Kind.isData() && op.Size != op.OldSize) {
				ops.reached = op.Number // names are the data of a directory
			}
		}
		if i < 2 && op.Kind.isName() {
			ops.refs.Names += n
		}
		if ops.refs.All == 0 {
			delete(l.inodes, inode)
		}
	}
}

// inodes returns what op needs, 0 for nothing: first what it makes, moves or removes.
func (op *Op) inodes() [4]Inode {
	return [4]Inode{op.Inode, op.Replaced, op.Entry.Dir, op.To.Dir}
}

// References returns how many operations need an inode.
func (l *Log) References(i Inode) References {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ops := l.inodes[i]; ops != nil {
		return ops.refs
	}
	return References{}
}

// Sync is a sync of a file or directory that has succeeded: fsync(2), or, with DataOnly,
// fdatasync(2). All bytes of a file are then where they are durable.
type Sync struct {
	Inode    Inode
	IsDir    bool
	DataOnly bool
}

// Sync notes a sync and returns inodes that fewer operations need now, or none any more.
// No operation on the file may have been added since the sync began.
func (l *Log) Sync(s Sync) (touched []Inode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recorder.write(Event{Kind: EventSync, Inode: s.Inode, IsDir: s.IsDir, DataOnly: s.DataOnly})
	work := l.model.commits(l, s)
	var data []*Op
	if ops := l.inodes[s.Inode]; ops != nil {
		data = slices.DeleteFunc(slices.Clone(ops.data), func(op *Op) bool { return op.abandoned })
	}
	touched = l.commit(append(work, data...))
	for _, op := range data {
		l.remove(op)
	}
	l.sweep(s.Inode)
	return append(touched, s.Inode)
}

// commit makes operations durable, with all that they require.
func (l *Log) commit(work []*Op) (touched []Inode) {
	var done []*Op
	push := func(op *Op) {
		if !op.durable {
			op.durable = true
			done = append(done, op)
		}
	}
	for _, op := range work {
		push(op)
	}
	for i := 0; i < len(done); i++ {
		l.requires(done[i], push)
	}
	slices.SortFunc(done, func(a, b *Op) int { return cmp.Compare(a.Number, b.Number) })
	for _, op := range done {
		if op.Kind.isData() {
			continue // until a sync of the file has taken the bytes over
		}
		if l.onDurable != nil {
			l.onDurable(op)
		}
		for _, inode := range op.inodes() {
			if inode != 0 {
				touched = append(touched, inode)
			}
		}
		l.remove(op)
		if !op.Kind.isName() {
			l.sweep(op.Inode)
		}
	}
	return touched
}

// requires calls push for the pending operations without which op cannot survive.
func (l *Log) requires(op *Op, push func(*Op)) {
	before := func(ops []*Op) {
		for _, p := range ops {
			if p.Number >= op.Number {
				return
			}
			push(p)
		}
	}
	switch {
	case op.Kind.isName():
		for _, e := range [...]Entry{op.Entry, op.To} {
			if n := l.names[e.Dir][e.Name]; n != nil {
				before(n.ops)
			}
		}
		if emptied := op.emptied(); emptied != 0 {
			for _, n := range l.names[emptied] {
				before(n.ops)
			}
		}
		for _, dir := range op.Above {
			before(l.moves[dir])
		}
	case !op.Kind.isData():
		for _, p := range l.inodes[op.Inode].attrs {
			if p.Attr == op.Attr && p.Number < op.Number {
				push(p)
			}
		}
	}
	for _, p := range op.flushes {
		if !p.gone {
			push(p)
		}
	}
}

// emptied returns the directory that must be empty for op to happen, or 0.
func (op *Op) emptied() Inode {
	switch {
	case op.Kind == Rmdir:
		return op.Inode
	case op.Kind == Rename && op.ReplacedDir:
		return op.Replaced
	}
	return 0
}

// remove takes an operation out of the log; see sweep. One on names must be the first on
// each of its entries.
func (l *Log) remove(op *Op) {
	if op.before == nil {
		l.first = op.after
	} else {
		op.before.after = op.after
	}
	if op.after == nil {
		l.newest = op.before
	} else {
		op.after.before = op.before
	}
	op.before, op.after = nil, nil
	switch {
	case op.Kind.isName():
		l.settle(op.Entry, op, op.Kind != Unlink && op.Kind != Rmdir && op.Kind != Rename)
		if op.Kind == Rename {
			l.settle(op.To, op, true)
			if moves := slices.DeleteFunc(l.moves[op.Inode], func(p *Op) bool { return p == op }); len(moves) > 0 {
				l.moves[op.Inode] = moves
			} else {
				delete(l.moves, op.Inode)
			}
		}
	case op.Kind.isData():
		l.store.release(&op.Bytes)
	}
	op.gone = true
	l.refer(op, -1)
}

// sweep takes what remove has removed from the lists of an inode. It is for the end of a
// series: of a long list every single one would cost its length.
func (l *Log) sweep(i Inode) {
	isGone := func(op *Op) bool { return op.gone }
	if ops := l.inodes[i]; ops != nil {
		ops.data = slices.DeleteFunc(ops.data, isGone)
		ops.attrs = slices.DeleteFunc(ops.attrs, isGone)
	}
}

// settle makes what op does to an entry the durable state of it: its inode there, or
// nothing.
func (l *Log) settle(e Entry, op *Op, there bool) {
	names := l.names[e.Dir]
	n := names[e.Name]
	if n == nil {
		return // a rename of a name to itself was settled by its first half
	}
	n.base = 0
	if there {
		n.base = op.Inode
	}
	n.ops = n.ops[1:]
	if len(n.ops) > 0 {
		return
	}
	delete(names, e.Name)
	if len(names) == 0 {
		delete(l.names, e.Dir)
	}
}

// Forget drops the operations on an inode's bytes and attributes: no crash state has it
// any more.
func (l *Log) Forget(i Inode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.holes, i)
	ops := l.inodes[i]
	if ops == nil {
		return
	}
	for _, op := range slices.Concat(ops.data, ops.attrs) {
		op.durable = true // wherever else it is listed
		l.remove(op)
	}
	l.sweep(i)
}

// Closed notes that somebody has closed a file.
func (l *Log) Closed(i Inode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ops := l.inodes[i]; ops != nil {
		l.recorder.write(Event{Kind: EventClosed, Inode: i})
		l.model.closed(l, ops)
	}
}

// Pending calls yield for the pending operations in order, until it returns false, with
// what would make each durable: paths to call fsync(2) on. The log is locked meanwhile.
func (l *Log) Pending(yield func(op *Op, needs []string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for op := l.first; op != nil; op = op.after {
		if !op.durable && !yield(op, op.needs()) {
			return
		}
	}
}

// needs returns the paths that a sync is missing of.
func (op *Op) needs() []string {
	if !op.Kind.isName() {
		return []string{op.Path}
	}
	var paths []string
	if op.waits {
		paths = append(paths, op.DirPath)
	}
	if op.waitsTo {
		paths = append(paths, op.ToDirPath)
	}
	return paths
}

// DurableEntry returns what a power cut now would surely leave at an entry that pending
// operations change, 0 for nothing. touched is false for any other entry: what is there,
// is durable.
func (l *Log) DurableEntry(e Entry) (inode Inode, touched bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.names[e.Dir][e.Name]
	if n == nil {
		return 0, false
	}
	return n.base, true
}

// DurableEntries returns the entries of a directory that pending operations change, with
// what DurableEntry says of them.
func (l *Log) DurableEntries(dir Inode) map[string]Inode {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := make(map[string]Inode, len(l.names[dir]))
	for name, n := range l.names[dir] {
		entries[name] = n.base
	}
	return entries
}

// DurableAttr returns the durable value of an attribute that pending operations change.
func (l *Log) DurableAttr(i Inode, attr string) (value []byte, touched bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ops := l.inodes[i]
	if ops == nil {
		return nil, false
	}
	for _, op := range ops.attrs {
		if op.Attr == attr {
			return op.Old, true
		}
	}
	return nil, false
}
