package client

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// Prot is what a mapping's pages may be used for: PROT_NONE or a combination of
// PROT_READ, PROT_WRITE and PROT_EXEC, as for mmap(2).
type Prot int

// protLetters are in the order in which /proc/PID/maps has them.
var protLetters = []struct {
	letter byte
	bit    Prot
}{{'r', unix.PROT_READ}, {'w', unix.PROT_WRITE}, {'x', unix.PROT_EXEC}}

// ParseProt reads none, or letters of r, w and x, as in rw.
func ParseProt(text string) (Prot, error) {
	if text == "none" {
		return unix.PROT_NONE, nil
	}
	var p Prot
	rest := text
	for _, l := range protLetters {
		if after, found := strings.CutPrefix(rest, string(l.letter)); found {
			p, rest = p|l.bit, after
		}
	}
	if text == "" || rest != "" {
		return 0, errors.New("choose none, or letters of rwx in this order, like r or rw")
	}
	return p, nil
}

// String returns p as [ParseProt] reads it.
func (p Prot) String() string {
	if p == unix.PROT_NONE {
		return "none"
	}
	var s strings.Builder
	for _, l := range protLetters {
		if p&l.bit != 0 {
			s.WriteByte(l.letter)
		}
	}
	return s.String()
}

// perms returns the column PERMS of /proc/PID/maps.
func (p Prot) perms(private bool) string {
	perms := []byte("---s")
	for i, l := range protLetters {
		if p&l.bit != 0 {
			perms[i] = l.letter
		}
	}
	if private {
		perms[3] = 'p'
	}
	return string(perms)
}

// word is a flag with a name.
type word struct {
	name string
	bits int
}

// advices are those of madvise(2) that change what can be seen and harm nobody:
// MADV_REMOVE would punch holes into the file.
var advices = []word{
	{"normal", unix.MADV_NORMAL}, {"random", unix.MADV_RANDOM}, {"sequential", unix.MADV_SEQUENTIAL},
	{"willneed", unix.MADV_WILLNEED}, {"dontneed", unix.MADV_DONTNEED},
	{"cold", unix.MADV_COLD}, {"pageout", unix.MADV_PAGEOUT},
	{"populate_read", unix.MADV_POPULATE_READ}, {"populate_write", unix.MADV_POPULATE_WRITE},
}

// ParseAdvice reads the name of an advice of madvise(2), in lower case and
// without MADV_.
func ParseAdvice(text string) (int, error) { return parseWord(advices, text) }

// AdviceNames lists what [ParseAdvice] reads.
func AdviceNames() []string { return names(advices) }

var msyncFlags = []word{{"sync", unix.MS_SYNC}, {"async", unix.MS_ASYNC}, {"invalidate", unix.MS_INVALIDATE}}

// ParseMsync reads flags of msync(2), in lower case, without MS_ and joined by
// commas. Which combinations there are is for the kernel to say.
func ParseMsync(text string) (int, error) {
	flags := 0
	for _, name := range strings.Split(text, ",") {
		flag, err := parseWord(msyncFlags, name)
		if err != nil {
			return 0, err
		}
		flags |= flag
	}
	return flags, nil
}

func parseWord(words []word, text string) (int, error) {
	for _, w := range words {
		if w.name == text {
			return w.bits, nil
		}
	}
	return 0, errors.New("choose " + strings.Join(names(words), ", "))
}

func names(words []word) []string {
	var all []string
	for _, w := range words {
		all = append(all, w.name)
	}
	return all
}
