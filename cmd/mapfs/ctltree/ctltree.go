// Package ctltree reads a control tree as a client of the mount. No look at it takes longer
// than a limit: its daemon may be stuck.
package ctltree

import (
	"fmt"
	"io"
	"mapfs/internal/quote"
	"os"
	"strconv"
	"strings"
	"time"
)

// Limit is how long a mount may take for one answer. That of a daemon
// that is stuck never comes.
const Limit = 10 * time.Second

// Within returns what f returns, or an error if that takes longer than limit. A
// process cannot take back a system call that waits for a stuck daemon; f is
// left behind, to end with the process.
func Within[T any](limit time.Duration, what string, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.value, r.err
	case <-timer.C:
		var none T
		return none, fmt.Errorf("no answer from the mount in %v, its daemon is stuck or very busy: %s", limit, quote.Path(what))
	}
}

// File is a file of the control tree, open for reading. No call takes
// longer than [Limit].
type File struct {
	file io.ReadCloser
	path string
}

// Of makes a File of what is open already; path is for messages.
func Of(file io.ReadCloser, path string) *File { return &File{file, path} }

// Open opens a file of the control tree.
func Open(path string) (*File, error) {
	file, err := Within(Limit, path, func() (*os.File, error) { return os.Open(path) })
	if err != nil {
		return nil, err
	}
	return Of(file, path), nil
}

// Read is [io.Reader]'s.
func (c *File) Read(p []byte) (int, error) {
	return Within(Limit, c.path, func() (int, error) { return c.file.Read(p) })
}

func (c *File) Close() error { return c.file.Close() }

// Read reads one of the small files of the control tree.
func Read(path string) (string, error) {
	c, err := Open(path)
	if err != nil {
		return "", err
	}
	defer c.Close()
	text, err := io.ReadAll(c)
	return string(text), err
}

// CutPath takes a path from the start of s and undoes its quoting.
func CutPath(s string) (path, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		path, rest, _ = strings.Cut(s, " ")
		return path, rest, path != ""
	}
	quoted, err := strconv.QuotedPrefix(s)
	if err != nil {
		return "", "", false
	}
	path, err = strconv.Unquote(quoted)
	return path, strings.TrimPrefix(s[len(quoted):], " "), err == nil
}

// Status are the lines of a status file.
type Status map[string]string

func ReadStatus(path string) (Status, error) {
	text, err := Read(path)
	if err != nil {
		return nil, err
	}
	s := make(Status)
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		s[key] = value
	}
	return s, nil
}

// Number is the value of a key, or 0 for a key that is not there or no number.
func (s Status) Number(key string) int64 {
	n, err := strconv.ParseInt(s[key], 10, 64)
	if err != nil {
		return 0
	}
	return n
}
