package cli

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ByteCount is a flag with a number of bytes.
type ByteCount struct {
	N     int64
	Given bool
}

// Type is what the help calls it.
func (b *ByteCount) Type() string { return "bytes" }

// String is the default that the help shows: none.
func (b *ByteCount) String() string {
	if !b.Given {
		return ""
	}
	return strconv.FormatInt(b.N, 10)
}

// Set reads the flag.
func (b *ByteCount) Set(text string) error {
	n, err := ParseBytes(text)
	b.N, b.Given = n, err == nil
	return err
}

// ParseBytes reads 4096, 64k, 0x1000.
func ParseBytes(text string) (int64, error) {
	digits, shift := text, 0
	if text != "" {
		if i := strings.IndexByte("kmgt", text[len(text)-1]|0x20); i >= 0 {
			digits, shift = text[:len(text)-1], 10*(i+1)
		}
	}
	// Base 0 would take 010 for eight and 1_000 for a thousand.
	base := 10
	if hex, ok := strings.CutPrefix(digits, "0x"); ok {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 63)
	if err != nil || strings.HasPrefix(digits, "+") {
		return 0, fmt.Errorf("not a number of bytes, like 4096, 64k or 1G")
	}
	if n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("more bytes than a file can have")
	}
	return int64(n) << shift, nil
}

// ParseSeconds reads a time as libfuse takes it: seconds, with a fraction.
func ParseSeconds(s string) (time.Duration, error) {
	seconds, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(seconds) || seconds < 0 {
		return 0, errors.New("not a number of seconds")
	}
	// 2^63 ns is the first time that a Duration cannot hold.
	nanoseconds := seconds * float64(time.Second)
	if nanoseconds >= 1<<63 {
		return 0, fmt.Errorf("more than %.0f seconds", time.Duration(math.MaxInt64).Seconds())
	}
	return time.Duration(nanoseconds), nil
}
