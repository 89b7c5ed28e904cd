package control

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/internal/quote"
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
		b = append(b, quote.Path(e.Name)...)
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
	case mapping.EventPowercut:
		b = fmt.Appendf(b, " kept=%d lost=%d bytes=%d", e.Off, e.Pages, e.Length)
	}
	if e.Mapping != "" {
		b = append(append(b, " name="...), quote.Path(e.Mapping)...)
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

// newline ends an event's line.
var newline = []byte{'\n'}
