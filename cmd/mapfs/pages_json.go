//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"

	"mapfs/cmd/mapfs/picture"
)

// jsonRun is a run of equal pages; offset and length are bytes of whole pages.
type jsonRun struct {
	First  int64  `json:"first"`
	Last   int64  `json:"last"`
	Flags  string `json:"flags"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
}

type jsonSummary struct {
	Size          int64 `json:"size"`
	Pages         int64 `json:"pages"`
	Resident      int64 `json:"resident"`
	Dirty         int64 `json:"dirty"`
	Writeback     int64 `json:"writeback"`
	Copied        int64 `json:"copied"`
	Unsynced      int64 `json:"unsynced"`
	UnsyncedBytes int64 `json:"unsynced_bytes"`
}

// printJSON prints one object, {"path", "mode", "page_size", "runs", "summary"},
// a run a line. It is written while the runs are read: there can be millions.
func printJSON(w io.Writer, view pageView, pages io.Reader) error {
	head, err := json.Marshal(struct {
		Path     string `json:"path"`
		Mode     string `json:"mode"`
		PageSize int64  `json:"page_size"`
	}{view.name, view.mode, view.pageSize})
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s,\"runs\":[", head[:len(head)-1])
	var sum picture.Summary
	before := "\n"
	err = picture.ReadRuns(pages, func(run picture.Run) error {
		sum.Add(run)
		line, err := json.Marshal(jsonRun{
			First: run.First, Last: run.Last, Flags: run.Flags.String(),
			Offset: run.First * view.pageSize, Length: run.Len() * view.pageSize,
		})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s%s", before, line)
		before = ",\n"
		return err
	})
	if err != nil {
		return err
	}
	tail, err := json.Marshal(jsonSummary{
		Size: view.size, Pages: sum.Pages, Resident: sum.Resident, Dirty: sum.Dirty, Writeback: sum.Writeback,
		Copied: sum.Copied, Unsynced: sum.Unsynced, UnsyncedBytes: view.unsyncedBytes,
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "],\n\"summary\":%s}\n", tail)
	return err
}
