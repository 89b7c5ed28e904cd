package explore

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
)

// root is the inode of the tree's root, in recordings and here.
const root crash.Inode = 1

// inode is a file or directory: what is durable of it.
type inode struct {
	made   crash.Made
	xattrs map[string][]byte
	content
	// entries are those of a directory; names those that lead here.
	entries map[string]crash.Inode
	names   map[crash.Entry]bool
	// sum of all that is below, and of the inode itself; see tree.sum.
	total  sum
	summed bool
}

func (n *inode) kind() uint32  { return n.made.Mode & unix.S_IFMT }
func (n *inode) isDir() bool   { return n.kind() == unix.S_IFDIR }
func (n *inode) hasData() bool { return n.kind() == unix.S_IFREG }

// replay follows a recording: at each place it knows the durable tree, and the log has
// what is pending.
type replay struct {
	recording *crash.Recording
	model     crash.Model
	blind     bool // it leaves bytes out
	log       *crash.Log
	dir       string // of the contents

	inodes map[crash.Inode]*inode
	// known are the recording's numbers of inodes by ours, current the names of the moment.
	known   map[crash.Inode]crash.Inode
	current map[crash.Inode]map[string]crash.Inode
	next    crash.Inode
	// gone are inodes that no crash state has any more.
	gone map[crash.Inode]bool

	promises []promise
	ops      uint64 // how many there were
	reached  uint64 // events
	ended    bool   // there is no event left
	// extremes are the trees of a power cut now that takes nothing, and all, once somebody
	// has asked; they are those after extremesAt events.
	extremes   [2]*tree
	extremesAt uint64
	// version counts what changes the states that a power cut can leave.
	version uint64
}

// promise is a line that somebody has printed, and the number of the operation before.
type promise struct {
	text  string
	after uint64
}

// newReplay returns a replay before the first event. dir must be empty.
func newReplay(r *crash.Recording, model crash.Model, dir string) (*replay, error) {
	p := &replay{
		recording: r, model: model, dir: dir, next: root, gone: make(map[crash.Inode]bool),
		inodes: make(map[crash.Inode]*inode), known: map[crash.Inode]crash.Inode{root: root}, current: make(map[crash.Inode]map[string]crash.Inode),
	}
	var err error
	p.log, err = crash.New(crash.Options{
		Model: model, PageSize: int(r.PageSize), MaxMemory: 1, Dir: dir, Durable: p.durable, // bytes stay in the recording
	})
	if err != nil {
		return nil, err
	}
	if err := p.load(); err != nil {
		p.close()
		return nil, fmt.Errorf("the tree before the recording: %w", err)
	}
	return p, nil
}

// close ends the replay and removes its directory.
func (p *replay) close() {
	p.log.Close()
	_ = RemoveAll(p.dir) // and what stays goes with the directory that it is in
}

// discard removes the file of an inode's bytes.
func (p *replay) discard(n *inode) {
	if n.owned {
		_ = os.Remove(n.path) // and what stays goes with the directory
	}
}

// load reads the tree before the first event.
func (p *replay) load() error {
	type id struct{ dev, ino uint64 }
	seen := make(map[id]crash.Inode)
	top := crash.InitialDir(p.recording.Dir)
	paths := make(map[string]crash.Inode)
	return filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: path, Err: err}
		}
		number, linked := seen[id{st.Dev, st.Ino}]
		if !linked {
			n := &inode{made: crash.Made{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Device: st.Rdev}}
			switch n.kind() {
			case unix.S_IFREG:
				n.content = content{path: path, size: st.Size, disk: st.Size}
			case unix.S_IFLNK:
				target, err := os.Readlink(path)
				if err != nil {
					return err
				}
				n.made.Target = []byte(target)
			}
			if n.xattrs, err = readXattrs(path); err != nil {
				return err
			}
			number = p.add(n)
			seen[id{st.Dev, st.Ino}] = number
		}
		if path == top {
			paths[path] = number
			return nil
		}
		e := crash.Entry{Dir: paths[filepath.Dir(path)], Name: filepath.Base(path)}
		p.link(e, number)
		p.now(e, number)
		if p.inodes[number].isDir() {
			paths[path] = number
		}
		return nil
	})
}

