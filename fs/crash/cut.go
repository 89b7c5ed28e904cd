package crash

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Choice says which pending operations survive a power cut.
type Choice struct {
	// All or none of them; or those whose numbers Keep has; or, with Random, a random legal
	// set that Seed decides.
	All    bool     `json:"all,omitzero"`
	Keep   []uint64 `json:"keep,omitzero"`
	Random bool     `json:"random,omitzero"`
	Seed   uint64   `json:"seed,omitzero"`
	// Lose, with All, has the numbers of those that do not survive. What cannot survive
	// without them is lost too.
	Lose []uint64 `json:"lose,omitzero"`
	// Torn is how many bytes of a page survive as one: the device's sector. 0 is the
	// whole page.
	Torn int64 `json:"torn,omitzero"`
}

// State is what a power cut leaves. Base is the tree without the operations of the log.
type State struct {
	// Names are the entries that the operations change: what is there, 0 for nothing.
	Names map[Entry]Inode
	// Attrs are the attributes that they change: their values, nil for none.
	Attrs map[Attribute][]byte
	// Files are the changes of bytes that survived, in order, by file.
	Files map[Inode][]Step
	// Kept are how many pending operations survived, Lost those that did not, or in part
	// only.
	Kept int
	Lost []*Op
}

// Attribute is an attribute of an inode.
type Attribute struct {
	Inode Inode
	Name  string
}

// Step is a change of a file's bytes: Length bytes at Off become those that Read gives,
// or zero as far as the file has them; or, where Resize is set, the size becomes Off.
type Step struct {
	Off, Length int64
	Resize      bool
	// Grow says that Resize makes the file only longer.
	Grow bool

	log  *Log
	from *Op // whose bytes they are; nil for zeros
}

// IsZero reports whether the bytes become zero.
func (s *Step) IsZero() bool { return !s.Resize && s.from == nil }

// Read copies the step's bytes from off on, counted from its first, into p.
func (s *Step) Read(p []byte, off int64) error {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.store.read(&s.from.Bytes, s.Off+off-s.from.Off, p)
}

// dropped is what does not survive of the operations so far.
type dropped struct {
	entries map[Entry]*Op
	inDirs  map[Inode]*Op // a name in the directory
	moves   map[Inode]*Op // of a directory into another
	attrs   map[Attribute]*Op
	files   map[Inode]*droppedBytes
	lost    map[*Op]bool // changes of bytes, whole or in part
	// ordered is the first that did not survive of those that survive in their order, and
	// orderedAt its place.
	ordered   *Op
	orderedAt uint64
}

// droppedBytes is what does not survive of a file's changes so far.
type droppedBytes struct {
	parts map[int64]*Op // by number of the page, or of the torn part
	// cut is a truncation, and cutFrom the first byte that such a one touches.
	cut     *Op
	cutFrom int64
	// growth is the first that made the file longer.
	growth *Op
}

// file returns what was dropped of a file.
func (d *dropped) file(i Inode) *droppedBytes {
	f := d.files[i]
	if f == nil {
		f = &droppedBytes{parts: make(map[int64]*Op), cutFrom: math.MaxInt64}
		d.files[i] = f
	}
	return f
}

// brief names an operation in a sentence.
func (op *Op) brief() string { return fmt.Sprintf("operation %d (%s %s)", op.Number, op.Kind, op.Path) }

