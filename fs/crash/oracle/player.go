package oracle

import (
	"math/rand/v2"
	"slices"

	"mapfs/fs/crash"
)

// Player makes random operations on a tree that can happen.
type Player struct {
	Random *rand.Rand
	Now    *World
	// Scale stretches offsets and lengths, which are of a few bytes.
	Scale int64
	// Page is the size of a page that no write may go beyond; 0 is none.
	Page int64

	next crash.Inode
}

// NewPlayer returns a player with an empty tree.
func NewPlayer(seed uint64, scale int64) *Player {
	return &Player{Random: rand.New(rand.NewPCG(seed, 1)), Now: NewWorld(), Scale: scale, next: Root}
}

// names are few, so that they are used again and again.
var names = []string{"a", "b", "c"}

// Pick returns one of several.
func Pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// Dirs returns the directories that can be reached.
func (p *Player) Dirs() []crash.Inode {
	dirs := []crash.Inode{Root}
	p.Now.Walk(func(_ string, inode crash.Inode, _ int) {
		if p.Now.Dirs[inode] != nil {
			dirs = append(dirs, inode)
		}
	})
	slices.Sort(dirs)
	return dirs
}

// Path returns where a directory is.
func (p *Player) Path(dir crash.Inode) (path string) {
	p.Now.Walk(func(at string, inode crash.Inode, _ int) {
		if inode == dir {
			path = at
		}
	})
	return path
}

// Entry returns a random name, and what it leads to, 0 for nothing.
func (p *Player) Entry() (crash.Entry, crash.Inode) {
	e := crash.Entry{Dir: Pick(p.Random, p.Dirs()), Name: Pick(p.Random, names)}
	return e, p.Now.Dirs[e.Dir][e.Name]
}

// above returns the directories from dir up to the root.
func (p *Player) above(dir crash.Inode) []crash.Inode {
	up := make(map[crash.Inode]crash.Inode)
	for _, d := range p.Dirs() {
		for _, i := range p.Now.Dirs[d] {
			up[i] = d
		}
	}
	dirs := []crash.Inode{dir}
	for dir != Root {
		dir = up[dir]
		dirs = append(dirs, dir)
	}
	return dirs
}

// Step returns the next operation and its bytes, and has done it; or false, if the one it
// thought of cannot happen.
func (p *Player) Step() (op crash.Op, data []byte, ok bool) {
	e, inode := p.Entry()
	op = crash.Op{Entry: e, Inode: inode, IsDir: p.Now.Dirs[inode] != nil, Path: e.Name}
	switch kind := p.Random.IntN(13); {
	case kind <= 2:
		ok = inode == 0
		p.next++
		op.Inode, op.Kind, op.IsDir = p.next, crash.Create, kind == 2
		if op.IsDir {
			op.Kind = crash.Mkdir
		}
	case kind == 3:
		op.Kind = crash.Unlink
		if op.IsDir {
			op.Kind = crash.Rmdir
		}
		ok = inode != 0 && len(p.Now.Dirs[inode]) == 0
	case kind == 4:
		to, other := p.Entry()
		ok = inode != 0 && !op.IsDir && other == 0
		op.Kind, op.Entry = crash.Link, to
	case kind <= 6:
		ok = p.rename(&op)
	case kind == 7:
		ok = inode != 0
		op.Kind, op.Entry, op.Attr = crash.Chmod, crash.Entry{}, "mode"
		op.Old = []byte(p.Now.Attrs[crash.Attribute{Inode: inode, Name: "mode"}])
		op.New = []byte{byte('4' + p.Random.IntN(4))}
		ok = ok && string(op.Old) != string(op.New)
	case inode == 0 || op.IsDir:
	default:
		op.Entry, op.OldSize = crash.Entry{}, int64(len(p.Now.Files[inode]))
		data, ok = p.bytes(&op, kind)
	}
	if !ok {
		return op, nil, false
	}
	switch op.Kind {
	case crash.Mkdir:
		p.Now.Dirs[op.Inode] = make(map[string]crash.Inode)
	case crash.Create:
		p.Now.Files[op.Inode] = nil
	}
	p.Now.Do(&op, data)
	return op, data, true
}

// rename makes op a rename, if it can.
func (p *Player) rename(op *crash.Op) bool {
	to, other := p.Entry()
	otherDir := p.Now.Dirs[other] != nil
	switch {
	case op.Inode == 0, other == op.Inode, other != 0 && (op.IsDir != otherDir || len(p.Now.Dirs[other]) > 0):
		return false
	case op.IsDir && slices.Contains(p.above(to.Dir), op.Inode):
		return false
	}
	op.Kind, op.To, op.Replaced, op.ReplacedDir = crash.Rename, to, other, otherDir
	if op.IsDir && op.Entry.Dir != to.Dir {
		op.Above = p.above(to.Dir)
	}
	return true
}

// bytes makes op a change of bytes.
func (p *Player) bytes(op *crash.Op, kind int) (data []byte, ok bool) {
	size := op.OldSize
	if kind == 8 {
		op.Kind, op.Size = crash.Truncate, p.Random.Int64N(20*p.Scale)*p.Random.Int64N(2)
		return nil, op.Size != size
	}
	op.Kind = crash.Write
	op.Off, op.Length = p.Random.Int64N(min(size+3*p.Scale, 20*p.Scale)), 1+p.Random.Int64N(9*p.Scale)
	if p.Page > 0 {
		op.Length = min(op.Length, p.Page-op.Off%p.Page)
	}
	op.Size = max(size, op.Off+op.Length)
	if p.Random.IntN(6) > 0 {
		data = make([]byte, op.Length)
		c := byte('A' + p.Random.IntN(26))
		for i := range data {
			data[i] = c + byte(int64(i)/p.Scale%7)
		}
		return data, true
	}
	// What fallocate(2) adds is zero, and so is what it zeroes.
	op.Kind = crash.Fallocate
	if p.Random.IntN(2) == 0 {
		op.Size = size
	}
	op.Length = max(min(op.Off+op.Length, size)-op.Off, 0)
	return nil, op.Length > 0 || op.Size > size
}
