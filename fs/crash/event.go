package crash

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// Event is a line of a recording: an operation, if Op is set, or one of the others.
type Event struct {
	Kind EventKind `json:"event"`
	Op   *Op       `json:"op,omitempty"`
	// At is where the bytes of a Write or Store begin in the recording's file of bytes.
	At int64 `json:"at,omitempty"`

	// Inode is what the event is about, and Off to End the bytes of it.
	Inode    Inode  `json:"inode,omitempty"`
	IsDir    bool   `json:"isDir,omitempty"`
	DataOnly bool   `json:"dataOnly,omitempty"`
	Off      int64  `json:"off,omitempty"`
	End      int64  `json:"end,omitempty"`
	Entry    *Entry `json:"entry,omitempty"`

	// Text is a promise. Of the first event it is the model, of a power cut too, and
	// PageSize and Version are those of the recording.
	Text     string  `json:"text,omitempty"`
	Choice   *Choice `json:"choice,omitempty"`
	PageSize int64   `json:"pageSize,omitempty"`
	Version  int     `json:"version,omitempty"`
}

// EventKind is what an event is.
type EventKind string

// The kinds of events. All but the first and the last four are calls of the log's methods.
const (
	EventBegin     EventKind = "begin" // the first line
	EventOp        EventKind = "op"
	EventSync      EventKind = "sync"
	EventSyncRange EventKind = "syncrange"
	EventRevert    EventKind = "revert"
	EventRevertAll EventKind = "revertall"
	EventAbandon   EventKind = "abandon"
	EventClosed    EventKind = "closed"
	EventReset     EventKind = "reset"    // all is durable
	EventPowerCut  EventKind = "powercut" // and the tree is what the choice leaves
	EventKnow      EventKind = "know"     // the inode is what is at the entry
	EventPromise   EventKind = "promise"
	EventEnd       EventKind = "end" // the last line of a recording that nothing has interrupted
)

// recordingVersion counts the changes of the form of recordings.
const recordingVersion = 1

// MarshalText returns the kind's name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (k *Kind) UnmarshalText(text []byte) error {
	for i := Create; i <= Chown; i++ {
		if i.String() == string(text) {
			*k = i
			return nil
		}
	}
	return fmt.Errorf("no kind of operation is called %q", text)
}

// entryJSON is an entry in JSON. A name that is no UTF-8 is in Raw.
type entryJSON struct {
	Dir  Inode  `json:"dir"`
	Name string `json:"name,omitempty"`
	Raw  []byte `json:"raw,omitempty"`
}

// MarshalJSON writes an entry so that every name can be read again.
func (e Entry) MarshalJSON() ([]byte, error) {
	j := entryJSON{Dir: e.Dir, Name: e.Name}
	if !utf8.ValidString(e.Name) {
		j.Name, j.Raw = "", []byte(e.Name)
	}
	return json.Marshal(j)
}

// UnmarshalJSON is the reverse of MarshalJSON.
func (e *Entry) UnmarshalJSON(text []byte) error {
	var j entryJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	*e = Entry{j.Dir, j.Name}
	if j.Raw != nil {
		e.Name = string(j.Raw)
	}
	return nil
}