// Cut returns what a power cut now leaves by a choice. A set that the model does not allow
// is an error that says which rule forbids it. The log stays as it is, and must, as long
// as steps of the state are read.
func (l *Log) Cut(c Choice) (*State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cut := cutting{
		l: l, part: l.page, choose: c,
		out: &State{Names: make(map[Entry]Inode), Attrs: make(map[Attribute][]byte), Files: make(map[Inode][]Step)},
		d: dropped{
			entries: make(map[Entry]*Op), inDirs: make(map[Inode]*Op), moves: make(map[Inode]*Op),
			attrs: make(map[Attribute]*Op), files: make(map[Inode]*droppedBytes), lost: make(map[*Op]bool), orderedAt: math.MaxUint64,
		},
		keep: make(map[uint64]bool), lose: make(map[uint64]bool),
	}
	if c.Torn > 0 {
		cut.part = c.Torn
	}
	for _, number := range c.Keep {
		cut.keep[number] = true
	}
	for _, number := range c.Lose {
		cut.lose[number] = true
	}
	if err := cut.known(slices.Concat(c.Keep, c.Lose)); err != nil {
		return nil, err
	}
	if c.Random {
		cut.roll()
	}
	for dir, names := range l.names {
		for name, n := range names {
			cut.out.Names[Entry{dir, name}] = n.base
		}
	}
	for inode, ops := range l.inodes {
		for _, op := range slices.Backward(ops.attrs) {
			cut.out.Attrs[Attribute{inode, op.Attr}] = op.Old // the first one's in the end
		}
	}
	for op := l.first; op != nil; op = op.after {
		if err := cut.decide(op); err != nil {
			return nil, err
		}
	}
	return cut.out, nil
}

// cutting is one run of Cut.
type cutting struct {
	l      *Log
	choose Choice
	keep   map[uint64]bool
	lose   map[uint64]bool
	// last is the last of those to keep that survives only with all before it that have an
	// order; of those that are not to be lost, if these were named.
	last uint64
	part int64 // bytes
	out  *State
	d    dropped

	// Of a random choice: how likely a part survives, where the order of those that have
	// one ends, and the changes of bytes that are needed by what survives of it.
	random *rand.Rand
	likely float64
	end    uint64
	needed map[*Op]bool
}

// known refuses numbers of operations that are not pending.
func (c *cutting) known(numbers []uint64) error {
	pending := make(map[uint64]bool, len(numbers))
	for op := c.l.first; op != nil && len(numbers) > 0; op = op.after {
		if op.durable {
			continue
		}
		pending[op.Number] = true
		if !c.named(op) {
			continue
		}
		if c.l.model.orders(op) || op.Kind.isData() && op.extends() {
			c.last = op.Number
		}
	}
	for _, n := range numbers {
		if !pending[n] {
			return fmt.Errorf("no pending operation has the number %d", n)
		}
	}
	return nil
}

// named reports whether an operation is one of those to keep, by its number.
func (c *cutting) named(op *Op) bool {
	if c.choose.All {
		return !c.lose[op.Number]
	}
	return c.keep[op.Number]
}

// roll makes the random decisions that concern all operations.
func (c *cutting) roll() {
	c.random = rand.New(rand.NewPCG(c.choose.Seed, 0))
	c.likely = []float64{0.1, 0.5, 0.9}[c.random.IntN(3)]
	c.end, c.needed = math.MaxUint64, make(map[*Op]bool)
	var order []*Op
	for op := c.l.first; op != nil; op = op.after {
		if !op.durable && (c.l.model.orders(op) || op.early > 0 && !op.sized) {
			order = append(order, op)
		}
	}
	if at := c.random.IntN(len(order) + 1); at < len(order) {
		c.end = order[at].Number
		order = order[:at]
	}
	for _, op := range order {
		for _, p := range op.flushes {
			c.needed[p] = true
		}
	}
}

// wants reports whether an operation, or a part of its bytes, is to survive if it can.
func (c *cutting) wants(op *Op) bool {
	switch {
	case op.durable:
		return true
	case !c.choose.Random:
		return c.named(op)
	case c.l.model.orders(op):
		return op.Number < c.end
	case op.flushed > 0 && op.flushed < c.end, c.needed[op]:
		return true
	}
	return c.random.Float64() < c.likely
}

// decide decides about the next operation.
func (c *cutting) decide(op *Op) error {
	var kept bool
	var err error
	switch {
	case op.Kind == Truncate || op.onlyGrows() || !op.Kind.isData():
		kept, err = c.whole(op)
	default:
		kept, err = c.bytes(op)
	}
	switch {
	case err != nil:
		return err
	case op.durable:
	case kept:
		c.out.Kept++
	default:
		c.out.Lost = append(c.out.Lost, op)
	}
	return nil
}

