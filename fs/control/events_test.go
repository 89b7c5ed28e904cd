package control

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/mapping"
	"mapfs/mapping/paging"
)

// TestEventLines has the line of every kind of event.
func TestEventLines(t *testing.T) {
	page := paging.PageSize
	for _, c := range []struct {
		event mapping.Event
		want  string
	}{
		{mapping.Event{Kind: mapping.EventRead, Name: "f", Off: 1, Length: 2}, "read f offset=1 length=2"},
		{mapping.Event{Kind: mapping.EventWrite, Name: "d/f", Off: 1, Length: 2, PID: 3}, "write d/f offset=1 length=2 pid=3"},
		{mapping.Event{Kind: mapping.EventStore, Name: "f", Off: page, Length: page}, fmt.Sprintf("store f offset=%d length=%d", page, page)},
		{mapping.Event{Kind: mapping.EventExtend, Name: "f", Off: 5, Length: 3}, "extend f offset=5 length=3"},
		{mapping.Event{Kind: mapping.EventTruncate, Name: "f", Off: 5, Length: 3}, "truncate f from=5 to=3"},
		{mapping.Event{Kind: mapping.EventZero, Name: "f", Off: 5, Length: 3}, "zero f offset=5 length=3"},
		{mapping.Event{Kind: mapping.EventMap, Name: "f", Addr: 0x7f00dead1000, Length: 9}, "map f addr=7f00dead1000 length=9"},
		{mapping.Event{Kind: mapping.EventUnmap, Name: "f", Addr: 0x7f00dead1000, Length: 9}, "unmap f addr=7f00dead1000 length=9"},
		{mapping.Event{Kind: mapping.EventMsync, Name: "f", Length: 9, Pages: 2, Flags: unix.MS_SYNC},
			"msync f flags=sync offset=0 length=9 pages=2 errno=0"},
		{mapping.Event{Kind: mapping.EventMsync, Name: "f", Length: 9, Flags: unix.MS_SYNC | unix.MS_INVALIDATE, Err: syscall.EBUSY},
			"msync f flags=sync,invalidate offset=0 length=9 pages=0 errno=EBUSY"},
		{mapping.Event{Kind: mapping.EventMsync, Name: "f", Flags: unix.MS_SYNC, Err: fmt.Errorf("wrapped: %w", syscall.EIO)},
			"msync f flags=sync offset=0 length=0 pages=0 errno=EIO"},
		{mapping.Event{Kind: mapping.EventMsync, Name: "f", Flags: unix.MS_ASYNC},
			`msync f flags=async offset=0 length=0 pages=0 errno=0 note="MS_ASYNC itself does nothing since Linux 2.6.19; sync_file_range started the write-back"`},
		{mapping.Event{Kind: mapping.EventFault, Name: "f", Addr: 0x1000, Off: 3 * page, Length: page}, "fault f signal=SIGBUS addr=1000 page=3"},
		{mapping.Event{Kind: mapping.EventCopy, Name: "f", Off: 5, Length: 3, Pages: 1, Mapping: "m"}, "copy f offset=5 length=3 pages=1 name=m"},
		{mapping.Event{Kind: mapping.EventMap, Name: "f", Addr: 0x1000, Length: 9, Mapping: "a b"}, `map f addr=1000 length=9 name="a b"`},
		{mapping.Event{Kind: mapping.EventFault, Name: "f", Addr: 0x1000, Off: page, Signal: syscall.SIGSEGV, Mapping: "m"}, "fault f signal=SIGSEGV addr=1000 page=1 name=m"},
		{mapping.Event{Kind: mapping.EventFault, Name: "f", Addr: 0x1000, Signal: syscall.SIGBUS, Mapping: "m"}, "fault f signal=SIGBUS addr=1000 page=0 name=m"},
		{mapping.Event{Kind: mapping.EventInvalidate, Name: "f", Off: 0, Length: page}, fmt.Sprintf("invalidate f offset=0 length=%d", page)},
		{mapping.Event{Kind: mapping.EventEvict, Name: "f"}, "evict f"},
		{mapping.Event{Kind: mapping.EventOpen, Name: "f", Flags: unix.O_RDWR | unix.O_CREAT | unix.O_APPEND | unix.O_SYNC, PID: 7},
			"open f flags=rdwr,append,creat,sync,dsync pid=7"},
		{mapping.Event{Kind: mapping.EventOpen, Name: "f", Flags: unix.O_RDONLY}, "open f flags=rdonly pid=0"},
		{mapping.Event{Kind: mapping.EventClose, Name: "f", Flags: unix.O_WRONLY | unix.O_DSYNC}, "close f flags=wronly,dsync"},
		// Names that are none, or hard to show.
		{mapping.Event{Kind: mapping.EventEvict}, "evict -"},
		{mapping.Event{Kind: mapping.EventEvict, Name: "a b\n\xff"}, `evict "a b\n\xff"`},
	} {
		at := time.Date(2026, 11, 22, 23, 40, 0, 123456789, time.FixedZone("", 2*3600))
		got := string(appendEvent(nil, 42, &loggedEvent{at, c.event}))
		if want := "2026-11-22T21:40:00.123456Z 42 " + c.want + "\n"; got != want {
			t.Errorf("got  %swant %s", got, want)
		}
	}
}

