package control

import (
	"bytes"
	"fmt"
	"sync"
	"syscall"
	"time"

	"bazil.org/fuse"
)

func openEvents(t *Tree, _ *node, _ *fuse.Header) handle { return t.events.open() }

func eventsSize(t *Tree, _ *node, _ int64) int64 { return t.events.size() }

// eventsHandle is an open events file.
type eventsHandle struct {
	readOnly
	log     *eventLog
	pollers pollers

	mu sync.Mutex
	// at is where in all the text the reader is, after lines lines; expected
	// is the offset it asks for if it reads on. The two differ for who began
	// after the oldest text was gone.
	at, lines, expected int64
}

// Close ends what waits in poll(2).
func (h *eventsHandle) Close() { h.pollers.release() }

// unknownLines is the line of a reader that went to some offset.
const unknownLines = -1

// open makes a handle. A reader starts with the oldest text there is.
func (l *eventLog) open() handle {
	l.textMu.Lock()
	defer l.textMu.Unlock()
	l.renderLocked()
	return &eventsHandle{log: l, at: l.base, lines: l.lines}
}

// read returns text from where the reader is, and waits for an event at the end.
func (h *eventsHandle) read(c *call, off int64, size int) ([]byte, error) {
	for {
		out, seen := h.tryRead(off, size)
		if len(out) > 0 {
			return out, nil
		}
		if c.nonblock {
			return nil, syscall.EAGAIN
		}
		wake := h.log.waitFor(seen)
		if wake == nil {
			continue
		}
		if err := c.w.Wait(wake); err != nil {
			return nil, err
		}
	}
}

// tryRead returns the text at off as far as there is any, and how many events
// have happened. It does not wait, so that other threads can read and poll.
func (h *eventsHandle) tryRead(off int64, size int) (out []byte, seen uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if off != h.expected {
		h.at, h.lines, h.expected = off, unknownLines, off // a seek: counted from the first byte ever
	}
	out, seen = h.log.take(h, size)
	h.expected += int64(len(out))
	return out, seen
}

// take returns up to size bytes of text from where h is, whole lines if it can,
// and how many events the text holds. A reader that is too far back is moved to
// the oldest text and told how many events it lost. h.mu must be held.
func (l *eventLog) take(h *eventsHandle, size int) (out []byte, seen uint64) {
	l.textMu.Lock()
	defer l.textMu.Unlock()
	l.renderLocked()
	if h.at < l.base {
		if h.lines != unknownLines {
			out = fmt.Appendf(out, "%s %d lost - n=%d\n", eventTime(time.Now()), l.lines, l.lines-h.lines)
		}
		h.at, h.lines = l.base, l.lines
	}
	text := l.text[min(h.at-l.base, int64(len(l.text))):]
	if room := size - len(out); len(text) > room {
		text = text[:max(room, 0)]
		if end := bytes.LastIndexByte(text, '\n'); end >= 0 {
			text = text[:end+1]
		}
	}
	h.at += int64(len(text))
	if h.lines != unknownLines {
		h.lines += int64(bytes.Count(text, newline))
	}
	return append(out, text...), l.rendered
}