// Refusal is the error for a choice that the model does not allow: Op cannot survive
// without Missing.
type Refusal struct {
	Op, Missing *Op
	why         *lack
}

// Error says which rule forbids it.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s cannot survive: %s, which is lost", r.Op.brief(), r.why)
}

// refuse returns an error if the choice named op, which cannot survive, and why.
func (c *cutting) refuse(op *Op, why *lack) error {
	if c.choose.Random || c.choose.All {
		return nil
	}
	return &Refusal{op, why.lost, why}
}

// whole decides about an operation that survives whole or not at all.
func (c *cutting) whole(op *Op) (kept bool, err error) {
	if !c.wants(op) {
		c.drop(op)
		return false, nil
	}
	if why := c.forbids(op); why != nil && !op.durable {
		c.drop(op)
		return false, c.refuse(op, why)
	}
	switch {
	case op.Kind == Truncate:
		f := c.d.file(op.Inode)
		for part := range f.parts {
			if part*c.part >= op.Size {
				delete(f.parts, part) // nothing of it is left to be missed
			}
		}
		if f.growth != nil && f.growth.OldSize >= op.Size {
			f.growth = nil
		}
		c.step(op, Step{Off: op.Size, Resize: true})
	case op.onlyGrows():
		c.step(op, Step{Off: op.Size, Resize: true, Grow: true})
	case op.Kind.isName():
		op.EachName(func(e Entry, to Inode) { c.out.Names[e] = to })
	default:
		c.out.Attrs[Attribute{op.Inode, op.Attr}] = op.New
	}
	return true, nil
}

// forbids returns what an operation that survives whole cannot do without.
func (c *cutting) forbids(op *Op) *lack {
	d := &c.d
	switch {
	case op.Kind == Truncate || op.onlyGrows():
		if missing := d.file(op.Inode).cut; missing != nil {
			return &lack{missing, "the sizes of a file survive in their order, and %s is before it"}
		}
	case !op.Kind.isName():
		if missing := d.attrs[Attribute{op.Inode, op.Attr}]; missing != nil {
			return &lack{missing, "it comes after %s, of the same attribute"}
		}
	default:
		entries := []Entry{op.Entry}
		if op.Kind == Rename {
			entries = append(entries, op.To)
		}
		for _, e := range entries {
			if missing := d.entries[e]; missing != nil {
				return &lack{missing, "it comes after %s, on the same name"}
			}
		}
		if missing := d.inDirs[op.emptied()]; missing != nil {
			return &lack{missing, "a directory must be empty to be removed, and that took %s"}
		}
		for _, dir := range op.Above {
			if missing := d.moves[dir]; missing != nil {
				return &lack{missing, "directories must not go round in a circle, and %s moved one above it"}
			}
		}
	}
	return c.l.model.refuses(op, d, 0, 0)
}

// drop notes that an operation does not survive.
func (c *cutting) drop(op *Op) {
	d := &c.d
	at := op.Number
	if op.flushed > 0 {
		at = op.flushed
	}
	if (c.l.model.orders(op) || op.flushed > 0) && at < d.orderedAt {
		d.ordered, d.orderedAt = op, at
	}
	switch {
	case op.Kind == Truncate:
		f := d.file(op.Inode)
		f.cut, f.cutFrom = op, min(f.cutFrom, op.Size, op.OldSize)
	case op.Kind.isData():
	case op.Kind.isName():
		for _, e := range []Entry{op.Entry, op.To} {
			if e.Dir != 0 {
				d.entries[e], d.inDirs[e.Dir] = op, op
			}
		}
		if op.Kind == Rename && op.IsDir && op.Entry.Dir != op.To.Dir {
			d.moves[op.Inode] = op
		}
	default:
		d.attrs[Attribute{op.Inode, op.Attr}] = op
	}
}

// step adds a change of bytes.
func (c *cutting) step(op *Op, s Step) {
	s.log = c.l
	c.out.Files[op.Inode] = append(c.out.Files[op.Inode], s)
}

