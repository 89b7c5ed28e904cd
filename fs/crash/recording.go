package crash

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Recording is what a log was told, on disk; see [Log.Record]. Its methods may be called
// from many goroutines at a time.
type Recording struct {
	// Dir is where it is, Model the one under which it was made, PageSize in bytes.
	Dir, Model string
	PageSize   int64

	events, bytes *os.File
	// size bytes of events are looked at: more can be coming.
	size int64
}

// OpenRecording opens the recording in a directory, up to what is there by now. Close it.
func OpenRecording(dir string) (*Recording, error) {
	events, err := os.Open(filepath.Join(dir, eventsFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s has no recording: %w", dir, err)
	}
	if err != nil {
		return nil, err
	}
	r := &Recording{Dir: dir, events: events}
	if r.bytes, err = os.Open(filepath.Join(dir, bytesFile)); err != nil {
		events.Close()
		return nil, err
	}
	st, err := events.Stat()
	if err == nil {
		r.size = st.Size()
		err = r.begin()
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("the recording in %s: %w", dir, err)
	}
	return r, nil
}

// begin reads the first event.
func (r *Recording) begin() error {
	found := false
	err := r.lines(func(e *Event) error {
		switch {
		case e.Kind != EventBegin:
			return errors.New("does not begin as one does")
		case e.Version != recordingVersion:
			return fmt.Errorf("is of version %d, and this program reads version %d", e.Version, recordingVersion)
		}
		found = true
		r.Model, r.PageSize = e.Text, e.PageSize
		return errStop
	})
	if err == nil && !found {
		return errors.New("is empty")
	}
	return err
}

// errStop ends lines early.
var errStop = errors.New("stop")

// Close ends its use.
func (r *Recording) Close() {
	r.events.Close()
	r.bytes.Close()
}

// Each calls fn for the events in order, but the first, until it returns an error.
func (r *Recording) Each(fn func(*Event) error) error {
	return r.lines(func(e *Event) error {
		if e.Kind == EventBegin {
			return nil
		}
		return fn(e)
	})
}

// lines calls fn for the events. A last line without an end is not there yet.
func (r *Recording) lines(fn func(*Event) error) error {
	in := bufio.NewReaderSize(io.NewSectionReader(r.events, 0, r.size), 1<<16)
	for number := 1; ; number++ {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("line %d of %s: %w", number, r.events.Name(), err)
		}
		if err := fn(&e); err == errStop {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Bytes returns those that the operation of an event has written; see [Op.Bytes].
func (r *Recording) Bytes(e *Event) Bytes { return BytesAt(r.bytes, e.At) }

// HasBytes reports whether operations of the kind have bytes.
func (k Kind) HasBytes() bool { return k == Write || k == Store }
