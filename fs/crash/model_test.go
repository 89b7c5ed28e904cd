package crash

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"strings"
	"testing"
)

// The tests hold the log to a model of it that is plain and slow: it keeps every operation
// ever, compares each with each, and replays them from an empty tree. Pages have four
// bytes, so that a few bytes make many of them.
const testPage = 4

// world is a small tree, made by operations.
type world struct {
	dirs  map[Inode]map[string]Inode
	files map[Inode][]byte
	attrs map[Attribute]string
}

func newWorld() *world {
	return &world{map[Inode]map[string]Inode{1: {}}, map[Inode][]byte{}, map[Attribute]string{}}
}

// slow is the slow model.
type slow struct {
	model   string
	ops     []*slowOp
	commits int // how many operations there were at the last commit of the journal
}

type slowOp struct {
	Op
	data       []byte
	waits      map[Inode]bool
	durable    bool
	synced     bool // a sync of the file itself has it
	flushed    int
	settledAll bool
}

func (o *slowOp) entries() []Entry {
	if o.Kind == Rename {
		return []Entry{o.Entry, o.To}
	}
	return []Entry{o.Entry}
}

func (o *slowOp) parts() (parts []int64) {
	for at := o.Off / testPage; o.Length > 0 && at*testPage < o.Off+o.Length; at++ {
		parts = append(parts, at)
	}
	return parts
}

// needs reports whether j cannot survive without i, which is earlier.
func (s *slow) needs(i, j *slowOp) bool {
	switch {
	case i.Kind.isName() && j.Kind.isName():
		for _, a := range i.entries() {
			for _, b := range j.entries() {
				if a == b {
					return true
				}
			}
			if a.Dir == j.emptied() {
				return true
			}
		}
		if i.Kind == Rename && i.IsDir && i.Entry.Dir != i.To.Dir && slices.Contains(j.Above, i.Inode) {
			return true
		}
	case i.Kind.isData() && j.Kind.isData() && i.Inode == j.Inode:
		if i.Kind == Truncate && j.Kind == Truncate {
			return true
		}
		if i.Kind == Truncate && j.extends() {
			return true
		}
		if i.Kind == Truncate {
			from := min(i.Size, i.OldSize) / testPage
			for _, part := range j.parts() {
				if part >= from {
					return true
				}
			}
		}
		if i.Kind != Truncate && j.Kind != Truncate {
			for _, part := range i.parts() {
				if slices.Contains(j.parts(), part) && !s.cutBetween(i, j, part*testPage) {
					return true
				}
			}
			if s.model == "ext4" && i.extends() && j.extends() && !s.cutBetween(i, j, i.OldSize) {
				return true
			}
		}
	case !i.Kind.isData() && !j.Kind.isData() && !i.Kind.isName() && !j.Kind.isName():
		if i.Inode == j.Inode && i.Attr == j.Attr {
			return true
		}
	}
	if s.model != "ext4" {
		return false
	}
	ordered := func(o *slowOp) bool { return !o.Kind.isData() || o.Kind == Truncate }
	if ordered(i) && (ordered(j) || j.extends()) {
		return true
	}
	if i.flushed > 0 && int(j.Number) > i.flushed && (ordered(j) || j.extends()) {
		return true
	}
	return j.replaces() && i.Inode == j.Inode && i.Kind.isData() && i.extends() && i.Kind != Truncate && !s.cutBetween(i, j, i.OldSize)
}

// cutBetween reports whether a truncation between two operations took everything from at on.
func (s *slow) cutBetween(i, j *slowOp, at int64) bool {
	for _, t := range s.ops[i.Number : j.Number-1] {
		if t.Kind == Truncate && t.Inode == i.Inode && t.Size <= at {
			return true
		}
	}
	return false
}

