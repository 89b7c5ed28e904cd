package control

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"bazil.org/fuse"

	"mapfs/fs/crash"
)

// promisesHandle is the open file promises: lines that are written there are promises.
type promisesHandle struct {
	snapshot // of those before it was opened
	t        *Tree

	mu   sync.Mutex
	line []byte // has no end yet
}

// maxPromise is how many bytes of a line are one promise at most.
const maxPromise = 64 << 10

func openPromises(t *Tree, _ *node, _ *fuse.Header) handle {
	var b strings.Builder
	t.s.Promises(func(p crash.Promise) bool {
		fmt.Fprintf(&b, "%d %s\n", p.After, p.Text)
		return true
	})
	return &promisesHandle{t: t, snapshot: snapshot{text: b.String()}}
}

// write takes lines, the last of which need not be at its end.
func (h *promisesHandle) write(c *call, p []byte, _ int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line = append(h.line, p...)
	for {
		at := bytes.IndexByte(h.line, '\n')
		rest := at + 1
		if at < 0 {
			if len(h.line) < maxPromise {
				return len(p), nil
			}
			at, rest = maxPromise, maxPromise
		}
		h.t.s.Promise(c.w, string(h.line[:at]))
		h.line = append(h.line[:0], h.line[rest:]...)
	}
}

// Close makes a promise of a last line that has no end.
func (h *promisesHandle) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.line) > 0 {
		h.t.s.Promise(nil, string(h.line))
		h.line = nil
	}
	h.snapshot.Close()
}
