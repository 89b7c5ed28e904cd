package control

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"mapfs/fs/wire"
	"mapfs/mapping/paging"
)

// maxCommand is how long one write to a ctl file may be.
const maxCommand = 64 << 10

// command is one line written to a ctl file.
type command struct {
	verb string
	keys []string // in the order they came
	args map[string]string
	// w works on the request that the command came with.
	w *wire.Worker
}

// refusal is why a command was not done: the errno that write(2) returns, and
// the sentence that a read of the same descriptor gives.
type refusal struct {
	errno    syscall.Errno
	sentence string
}

func (r *refusal) Error() string { return r.sentence }

// Unwrap returns the errno.
func (r *refusal) Unwrap() error { return r.errno }

// invalid is a refusal with EINVAL.
func invalid(format string, args ...any) error {
	return &refusal{syscall.EINVAL, fmt.Sprintf(format, args...)}
}

// parseCommand takes a line apart: a verb and key=value pairs between spaces. A
// word may also stand alone, as the first value of commands that take one. A
// value with spaces is quoted, as in Go or between the double quotes of a shell.
func parseCommand(line string) (command, error) {
	c := command{args: make(map[string]string)}
	if !utf8.ValidString(line) || strings.ContainsRune(line, 0) {
		return c, invalid("the command is not text: %s", abbreviate(line))
	}
	rest := strings.TrimSpace(line)
	for rest != "" {
		var word string
		var err error
		if word, rest, err = nextWord(rest); err != nil {
			return c, err
		}
		if c.verb == "" {
			c.verb = word
			continue
		}
		key, value, found := strings.Cut(word, "=")
		switch {
		case !found:
			key, value = "", word
		case key == "":
			return c, invalid("%s: %s has no name before the =", c.verb, abbreviate(word))
		}
		if value, err = unquote(value); err != nil {
			return c, invalid("%s: the quotes in %s do not match", c.verb, abbreviate(word))
		}
		if _, twice := c.args[key]; twice {
			if key == "" {
				return c, invalid("%s: unexpected word %s", c.verb, abbreviate(word))
			}
			return c, invalid("%s: %s is given twice", c.verb, key)
		}
		c.args[key] = value
		c.keys = append(c.keys, key)
	}
	return c, nil
}

// nextWord returns the first word of text, which has no space in front, and what
// follows it.
func nextWord(text string) (word, rest string, err error) {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quoted:
			i++
		case text[i] == '"':
			quoted = !quoted
		case !quoted && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r'):
			return text[:i], strings.TrimLeft(text[i:], " \t\r"), nil
		}
	}
	if quoted {
		return "", "", invalid("the quotes in %s do not match", abbreviate(text))
	}
	return text, "", nil
}

// unquote returns a value without its quotes.
func unquote(value string) (string, error) {
	if !strings.HasPrefix(value, `"`) {
		if strings.Contains(value, `"`) {
			return "", strconv.ErrSyntax
		}
		return value, nil
	}
	return strconv.Unquote(value)
}

// abbreviate quotes what somebody wrote, cut to a length that can be read.
func abbreviate(text string) string {
	const most = 80
	if len(text) > most {
		return strconv.Quote(text[:most]) + "..."
	}
	return strconv.Quote(text)
}

// only refuses arguments that the command does not know.
func (c *command) only(known ...string) error {
	for _, key := range c.keys {
		if !slices.Contains(known, key) {
			if key == "" {
				return invalid("%s: unexpected word %s", c.verb, abbreviate(c.args[""]))
			}
			return invalid("%s: unknown argument %s; it takes %s", c.verb, abbreviate(key), orNone(strings.Join(known, ", ")))
		}
	}
	return nil
}

// number returns a decimal argument that is not negative, or 0 if it is absent.
func (c *command) number(key string) (int64, error) {
	text, given := c.args[key]
	if !given {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n > math.MaxInt64 {
		return 0, invalid("%s: %s=%s is no number of bytes from 0 to %d", c.verb, key, abbreviate(text), int64(math.MaxInt64))
	}
	return int64(n), nil
}

// span returns the arguments offset and length.
func (c *command) span() (off, length int64, err error) {
	if off, err = c.number("offset"); err != nil {
		return 0, 0, err
	}
	if length, err = c.number("length"); err != nil {
		return 0, 0, err
	}
	if _, given := c.args["length"]; given && length == 0 {
		return 0, 0, invalid("%s: length=0 names no bytes; leave it out to mean all up to the end of the file", c.verb)
	}
	if length > math.MaxInt64-off {
		return 0, 0, invalid("%s: offset=%d and length=%d together are more than %d", c.verb, off, length, int64(math.MaxInt64))
	}
	if off%paging.PageSize != 0 {
		return 0, 0, invalid("%s: offset=%d is no multiple of the page size, %d", c.verb, off, paging.PageSize)
	}
	return off, length, nil
}
