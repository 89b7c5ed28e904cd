package explore

import (
	"mapfs/fs/crash"
)

// reportVersion counts the changes of the form of reports.
const reportVersion = 1

// Report is what a search has found. Its form in JSON is documented in mapfs-crash(1).
type Report struct {
	Version int      `json:"version"`
	Command []string `json:"command,omitzero"`
	// Device is the filesystem whose device was recorded, "" if files were.
	Device string `json:"device,omitzero"`
	Check  string `json:"check,omitzero"`
	Model  string `json:"model"`
	Seed   uint64 `json:"seed"`
	Torn   int64  `json:"torn"`
	Shard  string `json:"shard,omitzero"` // "2/8"
	// Operations and Promises are those of the recording, Points the places of a power cut.
	Operations int `json:"operations"`
	Promises   int `json:"promises"`
	Points     int `json:"points"`
	// States were made by the model's rules; of those Distinct were different, by their
	// trees and how many promises were made before, and Checked were looked at.
	States   int `json:"states"`
	Distinct int `json:"distinct"`
	Checked  int `json:"checked"`
	// Failures of them are not good. Findings tells of them, of each sort once.
	Failures int       `json:"failures"`
	Findings []Finding `json:"findings"`
	// Complete says that the search came to its end within the budget.
	Complete bool    `json:"complete"`
	Seconds  float64 `json:"seconds"`
}

// Finding is a sort of states that are not good, told by one of them from which no loss can
// be taken away.
type Finding struct {
	ID int `json:"id"`
	// Event is how many events of the recording are before the power cut, After the number
	// of the last operation, and Promise the last promise, "" for none.
	Event   uint64 `json:"event"`
	After   uint64 `json:"after"`
	Promise string `json:"promise,omitzero"`
	// Broken says that the promise is what is broken: the state would be good without it.
	Broken bool `json:"broken"`
	// Choice makes the state, in which Lost is lost, whole or in part; Relied is the first
	// operation that survives though it came later, and Differs says what is not as it would
	// be without the loss.
	Choice  crash.Choice `json:"choice"`
	Lost    []Operation  `json:"lost"`
	Relied  *Operation   `json:"relied,omitzero"`
	Differs []string     `json:"differs,omitzero"`
	// Missing are the syncs that would have prevented it.
	Missing []Sync `json:"missing,omitzero"`
	Status  int    `json:"status"`
	Output  string `json:"output,omitzero"`
	// States is how many of this sort there were.
	States int `json:"states"`
}

// Operation is one of the recording.
type Operation struct {
	Number uint64 `json:"number"`
	What   string `json:"what"` // as in the file "pending"
}

// Sync is an fsync(2) that is missing: of Path, after one operation and before another;
// without that one before the promise, or the end. Prevents says whether the state cannot
// happen with it: that was tried.
type Sync struct {
	Path     string     `json:"path"`
	After    Operation  `json:"after"`
	Before   *Operation `json:"before,omitzero"`
	Prevents bool       `json:"prevents"`

	inode crash.Inode
}

// report returns what the search has counted.
func (x *explorer) report(done bool) *Report {
	return &Report{
		Version: reportVersion, Model: x.o.Model.Name(), Seed: x.o.Seed, Torn: x.o.Torn,
		Operations: len(x.scan.ops), Promises: len(x.scan.promises), Points: len(x.scan.points),
		States: x.states, Distinct: len(x.seen), Checked: x.checked, Failures: len(x.failures), Complete: done,
	}
}
