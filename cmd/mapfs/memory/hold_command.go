//go:build linux

package memory

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"mapfs/client"
	"mapfs/cmd/mapfs/cli"
)

// HoldHelp lists the commands of hold.
const HoldHelp = `  load OFF LEN                   load bytes and print them, quoted
  dump OFF LEN                   load bytes and print them in hexadecimal
  store OFF TEXT                 store the rest of the line; in double quotes with
                                 escapes like \n
  msync [FLAGS] [OFF LEN]        write back; FLAGS: sync, async, invalidate, joined
                                 by commas (sync)
  mprotect PROT [OFF LEN]        change the protection
  munmap OFF LEN                 unmap a part
  madvise ADVICE [OFF LEN]       normal, random, sequential, willneed, dontneed, cold,
                                 pageout, populate_read or populate_write
  size                           print the size of the file
  wait SECONDS                   do nothing
  quit                           end
  help                           print this list
`

// answer runs a command and prints the answer. It returns an error only if the
// conversation is over, as after a fault.
func (h *holder) answer(line string) error {
	line = strings.TrimSpace(line)
	if line == "" || strings.HasPrefix(line, "#") {
		return nil
	}
	name, rest, _ := strings.Cut(line, " ")
	answer, err := h.run(name, strings.TrimLeft(rest, " "))
	switch {
	case errors.Is(err, errEnough), errors.As(err, new(*client.Fault)):
		return err
	case err != nil:
		h.failed++
		answer = fmt.Sprintf("error: %v\n", err)
	case answer == "":
		answer = "ok\n"
	}
	_, err = fmt.Fprint(h.out, answer)
	return err
}

// run runs one command. No answer means ok.
func (h *holder) run(name, rest string) (answer string, err error) {
	words := strings.Fields(rest)
	switch name {
	case "load", "dump":
		off, length, err := offLen(words)
		if err != nil {
			return "", commandUsage(name, "OFF LEN", err)
		}
		return h.load(name, off, length)
	case "store":
		off, text, err := storeArgs(rest)
		if err != nil {
			return "", commandUsage(name, "OFF TEXT", err)
		}
		_, err = h.m.Store(text, off)
		return "", err
	case "msync":
		flags := "sync"
		if len(words)%2 == 1 {
			flags, words = words[0], words[1:]
		}
		bits, err := client.ParseMsync(flags)
		return h.overPart(name, "[FLAGS] [OFF LEN]", words, err, func(off, length int64) error {
			return h.m.Msync(off, length, bits)
		})
	case "mprotect":
		word, words := cutWord(words)
		prot, err := client.ParseProt(word)
		return h.overPart(name, "PROT [OFF LEN]", words, err, func(off, length int64) error {
			return h.m.Mprotect(off, length, prot)
		})
	case "madvise":
		word, words := cutWord(words)
		advice, err := client.ParseAdvice(word)
		return h.overPart(name, "ADVICE [OFF LEN]", words, err, func(off, length int64) error {
			return h.m.Madvise(off, length, advice)
		})
	case "munmap":
		off, length, err := offLen(words)
		if err != nil {
			return "", commandUsage(name, "OFF LEN", err)
		}
		return "", h.m.Munmap(off, length)
	case "wait":
		d, err := cli.ParseSeconds(rest)
		if err != nil {
			return "", commandUsage(name, "SECONDS", err)
		}
		return "", h.pause(d)
	case "size":
		size, err := h.m.Size()
		return fmt.Sprintln(size), err
	case "quit", "exit":
		return "", errEnough
	case "help":
		return HoldHelp, nil
	}
	return "", fmt.Errorf("no command %q; try help", name)
}

// load is for people, and for scripts that want one line.
func (h *holder) load(name string, off, length int64) (string, error) {
	b, err := h.m.LoadBytes(off, length)
	if err != nil {
		return "", err
	}
	if name == "load" {
		return fmt.Sprintf("%q\n", b), nil
	}
	var text strings.Builder
	dump := newDumper(&text, off)
	_, _ = dump.Write(b) // its errors are told by Close
	err = dump.Close()
	return text.String(), err
}

// overPart calls do for the part of the mapping that the words name, or for all
// of it. err is what was wrong with the words before.
func (h *holder) overPart(name, usage string, words []string, err error, do func(off, length int64) error) (string, error) {
	off, length := int64(0), h.m.Length()
	if err == nil && len(words) > 0 {
		off, length, err = offLen(words)
	}
	if err != nil {
		return "", commandUsage(name, usage, err)
	}
	return "", do(off, length)
}

// commandUsage is an error in the words of a command.
func commandUsage(name, usage string, err error) error {
	return fmt.Errorf("%s %s: %w", name, usage, err)
}

func cutWord(words []string) (string, []string) {
	if len(words) == 0 {
		return "", nil
	}
	return words[0], words[1:]
}

func offLen(words []string) (off, length int64, err error) {
	if len(words) != 2 {
		return 0, 0, errors.New("name two numbers")
	}
	if off, err = cli.ParseBytes(words[0]); err == nil {
		length, err = cli.ParseBytes(words[1])
	}
	return off, length, err
}

// storeArgs splits OFF TEXT.
func storeArgs(rest string) (off int64, text []byte, err error) {
	number, after, found := strings.Cut(rest, " ")
	if !found || after == "" {
		return 0, nil, errors.New("name an offset and the text")
	}
	if off, err = cli.ParseBytes(number); err != nil {
		return 0, nil, err
	}
	if strings.HasPrefix(after, `"`) {
		unquoted, err := strconv.Unquote(after)
		if err != nil {
			return 0, nil, errors.New("the quotes are not in order, or an escape is unknown")
		}
		after = unquoted
	}
	return off, []byte(after), nil
}
