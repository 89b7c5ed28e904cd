package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// The files of a recording: its events, a JSON object a line, the bytes that they write,
// one after the other, and the directory with the tree before the first event, which is
// the caller's business.
const (
	eventsFile = "events"
	bytesFile  = "bytes"
	initialDir = "initial"
)

// InitialDir returns the directory of a recording for the tree before the first event.
func InitialDir(recording string) string { return filepath.Join(recording, initialDir) }

// EventsFile returns the file of a recording that has its events, a JSON object a line.
func EventsFile(recording string) string { return filepath.Join(recording, eventsFile) }

// recorder writes what a log is told.
type recorder struct {
	events, bytes *os.File
	at            int64 // of the file of bytes
	buf           []byte
	err           error // the first; nothing is written after it
}

// newRecorder begins a recording in a directory, in which there may be none.
func newRecorder(dir, model string, pageSize int64) (*recorder, error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	events, err := os.OpenFile(filepath.Join(dir, eventsFile), flags, 0o666)
	if err != nil {
		return nil, err
	}
	bytes, err := os.OpenFile(filepath.Join(dir, bytesFile), flags, 0o666)
	if err != nil {
		events.Close()
		return nil, err
	}
	r := &recorder{events: events, bytes: bytes}
	r.write(Event{Kind: EventBegin, Version: recordingVersion, Text: model, PageSize: pageSize})
	return r, r.err
}

// write writes an event.
func (r *recorder) write(e Event) {
	if r == nil || r.err != nil {
		return
	}
	line, err := json.Marshal(e)
	if err == nil {
		_, err = r.events.Write(append(line, '\n'))
	}
	r.err = err
}

// op writes an operation with its bytes.
func (r *recorder) op(op *Op, s *byteStore) {
	if r == nil || r.err != nil {
		return
	}
	at := r.at
	if op.Bytes.first.in != nil {
		if int64(cap(r.buf)) < op.Length {
			r.buf = make([]byte, op.Length)
		}
		p := r.buf[:op.Length]
		if r.err = s.read(&op.Bytes, 0, p); r.err != nil {
			return
		}
		if _, r.err = r.bytes.Write(p); r.err != nil {
			return
		}
		r.at += op.Length
	}
	r.write(Event{Kind: EventOp, Op: op, At: at})
}

// close ends the recording.
func (r *recorder) close() error {
	r.write(Event{Kind: EventEnd})
	return errors.Join(r.err, r.bytes.Close(), r.events.Close())
}

// Promise is what somebody says to have made durable, and the number of the newest
// operation at that time.
type Promise struct {
	After uint64
	Text  string
}

// maxPromises bounds the bytes of the promises that are kept in memory.
const maxPromises = 1 << 20

// Promise notes a promise. Of very many the oldest are given up, but by the recording.
func (l *Log) Promise(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.promises = append(l.promises, Promise{l.last, text})
	l.promised += len(text)
	for l.promised > maxPromises && len(l.promises) > 1 {
		l.promised -= len(l.promises[0].Text)
		l.promises = l.promises[1:]
	}
	l.recorder.write(Event{Kind: EventPromise, Text: text})
}

// Promises calls yield for the promises in order.
func (l *Log) Promises(yield func(Promise) bool) {
	l.mu.Lock()
	promises := l.promises
	l.mu.Unlock()
	for _, p := range promises {
		if !yield(p) {
			return
		}
	}
}

// Know tells the recording that an inode is what is at an entry. It must be told of each
// inode that an operation changes or has for a directory, unless that made it, or removed
// or moved the entry.
func (l *Log) Know(i Inode, e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recorder.write(Event{Kind: EventKnow, Inode: i, Entry: &e})
}

// Record begins a recording in a directory, of all that the log is told from now on. The
// log must be empty. RecordingError and EndRecording say whether it was written.
func (l *Log) Record(dir string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first != nil || l.recorder != nil {
		return errors.New("the log is not empty")
	}
	r, err := newRecorder(dir, l.model.Name(), l.page)
	if err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	l.recorder = r
	return nil
}

// EndRecording ends the recording, if there is one, and returns what was wrong with it.
func (l *Log) EndRecording() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.recorder
	if r == nil {
		return nil
	}
	l.recorder = nil
	return r.close()
}

// RecordingError returns what ended the recording, if anything did.
func (l *Log) RecordingError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.recorder == nil {
		return nil
	}
	return l.recorder.err
}
