//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/ctltree"
	"mapfs/internal/quote"
)

// exitPending says that a power cut would take something.
const exitPending = 3

func newPendingCommand(sys system) *cobra.Command {
	var fail, asJSON bool
	cmd := &cobra.Command{
		Use:   "pending [flags] [PATH]",
		Short: "List what a power cut now would take, and the missing syncs",
		Long: `List the operations in a mount with -o history that are not durable yet: a power
cut now could take them. Each line ends with what is missing, the fsync(2) of a file
or directory. Of a file, only its own operations are listed.

With --fail the exit code is 3 if there is any: one line in a script that tests
whether a program syncs what it should.`,
		Example: `  mapfs pending ~/mnt
  mapfs pending --fail ~/mnt/important.db
  mapfs pending --json ~/mnt | jq -r '.[].needs[]' | sort -u`,
		Args:              optionalPath,
		ValidArgsFunction: cli.CompletePath,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := findTarget(sys, pathOrHere(args))
			if err != nil {
				return err
			}
			ops, err := readPending(t)
			if err != nil {
				return err
			}
			if err := printPending(cmd.OutOrStdout(), ops, asJSON); err != nil {
				return err
			}
			if fail && len(ops) > 0 {
				return cli.Coded{Err: fmt.Errorf("%s, see above", countPending(len(ops))), Code: exitPending}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&fail, "fail", false, "exit with 3 if anything is pending")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print an array of objects")
	return cmd
}

// countPending says how many operations are pending.
func countPending(n int) string {
	if n == 1 {
		return "1 operation is pending"
	}
	return fmt.Sprintf("%d operations are pending", n)
}

// pendingOp is an operation that a power cut could take.
type pendingOp struct {
	Number    uint64   `json:"number"`
	Operation string   `json:"operation"`
	Path      string   `json:"path"`
	To        string   `json:"to,omitempty"`     // of a rename
	Detail    string   `json:"detail,omitempty"` // of what has no fields of its own
	Offset    *int64   `json:"offset,omitempty"`
	Length    *int64   `json:"length,omitempty"`
	PID       int64    `json:"pid,omitempty"`
	Needs     []string `json:"needs"` // paths to fsync

	line string
}

// readPending returns the pending operations of a mount, or of one file in it.
func readPending(t target) ([]pendingOp, error) {
	file := t.control + "/pending"
	text, err := ctltree.Read(file)
	if errors.Is(err, syscall.ENOENT) {
		return nil, fmt.Errorf("the mount on %s does not know what is pending; mount with -o history", quote.Path(t.mountpoint))
	}
	if err != nil {
		return nil, t.explain(err)
	}
	var ops []pendingOp
	for line := range strings.Lines(text) {
		op, err := parsePending(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if t.kind != targetFile || op.Path == t.name || op.To == t.name {
			ops = append(ops, op)
		}
	}
	return ops, nil
}

// parsePending reads a line of the file pending.
func parsePending(line string) (op pendingOp, err error) {
	bad := fmt.Errorf("not understood: %s", line)
	op.line = line
	number, rest, _ := strings.Cut(line, " ")
	if op.Number, err = strconv.ParseUint(number, 10, 64); err != nil {
		return op, bad
	}
	op.Operation, rest, _ = strings.Cut(rest, " ")
	var ok bool
	if op.Path, rest, ok = ctltree.CutPath(rest); !ok {
		return op, bad
	}
	if op.Operation == "rename" {
		if op.To, rest, ok = ctltree.CutPath(rest); !ok {
			return op, bad
		}
	}
	for !strings.HasPrefix(rest, "needs ") {
		var word string
		var more bool
		if word, rest, more = strings.Cut(rest, " "); !more {
			return op, bad
		}
		n, numberErr := strconv.ParseInt(strings.TrimPrefix(word, "pid="), 10, 64)
		isBytes := op.Operation == "write" || op.Operation == "store" || op.Operation == "fallocate"
		switch {
		case numberErr == nil && strings.HasPrefix(word, "pid="):
			op.PID = n
		case numberErr == nil && isBytes && op.Offset == nil:
			op.Offset = &n
		case numberErr == nil && isBytes && op.Length == nil:
			op.Length = &n
		default:
			op.Detail = strings.TrimSpace(op.Detail + " " + word)
		}
	}
	for rest = strings.TrimPrefix(rest, "needs "); rest != ""; {
		var path string
		rest, ok = strings.CutPrefix(rest, "fsync ")
		if !ok {
			return op, bad
		}
		if path, rest, ok = ctltree.CutPath(rest); !ok {
			return op, bad
		}
		// A comma after a plain path is taken for part of it.
		if rest != "" {
			if plain, found := strings.CutSuffix(path, ","); found {
				path = plain
			}
			rest = strings.TrimPrefix(rest, ", ")
		}
		op.Needs = append(op.Needs, path)
	}
	return op, nil
}

func printPending(w io.Writer, ops []pendingOp, asJSON bool) error {
	if !asJSON {
		for _, op := range ops {
			if _, err := fmt.Fprintln(w, op.line); err != nil {
				return err
			}
		}
		return nil
	}
	before := "["
	for _, op := range ops {
		text, err := json.Marshal(op)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s%s", before, text); err != nil {
			return err
		}
		before = ",\n"
	}
	if len(ops) == 0 {
		_, err := fmt.Fprintln(w, "[]")
		return err
	}
	_, err := fmt.Fprintln(w, "]")
	return err
}
