package oracle

import (
	"fmt"
	"sort"
	"strings"

	"mapfs/fs/crash"
)

// World is a small tree.
type World struct {
	Dirs  map[crash.Inode]map[string]crash.Inode
	Files map[crash.Inode][]byte
	Attrs map[crash.Attribute]string
}

// NewWorld returns an empty tree.
func NewWorld() *World {
	return &World{
		Dirs: map[crash.Inode]map[string]crash.Inode{Root: {}}, Files: make(map[crash.Inode][]byte), Attrs: make(map[crash.Attribute]string),
	}
}

// Do does an operation, whose bytes are data.
func (w *World) Do(op *crash.Op, data []byte) {
	file := w.Files[op.Inode]
	switch {
	case op.Kind == crash.Unlink || op.Kind == crash.Rmdir:
		delete(w.Dirs[op.Entry.Dir], op.Entry.Name)
	case op.Kind == crash.Rename:
		delete(w.Dirs[op.Entry.Dir], op.Entry.Name)
		w.Dirs[op.To.Dir][op.To.Name] = op.Inode
	case isName(op):
		w.Dirs[op.Entry.Dir][op.Entry.Name] = op.Inode
	case op.Kind == crash.Truncate:
		w.Files[op.Inode] = Resized(file, op.Size)
	case op.Kind == crash.Fallocate:
		for at := op.Off; at < min(op.Off+op.Length, int64(len(file))); at++ {
			file[at] = 0
		}
		if longer(op) {
			w.Files[op.Inode] = Resized(file, max(op.Size, int64(len(file))))
		}
	case isData(op):
		file = Resized(file, max(op.Off+int64(len(data)), int64(len(file))))
		copy(file[op.Off:], data)
		w.Files[op.Inode] = file
	default:
		w.Attrs[crash.Attribute{Inode: op.Inode, Name: op.Attr}] = string(op.New)
	}
}

// Resized returns bytes cut, or with zeros added, to a size.
func Resized(b []byte, size int64) []byte {
	out := make([]byte, size)
	copy(out, b)
	return out
}

// maxDepth is more than the depth of any tree without a circle here.
const maxDepth = 50

// Walk calls fn for everything that can be reached, with its path.
func (w *World) Walk(fn func(path string, inode crash.Inode, depth int)) {
	var walk func(dir crash.Inode, path string, depth int)
	walk = func(dir crash.Inode, path string, depth int) {
		for name, inode := range w.Dirs[dir] {
			at := path + "/" + name
			fn(at, inode, depth)
			if w.Dirs[inode] != nil && depth < maxDepth {
				walk(inode, at, depth+1)
			}
		}
	}
	walk(Root, "", 0)
}

// IsRound reports whether directories go round in a circle.
func (w *World) IsRound() (round bool) {
	w.Walk(func(_ string, _ crash.Inode, depth int) { round = round || depth == maxDepth })
	return round
}

// String lists what can be reached.
func (w *World) String() string {
	var lines []string
	w.Walk(func(path string, inode crash.Inode, _ int) {
		mode := w.Attrs[crash.Attribute{Inode: inode, Name: "mode"}]
		if w.Dirs[inode] != nil {
			lines = append(lines, fmt.Sprintf("%s directory %q", path, mode))
		} else {
			lines = append(lines, fmt.Sprintf("%s %q %q", path, mode, w.Files[inode]))
		}
	})
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}