// add gives a new inode its number.
func (p *replay) add(n *inode) crash.Inode {
	number := p.next
	p.next++
	n.home = filepath.Join(p.dir, fmt.Sprint("content-", number))
	n.names = make(map[crash.Entry]bool)
	if n.isDir() {
		n.entries = make(map[string]crash.Inode)
	}
	p.inodes[number] = n
	return number
}

// link makes an entry lead to an inode, 0 for nothing, in the durable tree.
func (p *replay) link(e crash.Entry, to crash.Inode) {
	dir := p.inodes[e.Dir]
	if was := p.inodes[dir.entries[e.Name]]; was != nil {
		delete(was.names, e)
	}
	delete(dir.entries, e.Name)
	if n := p.inodes[to]; n != nil {
		dir.entries[e.Name] = to
		n.names[e] = true
	}
	p.touch(e.Dir)
}

// touch notes that an inode of the durable tree has changed.
func (p *replay) touch(i crash.Inode) {
	n := p.inodes[i]
	if n == nil {
		return
	}
	n.summed = false
	for e := range n.names {
		if up := p.inodes[e.Dir]; up != nil && up.summed {
			p.touch(e.Dir)
		}
	}
}

// now makes an entry lead to an inode, 0 for nothing, in the tree of the moment.
func (p *replay) now(e crash.Entry, to crash.Inode) {
	names := p.current[e.Dir]
	if names == nil {
		names = make(map[string]crash.Inode)
		p.current[e.Dir] = names
	}
	if to == 0 {
		delete(names, e.Name)
	} else {
		names[e.Name] = to
	}
}

// apply follows one event.
func (p *replay) apply(e *crash.Event) error {
	p.reached++
	i := p.known[e.Inode]
	switch e.Kind {
	case crash.EventOp:
		if err := p.op(e); err != nil {
			return fmt.Errorf("operation %d: %w", e.Op.Number, err)
		}
	case crash.EventKnow:
		if dir := p.known[e.Entry.Dir]; i == 0 && dir != 0 {
			if at := p.current[dir][e.Entry.Name]; at != 0 {
				p.known[e.Inode] = at
			}
		}
	case crash.EventPromise:
		p.version++
		p.promises = append(p.promises, promise{e.Text, p.ops})
	case crash.EventReset:
		p.version++
		state, err := p.log.Cut(crash.Choice{All: true})
		if err != nil {
			return err
		}
		p.become(state)
		p.log.Reset()
		p.forgetAll()
	case crash.EventPowerCut:
		return p.powerCut(e)
	case crash.EventEnd, crash.EventBegin:
	default:
		if i != 0 {
			p.sync(e, i)
		}
	}
	return nil
}

// op follows an operation.
func (p *replay) op(e *crash.Event) error {
	op := *e.Op
	p.version++
	p.ops++
	if !p.rename(&op) {
		return errors.New("names a file that is not known")
	}
	for i, dir := range op.Above {
		op.Above[i] = p.known[dir]
	}
	if p.gone[op.Inode] {
		p.log.Add(&op) // for the number
		p.log.Forget(op.Inode)
		return nil
	}
	if op.Kind.HasBytes() {
		op.Bytes = p.recording.Bytes(e)
	}
	op.EachName(p.now)
	p.log.Add(&op)
	return nil
}

// rename gives an operation's inodes our numbers.
func (p *replay) rename(op *crash.Op) bool {
	theirs, theirReplaced := op.Inode, op.Replaced
	if op.Entry.Dir != 0 {
		op.Entry.Dir = p.known[op.Entry.Dir]
	}
	if op.To.Dir != 0 {
		op.To.Dir = p.known[op.To.Dir]
	}
	switch {
	case op.Made != nil:
		op.Inode = p.add(&inode{made: *op.Made})
		p.known[theirs] = op.Inode
	case p.known[theirs] != 0:
		op.Inode = p.known[theirs]
	default:
		op.Inode = p.current[op.Entry.Dir][op.Entry.Name]
		p.known[theirs] = op.Inode
	}
	if theirReplaced != 0 {
		if p.known[theirReplaced] == 0 {
			p.known[theirReplaced] = p.current[op.To.Dir][op.To.Name]
		}
		op.Replaced = p.known[theirReplaced]
	}
	return op.Inode != 0
}

