package control

import (
	"errors"
	"strings"
	"sync"

	"bazil.org/fuse"

	"mapfs/fs"
	"mapfs/fs/wire"
	"mapfs/mapping/explicit"
)

// ctlHandle is an open ctl file.
type ctlHandle struct {
	nothingHeld
	target   *fs.Node          // the file whose ctl it is
	explicit *explicit.Mapping // the mapping whose ctl it is; the root's has neither

	mu     sync.Mutex
	answer string
	// start is the offset of the answer: that of the first read after a write.
	start int64
	fresh bool
}

func openCtl(_ *Tree, n *node, _ *fuse.Header) handle {
	return &ctlHandle{target: n.target, explicit: n.explicit}
}

// whose says which commands the file takes.
func (h *ctlHandle) whose() owner {
	switch {
	case h.target != nil:
		return ofFile
	case h.explicit != nil:
		return ofMapping
	}
	return ofMount
}

// write runs the lines of one write(2) in order, up to the first that fails.
func (h *ctlHandle) write(c *call, p []byte, _ int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fresh = true
	answer, err := h.run(c, string(p))
	if err != nil {
		h.answer = err.Error() + "\n"
		return 0, err
	}
	h.answer = answer
	return len(p), nil
}

// run runs lines and returns their answers.
func (h *ctlHandle) run(from *call, text string) (string, error) {
	if len(text) > maxCommand {
		return "", invalid("the command has %d bytes; at most %d are taken", len(text), maxCommand)
	}
	if strings.TrimSpace(text) == "" {
		return "", invalid("the command is empty")
	}
	var answers strings.Builder
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		c, err := parseCommand(line)
		if err != nil {
			return "", err
		}
		c.w = from.w
		v, err := findVerb(from.t.verbs, h.whose(), &c)
		var answer string
		if err == nil {
			answer, err = v.run(from.t, h, &c)
		}
		if err != nil {
			return "", plainRefusal(c.verb, err)
		}
		answers.WriteString(answer + "\n")
	}
	return answers.String(), nil
}

// plainRefusal makes a sentence of an error that is none yet.
func plainRefusal(verb string, err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return err
	}
	return &refusal{wire.ErrnoOf(err), verb + ": " + err.Error()}
}

// read returns the answer to the last write. The reader's offset is wherever its
// write left it; the answer begins there.
func (h *ctlHandle) read(_ *call, off int64, size int) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fresh {
		h.start, h.fresh = off, false
	}
	at := off - h.start
	if at < 0 || at >= int64(len(h.answer)) {
		return nil, nil
	}
	return []byte(h.answer[at:min(at+int64(size), int64(len(h.answer)))]), nil
}