// sync is what a sync makes durable.
func (s *slow) sync(y Sync) {
	mark := func(o *slowOp) { o.durable = true }
	commit := s.model == "ext4"
	if commit {
		commit = false
		for _, o := range s.ops {
			isNew := int(o.Number) > s.commits
			in := o.inodes()
			if isNew && !y.DataOnly && slices.Contains(in[:], y.Inode) ||
				isNew && o.Inode == y.Inode && (o.Kind < Link || o.Kind.isData() && o.Size != o.OldSize) ||
				o.Inode == y.Inode && o.Kind.isData() && !o.durable && o.extends() {
				commit = true
			}
		}
		// What no pending operation speaks of any more is taken for unchanged.
		commit = commit && s.mentioned(y.Inode)
	}
	if commit {
		s.commits = len(s.ops)
	}
	for _, o := range s.ops {
		switch {
		case o.Kind.isData() && o.Inode == y.Inode:
			mark(o)
			o.synced = true
		case s.model == "ext4" && commit && (!o.Kind.isData() || o.Kind == Truncate || o.flushed > 0):
			mark(o)
		case s.model == "posix" && o.Kind.isName():
			delete(o.waits, y.Inode)
			if len(o.waits) == 0 {
				mark(o)
			}
		case s.model == "posix" && !o.Kind.isData() && o.Inode == y.Inode && !y.DataOnly:
			mark(o)
		}
	}
	for again := true; again; {
		again = false
		for _, j := range s.ops {
			for _, i := range s.ops[:j.Number-1] {
				dataToo := j.replaces() && s.model == "ext4"
				if j.durable && !i.durable && !j.Kind.isData() && (!i.Kind.isData() || dataToo && i.Inode == j.Inode) && s.needs(i, j) {
					mark(i)
					again = true
				}
			}
		}
	}
}

// mentioned reports whether an operation in the log needs the inode.
func (s *slow) mentioned(inode Inode) bool {
	for _, o := range s.ops {
		in := o.inodes()
		if slices.Contains(in[:], inode) && (!o.durable || o.Kind.isData() && !o.synced) {
			return true
		}
	}
	return false
}

func (s *slow) closed(inode Inode) {
	truncated := false
	for _, o := range s.ops {
		if o.Inode != inode || !o.Kind.isData() || o.synced {
			continue
		}
		truncated = truncated || o.Kind == Truncate && o.Size == 0
		if truncated && o.Kind != Truncate && o.extends() && o.flushed == 0 && !o.durable {
			o.flushed = len(s.ops)
		}
	}
}

// legal reports whether a set of pending operations can survive.
func (s *slow) legal(keep map[uint64]bool) bool {
	for _, j := range s.ops {
		for _, i := range s.ops[:j.Number-1] {
			if !j.durable && keep[j.Number] && !i.durable && !keep[i.Number] && s.needs(i, j) {
				return false
			}
		}
	}
	return true
}

// world replays what is durable and what is kept.
func (s *slow) world(keep map[uint64]bool) *world {
	w := newWorld()
	for _, o := range s.ops {
		switch o.Kind {
		case Mkdir:
			w.dirs[o.Inode] = map[string]Inode{}
		case Create, Symlink, Mknod:
			w.files[o.Inode] = nil
		}
	}
	for _, o := range s.ops {
		if !o.durable && !keep[o.Number] {
			continue
		}
		w.do(&o.Op, o.data)
	}
	return w
}

func (w *world) do(o *Op, data []byte) {
	switch {
	case o.Kind == Unlink || o.Kind == Rmdir:
		delete(w.dirs[o.Entry.Dir], o.Entry.Name)
	case o.Kind == Rename:
		delete(w.dirs[o.Entry.Dir], o.Entry.Name)
		w.dirs[o.To.Dir][o.To.Name] = o.Inode
	case o.Kind.isName():
		w.dirs[o.Entry.Dir][o.Entry.Name] = o.Inode
	case o.Kind == Truncate:
		w.files[o.Inode] = resized(w.files[o.Inode], o.Size)
	case o.Kind == Fallocate:
		f := w.files[o.Inode]
		for at := o.Off; at < min(o.Off+o.Length, int64(len(f))); at++ {
			f[at] = 0
		}
		if o.extends() {
			w.files[o.Inode] = resized(f, max(o.Size, int64(len(f))))
		}
	case o.Kind.isData():
		f := resized(w.files[o.Inode], max(o.Off+int64(len(data)), int64(len(w.files[o.Inode]))))
		copy(f[o.Off:], data)
		w.files[o.Inode] = f
	default:
		w.attrs[Attribute{o.Inode, o.Attr}] = string(o.New)
	}
}

