// Package cli has what the verbs of the command share: errors with exit codes, and the reading
// of arguments.
package cli

import "fmt"

// Coded is an error with an exit code of its own.
type Coded struct {
	Err  error
	Code int
}

func (e Coded) Error() string { return e.Err.Error() }

// Unwrap returns the error.
func (e Coded) Unwrap() error { return e.Err }

// Quiet is an error about which all is said but its exit code.
type Quiet struct{ Code int }

func (Quiet) Error() string { return "" }

// Usage is a mistake in the command line.
type Usage struct{ Err error }

func (e Usage) Error() string { return e.Err.Error() }

// Unwrap returns the error.
func (e Usage) Unwrap() error { return e.Err }

// Usagef makes a Usage of a sentence.
func Usagef(format string, args ...any) error { return Usage{fmt.Errorf(format, args...)} }