// sync follows an event about what is pending of an inode.
func (p *replay) sync(e *crash.Event, i crash.Inode) {
	p.version++
	switch e.Kind {
	case crash.EventSync:
		p.write(i, p.log.Steps(i))
		for _, touched := range p.log.Sync(crash.Sync{Inode: i, IsDir: e.IsDir, DataOnly: e.DataOnly}) {
			p.forget(touched)
		}
	case crash.EventSyncRange:
		p.write(i, p.log.StepsIn(i, e.Off, e.End))
		p.log.SyncRange(i, e.Off, e.End)
	case crash.EventRevert:
		p.log.Revert(i, e.Off, e.End)
	case crash.EventRevertAll:
		p.log.RevertAll(i)
	case crash.EventAbandon:
		p.log.Abandon(i)
	case crash.EventClosed:
		p.log.Closed(i)
	}
}

// write makes changes of a file's bytes durable.
func (p *replay) write(i crash.Inode, steps []crash.Step) {
	n := p.inodes[i]
	if n == nil || !n.hasData() || len(steps) == 0 || p.blind {
		return
	}
	n.later(steps)
	p.touch(i)
}

// durable makes an operation on names or attributes part of the durable tree.
func (p *replay) durable(op *crash.Op) {
	op.EachName(p.link)
	if op.Attr != "" {
		p.setAttr(op.Inode, op.Attr, op.New)
	}
}

// setAttr makes the value of an attribute durable.
func (p *replay) setAttr(i crash.Inode, attr string, value []byte) {
	n := p.inodes[i]
	if n == nil {
		return
	}
	n.made, n.xattrs = withAttr(n.made, n.xattrs, attr, value)
	p.touch(i)
}

// become makes a state the durable tree.
func (p *replay) become(state *crash.State) {
	for i, steps := range state.Files {
		p.write(i, steps)
	}
	for e, to := range state.Names {
		p.link(e, to)
	}
	for a, value := range state.Attrs {
		p.setAttr(a.Inode, a.Name, value)
	}
}

// powerCut follows a power cut, after which the recording has other numbers for inodes.
func (p *replay) powerCut(e *crash.Event) error {
	if e.Text != p.model.Name() {
		return fmt.Errorf("the power was cut while this was recorded, by the rules of %s: what came after can be explored only with --model %s", e.Text, e.Text)
	}
	state, err := p.log.Cut(*e.Choice)
	if err != nil {
		return err
	}
	p.become(state)
	p.log.PowerFailed(*e.Choice)
	p.forgetAll()
	p.known = map[crash.Inode]crash.Inode{root: root}
	clear(p.current)
	for dir, n := range p.inodes {
		if n.isDir() {
			p.current[dir] = maps.Clone(n.entries)
		}
	}
	return nil
}

// whole returns the tree of a power cut now that takes nothing of what is pending, bare that of
// one that takes all of it.
func (p *replay) whole() (*tree, error) { return p.extreme(0, crash.Choice{All: true}) }
func (p *replay) bare() (*tree, error)  { return p.extreme(1, crash.Choice{}) }

func (p *replay) extreme(which int, choice crash.Choice) (t *tree, err error) {
	if p.extremesAt != p.reached {
		p.extremes, p.extremesAt = [2]*tree{}, p.reached
	}
	if p.extremes[which] == nil {
		if t, err = treeOf(p, choice); err != nil {
			return nil, err
		}
		p.extremes[which] = t
	}
	return p.extremes[which], nil
}

// forget gives up an inode that no crash state has any more.
func (p *replay) forget(i crash.Inode) {
	n := p.inodes[i]
	if i == root || n == nil || len(n.names) > 0 || p.log.References(i).Names > 0 {
		return
	}
	p.log.Forget(i)
	p.discard(n)
	delete(p.inodes, i)
	delete(p.current, i)
	p.gone[i] = true
}

func (p *replay) forgetAll() {
	for i := range p.inodes {
		p.forget(i)
	}
}