// numbers takes the text of events apart: the numbers of the events, and how many
// are said to be lost before each.
func numbers(t *testing.T, text string) (seqs []uint64, lost map[uint64]uint64) {
	t.Helper()
	line := regexp.MustCompile(`^\S+Z (\d+) ([a-z]+) (\S+)(?: n=(\d+))?( .*)?$`)
	lost = make(map[uint64]uint64)
	pending := uint64(0)
	for l := range strings.Lines(text) {
		m := line.FindStringSubmatch(strings.TrimSuffix(l, "\n"))
		if m == nil {
			t.Fatalf("a strange line: %q", l)
		}
		seq, _ := strconv.ParseUint(m[1], 10, 64)
		if m[2] == "lost" {
			n, err := strconv.ParseUint(m[4], 10, 64)
			if err != nil || n == 0 || m[3] != "-" {
				t.Fatalf("a strange lost line: %q", l)
			}
			pending += n
			continue
		}
		seqs = append(seqs, seq)
		lost[seq] = pending
		pending = 0
	}
	return seqs, lost
}

// happen makes n events.
func happen(l *eventLog, n int) {
	for i := range n {
		l.Observe(mapping.Event{Kind: mapping.EventWrite, Name: "some/file", Off: int64(i), Length: 1})
	}
}

// reader is a client that reads as read(2) does: it asks for what follows.
type reader struct {
	t   *testing.T
	h   *eventsHandle
	off int64
}

func newReader(t *testing.T, l *eventLog) *reader {
	return &reader{t: t, h: l.open().(*eventsHandle)}
}

