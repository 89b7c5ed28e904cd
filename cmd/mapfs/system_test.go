//go:build linux

package main

import (
	"syscall"
	"testing"
)

func TestRaiseDescriptorLimit(t *testing.T) {
	var before, after syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	lower := before
	lower.Cur = min(before.Max/2, 100)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lower); err != nil {
		t.Fatal(err)
	}
	defer func() {
		// Who has raised the hard limit may lower it again.
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}()
	raiseDescriptorLimit()
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &after); err != nil {
		t.Fatal(err)
	}
	if want := min(before.Max, mostDescriptors); after.Cur < want || after.Max < before.Max {
		t.Errorf("the limit was %d of %d and is %d of %d, want %d or more", lower.Cur, before.Max, after.Cur, after.Max, want)
	}
}
