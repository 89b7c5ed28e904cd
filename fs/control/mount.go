package control

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"mapfs/fs"
	"mapfs/mapping/explicit"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/share"
	"mapfs/mapping/sys"
)

// Session is a mount with a control tree.
type Session struct {
	*fs.Session
	tree *Tree
}

// Mount mounts opts.Backing on opts.Mountpoint with a control tree; see [fs.Mount].
func Mount(opts Options) (*Session, error) {
	t := newTree(opts)
	opts.Subtree, opts.Observer = t, t.events
	s, err := fs.Mount(opts.Options)
	if err != nil {
		return nil, err
	}
	return &Session{s, t}, nil
}

// MetricsHandler serves the session's metrics over HTTP.
func (s *Session) MetricsHandler() http.Handler {
	return promhttp.HandlerFor(s.tree.metrics, promhttp.HandlerOpts{})
}

func newTree(opts Options) *Tree {
	t := &Tree{opts: opts, name: opts.Control, since: time.Now(), events: newEventLog(), verbs: verbs()}
	switch t.name {
	case "":
		t.name = DefaultName
	case NoTree:
		t.name = ""
	}
	t.nodes.init(entriesFor(opts.History != nil))
	return t
}

// texts that are open can take so many bytes, and fewer where memory is scarce.
const (
	maxTexts      = 64 << 20
	maxTightTexts = 4 << 20
)

// Attach is [fs.Subtree]'s. It refuses a backing directory that has an entry of the
// tree's name: the entry could not be reached.
func (t *Tree) Attach(s *fs.Session, backing int) error {
	t.s, t.changed = s, s.Changed
	if err := t.reserve(s.Options().Backing, backing); err != nil {
		t.s = nil
		return err
	}
	t.uid, t.gid = s.Owner()
	space := sys.FreeAddressSpace()
	most := int64(maxTexts)
	if space < fs.TightSpace {
		most = maxTightTexts
	}
	t.texts = share.NewPool(most, s.Options().AllowOther)
	t.kernel = pagestate.Probe(backing)
	t.metrics = newMetrics(t)
	t.arena = explicit.NewArena(s.Log(), space/4)
	return nil
}

func (t *Tree) reserve(path string, fd int) error {
	if t.name == "" {
		return nil
	}
	if err := fs.CheckName(t.name); err != nil {
		return fmt.Errorf("%q cannot be the control tree's name: %w", t.name, err)
	}
	if n, err := fs.RemoveLeftStash(fd, t.name); err != nil {
		return err
	} else if n > 0 {
		t.s.Log().Warn("removed what clients of an earlier mount had removed: its daemon was killed", "files", n)
	}
	var st unix.Stat_t
	if unix.Fstatat(fd, t.name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return fmt.Errorf("%s has an entry %q, which is the control tree's name; rename it, or mount with -o control=NAME or -o control=none", path, t.name)
	}
	return nil
}

// Close is [fs.Subtree]'s.
func (t *Tree) Close() {
	if t.s == nil {
		return // Attach refused
	}
	t.kernel.Close()
	t.arena.Close()
}

// Descriptors is [fs.Subtree]'s: each explicit mapping keeps its file open.
func (t *Tree) Descriptors() int64 { return int64(t.arena.Count()) }
