// Package display knows what text is shown on: how wide it is, whether it has colors, and
// how numbers of bytes look on it.
package display

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Screen is what text is made for.
type Screen struct {
	Width int // columns
	Color bool
}

// plainWidth is for text that goes to a file or a program.
const plainWidth = 80

func Of(w io.Writer) Screen {
	f, ok := w.(*os.File)
	if !ok {
		return Screen{Width: plainWidth}
	}
	size, err := TerminalSize(f)
	if err != nil {
		return Screen{Width: plainWidth} // no terminal
	}
	s := Screen{Width: int(size.Col), Color: wantsColor(os.Getenv)}
	if s.Width == 0 { // a terminal that does not know, like a serial line
		s.Width = plainWidth
	}
	return s
}

// TerminalSize fails if f is no terminal.
func TerminalSize(f *os.File) (*unix.Winsize, error) {
	return unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
}

// wantsColor says whether the user of a terminal wants colors: see no-color.org.
func wantsColor(getenv func(string) string) bool {
	return getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}

// unitLetters are the powers of 1024.
const unitLetters = "KMGTPE"

// ShortBytes writes a multiple of 1024 short and exactly, as 256K or 1.25M, and
// any other number as it is.
func ShortBytes(n int64) string {
	for i := len(unitLetters); i > 0; i-- {
		unit := int64(1) << (10 * i)
		if n < unit {
			continue
		}
		if n%unit == 0 {
			return strconv.FormatInt(n/unit, 10) + unitLetters[i-1:i]
		}
		// 2 decimals, if they are exact.
		if part := n % unit; part%(unit/4) == 0 {
			return strings.TrimRight(fmt.Sprintf("%d.%02d", n/unit, part/(unit/4)*25), "0") + unitLetters[i-1:i]
		}
	}
	return strconv.FormatInt(n, 10)
}

// ExactBytes writes a number of bytes, and what it is about if it is large.
func ExactBytes(n int64) string {
	if n == 1 {
		return "1 byte"
	}
	if n < 10<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%d bytes (%s)", n, RoughBytes(n))
}

// RoughBytes writes a number of bytes in three or four digits.
func RoughBytes(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	unit, value := -1, float64(n)
	for value >= 1023.95 && unit < len(unitLetters)-1 { // 1024.0 if rounded
		unit, value = unit+1, value/1024
	}
	return fmt.Sprintf("%.1f %ciB", value, unitLetters[unit])
}

const LabelGap = 2

// LabelWidth is the number of columns for the offsets in a file of that size,
// as shortBytes writes them.
func LabelWidth(size int64) int {
	switch {
	case size <= 1<<30:
		return len("1023.75M")
	case size <= 1<<40:
		return len("1048575.75M")
	}
	return len("1073741823.75M")
}