// bytes decides about the parts of a change of bytes. kept says that all survive.
func (c *cutting) bytes(op *Op) (kept bool, err error) {
	f := c.d.file(op.Inode)
	kept = true
	end := op.Off + op.Length
	run := Step{Off: op.Off}
	if op.Kind != Fallocate {
		run.from = op
	}
	wants := c.wants(op)
	if op.early > 0 {
		if err := c.size(op, wants); err != nil {
			return false, err
		}
	}
	flush := func(next int64) {
		if run.Length > 0 {
			c.step(op, run)
		}
		run.Off, run.Length = next, 0
	}
	for at := op.Off; at < end; {
		part := at / c.part
		next := min((part+1)*c.part, end)
		if done := op.settledTo(at); done > at {
			flush(min(done, end))
			at = min(done, end)
			continue
		}
		next = op.unsettledTo(at, next)
		want := wants
		if c.choose.Random && !op.durable && at > op.Off {
			want = c.wants(op)
		}
		if want && !op.durable {
			if why := c.forbidsPart(op, f, at, next); why != nil {
				if err := c.refuse(op, why); err != nil {
					return false, err
				}
				want = false
			}
		}
		if want {
			run.Length += next - at
		} else {
			kept = false
			f.parts[part] = op
			if op.extends() && next > max(op.OldSize, op.early) && f.growth == nil {
				f.growth = op
			}
			flush(next)
		}
		at = next
	}
	flush(end)
	if op.extendsWithBytes() && (op.Kind == Fallocate || op.settled != nil) { // else its bytes do it
		grown, err := c.growth(op, f, wants)
		if err != nil {
			return false, err
		}
		kept = kept && grown
	}
	if !kept {
		c.d.lost[op] = true
		c.drop(op)
	}
	return kept, nil
}

// size decides about the early size of an operation.
func (c *cutting) size(op *Op, named bool) error {
	keeps := c.keepsSize(op)
	if keeps && !op.sized && !op.durable {
		if why := c.l.model.refuses(op, &c.d, op.OldSize, op.early); why != nil {
			keeps = false
			if named {
				if err := c.refuse(op, why); err != nil {
					return err
				}
			}
		}
	}
	if keeps {
		c.step(op, Step{Off: op.early, Resize: true, Grow: true})
	} else if op.Number < c.d.orderedAt {
		c.d.ordered, c.d.orderedAt = op, op.Number
	}
	return nil
}

// keepsSize reports whether the early size of an operation survives.
func (c *cutting) keepsSize(op *Op) bool {
	switch {
	case op.sized || op.durable:
		return true
	case c.choose.Random:
		return op.Number < c.end
	}
	return op.Number <= c.last || c.named(op)
}

// growth decides about the new size that an operation gives its file, apart from bytes.
func (c *cutting) growth(op *Op, f *droppedBytes, want bool) (kept bool, err error) {
	if want && !op.durable {
		if why := c.forbidsSize(op, f, op.OldSize, op.Size); why != nil {
			want, err = false, c.refuse(op, why)
		}
	}
	switch {
	case want:
		c.step(op, Step{Off: op.Size, Resize: true, Grow: true})
	case f.growth == nil:
		f.growth = op
	}
	return want, err
}

// forbidsPart returns what the bytes from off to end of an operation cannot do without.
func (c *cutting) forbidsPart(op *Op, f *droppedBytes, off, end int64) *lack {
	if missing := f.parts[off/c.part]; missing != nil {
		return &lack{missing, "writes of one page survive in their order, and %s is before it"}
	}
	return c.forbidsSize(op, f, off, end)
}

// forbidsSize is forbidsPart without regard to bytes that were there before.
func (c *cutting) forbidsSize(op *Op, f *droppedBytes, off, end int64) *lack {
	if f.cut != nil && end > f.cutFrom/c.part*c.part {
		return &lack{f.cut, "it is about bytes that %s cut off or added before"}
	}
	return c.l.model.refuses(op, &c.d, off, end)
}
