package fs

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"mapfs/mapping"
)

// maxCommand is how long one write to a ctl file may be.
const maxCommand = 64 << 10

// command is one line written to a ctl file.
type command struct {
	verb string
	keys []string // in the order they came
	args map[string]string
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
	if off%mapping.PageSize != 0 {
		return 0, 0, invalid("%s: offset=%d is no multiple of the page size, %d", c.verb, off, mapping.PageSize)
	}
	return off, length, nil
}

// advices are the values of madvise's argument.
var advices = map[string]int{
	"dontneed": unix.MADV_DONTNEED, "willneed": unix.MADV_WILLNEED,
	"cold": unix.MADV_COLD, "pageout": unix.MADV_PAGEOUT,
}

// runFileCommand does what a line written to a file's ctl says, and returns the
// answer.
func (s *Session) runFileCommand(n *node, c command) (string, error) {
	var run func(f *mapping.File, off, length int64) error
	want := accessRead
	switch c.verb {
	case "mode":
		return s.setMode(n, c)
	case "msync":
		flags, err := c.msyncFlags()
		if err != nil {
			return "", err
		}
		if err := c.only("offset", "length", "flags"); err != nil {
			return "", err
		}
		run = func(f *mapping.File, off, length int64) error {
			err := f.Msync(off, length, flags)
			if err == nil && flags&unix.MS_INVALIDATE != 0 {
				s.changedBehind(n)
			}
			return err
		}
	case "madvise":
		advice, known := advices[c.args["advice"]]
		if !known {
			return "", invalid("madvise: advice=%s is none of dontneed, willneed, cold, pageout", abbreviate(c.args["advice"]))
		}
		if err := c.only("advice", "offset", "length"); err != nil {
			return "", err
		}
		run = func(f *mapping.File, off, length int64) error {
			err := f.Madvise(off, length, advice)
			if err == nil && advice == unix.MADV_DONTNEED && f.Mode() != mapping.Shared {
				s.changedBehind(n)
			}
			return err
		}
	case "mlock", "munlock":
		if err := c.only("offset", "length"); err != nil {
			return "", err
		}
		run = (*mapping.File).Mlock
		if c.verb == "munlock" {
			run = (*mapping.File).Munlock
		}
	default:
		return "", invalid("unknown command %s; a file's are msync, mode, madvise, mlock, munlock", abbreviate(c.verb))
	}
	off, length, err := c.span()
	if err != nil {
		return "", err
	}
	f, err := s.acquire(n, want)
	if err != nil {
		return "", err
	}
	defer f.Release(true)
	if err := run(f, off, length); err != nil {
		return "", c.explain(err, f.Size())
	}
	if c.verb == "msync" && f.Mode() == mapping.Private {
		return "nothing was written: the mode is private, and its changes never reach the file", nil
	}
	return "ok", nil
}

// changedBehind is told that n's bytes or size changed without a request of the
// kernel's that would have told it.
func (s *Session) changedBehind(n *node) {
	n.changed()
	s.notify.invalidate(n.id)
}

// setMode does "mode shared|private|staged".
func (s *Session) setMode(n *node, c command) (string, error) {
	if err := c.only(""); err != nil {
		return "", err
	}
	mode, err := mapping.ParseMode(c.args[""])
	if err != nil {
		return "", invalid("mode: %v", err)
	}
	f, err := s.acquire(n, accessRead)
	if err != nil {
		return "", err
	}
	defer f.Release(true)
	if old := f.Mode(); old != mode {
		if err := s.mayStage(n, mode); err != nil {
			return "", err
		}
		switch err := f.SetMode(mode); errnoOf(err) {
		case 0:
		case syscall.EBUSY:
			do := "msync"
			if old == mapping.Private {
				do = "msync flags=invalidate"
			}
			return "", &refusal{syscall.EBUSY, fmt.Sprintf("mode: the file has unsynced bytes as %s; '%s' first", old, do)}
		case syscall.EACCES:
			return "", &refusal{syscall.EACCES, "mode: the daemon may not read the file, and a private mapping needs to"}
		default:
			return "", err
		}
		s.changedBehind(n)
	}
	return "ok", nil
}

// mayStage refuses the mode staged for a file that cannot be written to: what is staged
// could never be written back.
func (s *Session) mayStage(n *node, mode mapping.Mode) error {
	if mode != mapping.Staged {
		return nil
	}
	var st unix.Stat_t
	p, err := s.locate(n, &st)
	if err != nil {
		return nil // it has no name any more: whoever has it open knows
	}
	defer s.leave(p)
	if err := unix.Faccessat(p.dir.fd, p.name, unix.W_OK, unix.AT_EACCESS); err != nil {
		return &refusal{errnoOf(err), fmt.Sprintf("mode: what is staged could never be written to the file: %s", plainText(err))}
	}
	return nil
}

