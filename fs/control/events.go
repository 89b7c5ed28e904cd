package control

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/mapping"
	"mapfs/mapping/paging"
)

// eventRing is how many events are kept for readers that come later or are slow.
const eventRing = 4096

// eventText is how many bytes of rendered events are kept.
const eventText = 1 << 20

// eventLog is what the events file shows. The data path only puts an event into
// the ring; it never waits for a reader. Text is made of the events when
// somebody looks.
type eventLog struct {
	ringMu sync.Mutex
	ring   [eventRing]loggedEvent
	count  uint64 // events so far; the newest is ring[(count-1)%eventRing]

	// wanted says that a reader waits for the next event.
	wanted bool
	wake   chan struct{} // closed when there is one

	// textMu guards the text. It is taken before ringMu.
	textMu   sync.Mutex
	rendered uint64 // events that are in the text, or lost
	text     []byte // the newest text
	base     int64  // where it begins, counted from the first byte ever
	lines    int64  // how many lines came before it
}

// loggedEvent is an event and when it happened.
type loggedEvent struct {
	at time.Time
	mapping.Event
}

func newEventLog() *eventLog { return &eventLog{wake: make(chan struct{})} }

// Observe is [mapping.Observer]'s.
func (l *eventLog) Observe(e mapping.Event) {
	now := time.Now()
	l.ringMu.Lock()
	slot := &l.ring[l.count%eventRing]
	slot.at, slot.Event = now, e
	l.count++
	if l.wanted {
		l.wanted = false
		close(l.wake)
		l.wake = make(chan struct{})
	}
	l.ringMu.Unlock()
}

// waitFor returns a channel that is closed with the first event after the first
// seen ones, or nil if there is one already.
func (l *eventLog) waitFor(seen uint64) <-chan struct{} {
	l.ringMu.Lock()
	defer l.ringMu.Unlock()
	if l.count > seen {
		return nil
	}
	l.wanted = true
	return l.wake
}

// next returns a channel that is closed with the next event.
func (l *eventLog) next() <-chan struct{} {
	l.ringMu.Lock()
	defer l.ringMu.Unlock()
	l.wanted = true
	return l.wake
}

// renderLocked turns the events that happened since into text. l.textMu must be held.
func (l *eventLog) renderLocked() {
	var batch [64]loggedEvent
	for {
		l.ringMu.Lock()
		lost := uint64(0)
		if l.count-l.rendered > eventRing {
			lost = l.count - eventRing - l.rendered
		}
		first := l.rendered + lost
		n := min(l.count-first, uint64(len(batch)))
		for i := range n {
			batch[i] = l.ring[(first+i)%eventRing]
		}
		l.ringMu.Unlock()
		if lost > 0 {
			l.text = fmt.Appendf(l.text, "%s %d lost - n=%d\n", eventTime(time.Now()), first, lost)
		}
		for i := range n {
			l.text = appendEvent(l.text, first+i+1, &batch[i])
		}
		l.rendered = first + n
		if n < uint64(len(batch)) {
			break
		}
	}
	if excess := len(l.text) - eventText; excess > 0 {
		// At a line's beginning, so that no reader starts inside one.
		for excess < len(l.text) && l.text[excess-1] != '\n' {
			excess++
		}
		l.base += int64(excess)
		l.lines += int64(bytes.Count(l.text[:excess], newline))
		l.text = append(l.text[:0], l.text[excess:]...)
	}
}

// eventTime renders the time of an event.
func eventTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

// appendEvent appends the line of an event.
func appendEvent(b []byte, seq uint64, e *loggedEvent) []byte {
	b = e.at.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(b, ' ')
	b = strconv.AppendUint(b, seq, 10)
	b = append(b, ' ')
	b = append(b, e.Kind.String()...)
	b = append(b, ' ')
	if e.Name == "" {
		b = append(b, '-')
	} else {
		b = append(b, quotePath(e.Name)...)
	}
	span := func() {
		b = fmt.Appendf(b, " offset=%d length=%d", e.Off, e.Length)
	}
	switch e.Kind {
	case mapping.EventRead, mapping.EventStore, mapping.EventExtend, mapping.EventZero, mapping.EventInvalidate:
		span()
	case mapping.EventCopy:
		span()
		b = fmt.Appendf(b, " pages=%d", e.Pages)
	case mapping.EventWrite:
		span()
		b = fmt.Appendf(b, " pid=%d", e.PID)
	case mapping.EventTruncate:
		b = fmt.Appendf(b, " from=%d to=%d", e.Off, e.Length)
	case mapping.EventMap, mapping.EventUnmap:
		b = fmt.Appendf(b, " addr=%x length=%d", e.Addr, e.Length)
	case mapping.EventMsync:
		b = fmt.Appendf(b, " flags=%s", msyncFlags(e.Flags))
		span()
		b = fmt.Appendf(b, " pages=%d errno=%s", e.Pages, errnoName(e.Err))
		if e.Flags&unix.MS_ASYNC != 0 {
			b = append(b, ` note="MS_ASYNC itself does nothing since Linux 2.6.19; sync_file_range started the write-back"`...)
		}
	case mapping.EventFault:
		signal := "SIGBUS"
		if e.Signal == syscall.SIGSEGV {
			signal = "SIGSEGV"
		}
		b = fmt.Appendf(b, " signal=%s addr=%x page=%d", signal, e.Addr, e.Off/paging.PageSize)
	case mapping.EventOpen:
		b = fmt.Appendf(b, " flags=%s pid=%d", openFlags(e.Flags), e.PID)
	case mapping.EventClose:
		b = fmt.Appendf(b, " flags=%s", openFlags(e.Flags))
	}
	if e.Mapping != "" {
		b = append(append(b, " name="...), quotePath(e.Mapping)...)
	}
	return append(b, '\n')
}

// size returns how many bytes of text there have been, so that tail(1) sees the
// file grow.
func (l *eventLog) size() int64 {
	l.textMu.Lock()
	defer l.textMu.Unlock()
	l.renderLocked()
	return l.base + int64(len(l.text))
}

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

// newline ends an event's line.
var newline = []byte{'\n'}