// read returns up to size bytes, and nothing at the end.
func (r *reader) read(size int) string {
	r.t.Helper()
	b, err := r.h.read(&call{nonblock: true}, r.off, size)
	if err == syscall.EAGAIN {
		return ""
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.off += int64(len(b))
	return string(b)
}

// all reads to the end by pieces of the given size.
func (r *reader) all(size int) string {
	r.t.Helper()
	var text strings.Builder
	for {
		b := r.read(size)
		if b == "" {
			return text.String()
		}
		text.WriteString(b)
	}
}

// gapless checks that a text's numbers go up one by one, but for what is said to
// be lost, from first to last.
func gapless(t *testing.T, text string, first, last uint64) {
	t.Helper()
	seqs, lost := numbers(t, text)
	next := first
	for _, seq := range seqs {
		if want := next + lost[seq]; seq != want {
			t.Fatalf("event %d comes where %d should, with %d lost", seq, want, lost[seq])
		}
		next = seq + 1
	}
	if next != last+1 {
		t.Fatalf("the last event is %d, want %d", next-1, last)
	}
}

func TestEventsReadInPieces(t *testing.T) {
	l := newEventLog()
	happen(l, 100)
	want := newReader(t, l).all(1 << 20)
	gapless(t, want, 1, 100)
	for _, size := range []int{1, 7, 64, 4096} {
		if got := newReader(t, l).all(size); got != want {
			t.Errorf("in pieces of %d: %d bytes, want %d", size, len(got), len(want))
		}
	}
	if got := l.size(); got != int64(len(want)) {
		t.Errorf("size is %d, want %d", got, len(want))
	}
	// Who is at the end gets what comes, and the numbers go on.
	r := newReader(t, l)
	r.all(1 << 20)
	happen(l, 3)
	gapless(t, r.all(10), 101, 103)
}

// TestEventsRingLoses: with nobody looking, only the newest events are kept, and
// whoever looks then is told how many are gone.
func TestEventsRingLoses(t *testing.T) {
	for _, c := range []struct{ before, after int }{
		{0, eventRing}, {0, eventRing + 1}, {0, 3*eventRing + 17}, {10, eventRing}, {10, eventRing + 1}, {eventRing, 2 * eventRing},
	} {
		l := newEventLog()
		r := newReader(t, l)
		happen(l, c.before)
		first := r.all(1 << 20)
		happen(l, c.after)
		text := first + r.all(1000)
		gapless(t, text, 1, uint64(c.before+c.after))
		_, lost := numbers(t, text)
		sum := uint64(0)
		for _, n := range lost {
			sum += n
		}
		if want := uint64(max(c.after-eventRing, 0)); sum != want {
			t.Errorf("%d events, then %d: %d are lost, want %d", c.before, c.after, sum, want)
		}
		if n := strings.Count(text, " lost - "); n > 1 {
			t.Errorf("%d events, then %d: %d lines of lost", c.before, c.after, n)
		}
	}
}

// TestEventsTextLoses: the text that a fast reader has made is bounded too, and
// a slow reader beside it is told what it lost.
func TestEventsTextLoses(t *testing.T) {
	l := newEventLog()
	slow, fast := newReader(t, l), newReader(t, l)
	happen(l, 10)
	begun := slow.all(1 << 20)
	var seen strings.Builder
	seen.WriteString(fast.all(1 << 20))
	total := 10
	for range 30 {
		happen(l, eventRing/2)
		total += eventRing / 2
		seen.WriteString(fast.all(1 << 20))
	}
	gapless(t, seen.String(), 1, uint64(total)) // who keeps up loses nothing
	if strings.Contains(seen.String(), "lost") {
		t.Error("the fast reader lost something")
	}
	if size := cap(l.text); size > 4*eventText {
		t.Errorf("%d bytes of text are kept", size)
	}
	rest := slow.all(1 << 20)
	if n := strings.Count(rest, " lost - "); n != 1 {
		t.Errorf("the slow reader has %d lines of lost, want 1", n)
	}
	gapless(t, begun+rest, 1, uint64(total))
}

// TestEventsSlowReaderInsideALine: a reader whose line is thrown away while it is
// in the middle of it gets a whole line next.
func TestEventsSlowReaderInsideALine(t *testing.T) {
	l := newEventLog()
	slow, fast := newReader(t, l), newReader(t, l)
	happen(l, 10)
	if got := slow.read(30); len(got) != 30 {
		t.Fatalf("read %q", got)
	}
	for range 30 {
		happen(l, eventRing/2)
		fast.all(1 << 20)
	}
	rest := slow.all(1 << 20)
	if rest[0] != '\n' && !regexp.MustCompile(`^\d{4}-\d\d-\d\dT`).MatchString(rest) {
		t.Errorf("after half a line comes %.80q", rest)
	}
}

// TestEventsConcurrently: observers and readers at once; the observers never wait,
// and the readers' numbers are right.
func TestEventsConcurrently(t *testing.T) {
	l := newEventLog()
	var observers, readers sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		observers.Go(func() {
			for range 5000 {
				happen(l, 1)
			}
		})
	}
	texts := make([]strings.Builder, 3)
	for i := range texts {
		r := newReader(t, l)
		readers.Go(func() {
			for {
				select {
				case <-stop:
					texts[i].WriteString(r.all(4096))
					return
				default:
					texts[i].WriteString(r.read(100 + 1000*i))
				}
			}
		})
	}
	observers.Wait()
	close(stop)
	readers.Wait()
	for i := range texts {
		gapless(t, texts[i].String(), 1, 15000)
	}
}

// TestEventsWait: a reader at the end is woken by the next event, and one that is not at
// the end does not wait.
func TestEventsWait(t *testing.T) {
	l := newEventLog()
	r := newReader(t, l)
	_, seen := r.h.tryRead(0, 100)
	wake := l.waitFor(seen)
	if wake == nil {
		t.Fatal("there is an event before the first")
	}
	select {
	case <-wake:
		t.Fatal("woken without an event")
	case <-time.After(50 * time.Millisecond):
	}
	happen(l, 1)
	select {
	case <-wake:
	case <-time.After(10 * time.Second):
		t.Fatal("the reader still waits")
	}
	if l.waitFor(seen) != nil {
		t.Error("a reader waits for an event that has been")
	}
	if r.read(100) == "" {
		t.Error("nothing was read")
	}
}