// msyncFlags returns the flags of msync(2) that the argument names; MS_SYNC if
// there is none.
func (c *command) msyncFlags() (int, error) {
	text, given := c.args["flags"]
	if !given {
		return unix.MS_SYNC, nil
	}
	flags := 0
	for name := range strings.SplitSeq(text, ",") {
		switch name {
		case "sync":
			flags |= unix.MS_SYNC
		case "async":
			flags |= unix.MS_ASYNC
		case "invalidate":
			flags |= unix.MS_INVALIDATE
		default:
			return 0, invalid("msync: flags=%s: %s is none of sync, async, invalidate", abbreviate(text), abbreviate(name))
		}
	}
	if flags&unix.MS_SYNC != 0 && flags&unix.MS_ASYNC != 0 {
		return 0, invalid("msync: flags=%s: sync and async contradict each other", abbreviate(text))
	}
	return flags, nil
}

// explain makes a sentence of what a system call refused.
func (c *command) explain(err error, size int64) error {
	errno := errnoOf(err)
	why := err.Error()
	switch {
	case errno == syscall.ENOMEM && c.verb == "mlock":
		why = fmt.Sprintf("either the range is not mapped, for the file has %d bytes, or more may not be locked (RLIMIT_MEMLOCK)", size)
	case errno == syscall.ENOMEM:
		why = fmt.Sprintf("the range is not mapped: the file has %d bytes", size)
	case errno == syscall.EBUSY, errno == syscall.EINVAL && c.verb == "madvise":
		why = "pages in the range are locked by mlock"
	case errno == syscall.EPERM && c.verb == "mlock":
		why = "the daemon may not lock memory (RLIMIT_MEMLOCK is 0)"
	}
	return &refusal{errno, c.verb + ": " + why}
}

// runRootCommand does what a line written to the root's ctl says.
func (s *Session) runRootCommand(c command) (string, error) {
	switch c.verb {
	case "sync":
		if err := c.only(); err != nil {
			return "", err
		}
		if err := s.Sync(); err != nil {
			return "", &refusal{errnoOf(err), "sync: " + strings.ReplaceAll(err.Error(), "\n", "; ")}
		}
		return "ok", nil
	case "mmap":
		return s.runMmap(c)
	}
	if slices.Contains(mappingVerbs, c.verb) {
		return s.runAddressCommand(c)
	}
	return "", invalid("unknown command %s; the mount's are sync, mmap, %s", abbreviate(c.verb), strings.Join(mappingVerbs, ", "))
}

// ctlHandle is an open ctl file.
type ctlHandle struct {
	target   *node            // the file whose ctl it is
	explicit *mapping.Mapping // the mapping whose ctl it is; the root's has neither

	mu     sync.Mutex
	answer string
	// start is the offset of the answer: that of the first read after a write.
	start int64
	fresh bool
}

// write runs the lines of one write(2) in order, up to the first that fails.
func (h *ctlHandle) write(w *worker, p []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fresh = true
	answer, err := h.run(w.s, string(p))
	if err != nil {
		h.answer = err.Error() + "\n"
		return err
	}
	h.answer = answer
	return nil
}

// run runs lines and returns their answers.
func (h *ctlHandle) run(s *Session, text string) (string, error) {
	if len(text) > maxCommand {
		return "", invalid("the command has %d bytes; at most %d are taken", len(text), maxCommand)
	}
	if strings.TrimSpace(text) == "" {
		return "", invalid("the command is empty")
	}
	var answers strings.Builder
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		c, err := parseCommand(line)
		if err != nil {
			return "", err
		}
		var answer string
		switch {
		case h.target != nil:
			answer, err = s.runFileCommand(h.target, c)
		case h.explicit != nil:
			answer, err = s.runMappingCommand(h.explicit, c)
		default:
			answer, err = s.runRootCommand(c)
		}
		if err != nil {
			return "", plainRefusal(c.verb, err)
		}
		answers.WriteString(answer + "\n")
	}
	return answers.String(), nil
}

// plainRefusal makes a sentence of an error that is none yet.
func plainRefusal(verb string, err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return err
	}
	return &refusal{errnoOf(err), verb + ": " + err.Error()}
}

// read returns the answer to the last write. The reader's offset is wherever its
// write left it; the answer begins there.
func (h *ctlHandle) read(_ *worker, off int64, size int) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fresh {
		h.start, h.fresh = off, false
	}
	at := off - h.start
	if at < 0 || at >= int64(len(h.answer)) {
		return nil, nil
	}
	return []byte(h.answer[at:min(at+int64(size), int64(len(h.answer)))]), nil
}