func resized(b []byte, size int64) []byte {
	out := make([]byte, size)
	copy(out, b)
	return out
}

// String lists what can be reached.
func (w *world) String() string {
	var lines []string
	var walk func(dir Inode, path string, depth int)
	walk = func(dir Inode, path string, depth int) {
		if depth > 50 {
			lines = append(lines, path+" CIRCLE")
			return
		}
		for name, inode := range w.dirs[dir] {
			at := path + "/" + name
			text := fmt.Sprintf("%s %d %q", at, inode, w.attrs[Attribute{inode, "mode"}])
			if w.dirs[inode] != nil {
				walk(inode, at, depth+1)
			} else {
				text += fmt.Sprintf(" %q", w.files[inode])
			}
			lines = append(lines, text)
		}
	}
	walk(1, "", 0)
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// apply does to base, which has what the syncs of files themselves have made durable, what
// a state says.
func apply(t *testing.T, base *world, state *State) {
	t.Helper()
	for e, inode := range state.Names {
		if inode == 0 {
			delete(base.dirs[e.Dir], e.Name)
		} else {
			base.dirs[e.Dir][e.Name] = inode
		}
	}
	for a, value := range state.Attrs {
		base.attrs[a] = string(value)
	}
	for inode, steps := range state.Files {
		for _, step := range steps {
			f := base.files[inode]
			switch {
			case step.Resize && (!step.Grow || step.Off > int64(len(f))):
				base.files[inode] = resized(f, step.Off)
			case step.Resize:
			case step.IsZero():
				for at := step.Off; at < min(step.Off+step.Length, int64(len(f))); at++ {
					f[at] = 0
				}
			default:
				p := make([]byte, step.Length)
				if err := step.Read(p, 0); err != nil {
					t.Fatal(err)
				}
				f = resized(f, max(step.Off+step.Length, int64(len(f))))
				copy(f[step.Off:], p)
				base.files[inode] = f
			}
		}
	}
}

// base is the world that syncs of files themselves have made: what a caller has stored.
func (s *slow) base() *world {
	w := s.world(nil)
	for i := range w.files {
		w.files[i] = nil
	}
	for _, o := range s.ops {
		if o.Kind.isData() && o.synced {
			w.do(&o.Op, o.data)
		}
	}
	return w
}

// player makes random operations that can happen.
type player struct {
	random *rand.Rand
	now    *world
	next   Inode
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func (p *player) dirs() (dirs []Inode) {
	var walk func(Inode)
	walk = func(d Inode) {
		dirs = append(dirs, d)
		for _, i := range p.now.dirs[d] {
			if p.now.dirs[i] != nil {
				walk(i)
			}
		}
	}
	walk(1)
	slices.Sort(dirs)
	return dirs
}

// entry returns a random name, and what it leads to.
func (p *player) entry() (Entry, Inode) {
	e := Entry{pick(p.random, p.dirs()), pick(p.random, []string{"a", "b", "c"})}
	return e, p.now.dirs[e.Dir][e.Name]
}

// above returns the directories from d up to the root.
func (p *player) above(d Inode) []Inode {
	dirs := []Inode{d}
	for d != 1 {
		for _, up := range p.dirs() {
			for _, i := range p.now.dirs[up] {
				if i == d {
					d = up
					dirs = append(dirs, d)
				}
			}
		}
	}
	return dirs
}

func (p *player) linked(inode Inode) bool {
	for _, d := range p.dirs() {
		for _, i := range p.now.dirs[d] {
			if i == inode {
				return true
			}
		}
	}
	return false
}

// step returns a random operation and its bytes, or false if it could not happen.
func (p *player) step() (op Op, data []byte, ok bool) {
	e, inode := p.entry()
	isDir := p.now.dirs[inode] != nil
	op = Op{Entry: e, Inode: inode, IsDir: isDir, Path: e.Name}
	switch p.random.IntN(12) {
	case 0, 1:
		if inode != 0 {
			return op, nil, false
		}
		p.next++
		op.Kind, op.Inode = Create, p.next
		p.now.files[op.Inode] = nil
	case 2:
		if inode != 0 {
			return op, nil, false
		}
		p.next++
		op.Kind, op.Inode, op.IsDir = Mkdir, p.next, true
		p.now.dirs[op.Inode] = map[string]Inode{}
	case 3:
		if inode == 0 || isDir && len(p.now.dirs[inode]) > 0 {
			return op, nil, false
		}
		op.Kind = Unlink
		if isDir {
			op.Kind = Rmdir
		}
	case 4:
		to, other := p.entry()
		if inode == 0 || isDir || other != 0 {
			return op, nil, false
		}
		op.Kind, op.Entry = Link, to
	case 5, 6:
		to, other := p.entry()
		if inode == 0 || other == inode || e == to || other != 0 && (isDir != (p.now.dirs[other] != nil) || len(p.now.dirs[other]) > 0) {
			return op, nil, false
		}
		if isDir && slices.Contains(p.above(to.Dir), inode) {
			return op, nil, false
		}
		op.Kind, op.To, op.Replaced, op.ReplacedDir = Rename, to, other, p.now.dirs[other] != nil
		if isDir && e.Dir != to.Dir {
			op.Above = p.above(to.Dir)
		}
	case 7:
		if inode == 0 {
			return op, nil, false
		}
		op.Kind, op.Entry, op.Attr = Chmod, Entry{}, "mode"
		op.Old = []byte(p.now.attrs[Attribute{inode, "mode"}])
		op.New = []byte{byte('0' + p.random.IntN(8))}
	case 8:
		if inode == 0 || isDir {
			return op, nil, false
		}
		size := int64(len(p.now.files[inode]))
		op.Kind, op.Entry, op.OldSize, op.Size = Truncate, Entry{}, size, p.random.Int64N(20)*p.random.Int64N(2)
	default:
		if inode == 0 || isDir {
			return op, nil, false
		}
		size := int64(len(p.now.files[inode]))
		op.Kind, op.Entry, op.OldSize = Write, Entry{}, size
		op.Off, op.Length = p.random.Int64N(min(size+3, 20)), 1+p.random.Int64N(9)
		op.Size = max(size, op.Off+op.Length)
		data = make([]byte, op.Length)
		for i := range data {
			data[i] = byte('A' + p.random.IntN(26))
		}
		if p.random.IntN(6) == 0 {
			op.Kind = Fallocate
			clear(data)
			op.Length = max(min(op.Off+op.Length, size)-op.Off, 0)
			if p.random.IntN(2) == 0 {
				op.Size = size
			}
			data = nil
			if op.Length == 0 && !op.extends() {
				return op, nil, false
			}
		}
	}
	p.now.do(&op, data)
	return op, data, true
}

// play runs random operations and syncs, and compares.
func play(t *testing.T, model Model, seed uint64, steps int) {
	p := &player{random: rand.New(rand.NewPCG(seed, 1)), now: newWorld(), next: 1}
	l, err := New(Options{Model: model, PageSize: testPage, MaxMemory: segmentSize, Dir: os.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &slow{model: model.Name()}
	for range steps {
		switch p.random.IntN(8) {
		case 0:
			y := Sync{Inode: pick(p.random, p.dirs()), DataOnly: p.random.IntN(4) == 0}
			if _, inode := p.entry(); inode != 0 && p.random.IntN(2) == 0 {
				y.Inode = inode
			}
			l.Sync(y)
			s.sync(y)
		case 1:
			if _, inode := p.entry(); inode != 0 {
				l.Closed(inode)
				s.closed(inode)
			}
		default:
			op, data, ok := p.step()
			if !ok {
				continue
			}
			s.ops = append(s.ops, &slowOp{Op: op, data: data})
			last := s.ops[len(s.ops)-1]
			last.waits = map[Inode]bool{}
			for _, e := range last.entries() {
				if op.Kind.isName() {
					last.waits[e.Dir] = true
				}
			}
			var err error
			if op.Bytes, err = l.Keep(data); err != nil {
				t.Fatal(err)
			}
			l.Add(&op)
			last.Number = op.Number
		}
	}
	compare(t, l, s, p)
}

func compare(t *testing.T, l *Log, s *slow, p *player) {
	var got, want []uint64
	l.Pending(func(op *Op, _ []string) bool {
		got = append(got, op.Number)
		return true
	})
	for _, o := range s.ops {
		if !o.durable {
			want = append(want, o.Number)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("pending %v, want %v\n%s", got, want, s.list())
	}
	sets := [][]uint64{nil, want}
	for range 12 {
		var set []uint64
		for _, n := range want {
			if p.random.IntN(3) > 0 {
				set = append(set, n)
			}
		}
		sets = append(sets, set)
	}
	for at := range want {
		sets = append(sets, want[:at])
	}
	for _, set := range sets {
		keep := map[uint64]bool{}
		for _, n := range set {
			keep[n] = true
		}
		state, err := l.Cut(Choice{Keep: set})
		if legal := s.legal(keep); legal != (err == nil) {
			t.Fatalf("keep %v: legal %v, but %v\n%s", set, legal, err, s.list())
		}
		if err != nil {
			continue
		}
		left := s.base()
		apply(t, left, state)
		if got, want := left.String(), s.world(keep).String(); got != want {
			t.Fatalf("keep %v leaves\n%s\nwant\n%s\noperations\n%s", set, got, want, s.list())
		}
		if state.Kept != len(set) || len(state.Lost) != len(want)-len(set) {
			t.Fatalf("keep %v: %d kept, %d lost of %d", set, state.Kept, len(state.Lost), len(want))
		}
	}
	for seed := range uint64(10) {
		state, err := l.Cut(Choice{Random: true, Seed: seed, Torn: 2 * int64(seed%2)})
		if err != nil {
			t.Fatal(err)
		}
		left := s.base()
		apply(t, left, state)
		if strings.Contains(left.String(), "CIRCLE") {
			t.Fatalf("seed %d: a circle\n%s", seed, s.list())
		}
	}
	// What is sure is what is left when nothing else is.
	sure := s.world(nil)
	base := s.base()
	for inode, f := range sure.files {
		p := make([]byte, 64)
		stored := base.files[inode]
		n, err := l.ReadDurable(inode, p, 0, int64(len(stored)), func(p []byte, off int64) (int, error) {
			return copy(p, stored[min(off, int64(len(stored))):]), nil
		})
		if err != nil || !bytes.Equal(p[:n], f) || l.DurableSize(inode, int64(len(stored))) != int64(len(f)) {
			t.Fatalf("inode %d: %q (size %d), %v; want %q\n%s", inode, p[:n], l.DurableSize(inode, int64(len(stored))), err, f, s.list())
		}
	}
}

func (s *slow) list() string {
	var b strings.Builder
	for _, o := range s.ops {
		fmt.Fprintf(&b, "%d %v inode %d %v %v replaced %d off %d length %d size %d-%d durable %v flushed %d %q\n",
			o.Number, o.Kind, o.Inode, o.Entry, o.To, o.Replaced, o.Off, o.Length, o.OldSize, o.Size, o.durable, o.flushed, o.data)
	}
	return b.String()
}

func TestModels(t *testing.T) {
	for _, model := range Models() {
		t.Run(model.Name(), func(t *testing.T) {
			for seed := range uint64(1200) {
				play(t, model, seed, 4+int(seed%60))
			}
		})
	}
}

func FuzzModels(f *testing.F) {
	f.Add(uint64(1), 40)
	f.Fuzz(func(t *testing.T, seed uint64, steps int) {
		for _, model := range Models() {
			play(t, model, seed, min(max(steps, 0), 120))
		}
	})
}
