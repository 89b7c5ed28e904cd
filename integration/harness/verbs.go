package harness

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// clientVerbs is what a client process can do: what the coreutils cannot.
//
//	check DIR BACKING NAME   run one check
//	fd FILE FLAGS            talk to an open descriptor, see fdCommand
//	mmap FILE MODE SIZE      talk to a mapping, see mmapCommand
//	touch FILE OFF           load one mapped byte, wherever that leads
//	store FILE OFF TEXT      store once through a mapping, and let go of it
//
// and what addVerb has added. fd and mmap answer each line of stdin with one line: the
// result, or "error: ..." with the errno's name.
var clientVerbs = map[string]func(args []string) error{
	"check": clientCheck,
	"fd":    clientFD,
	"mmap":  clientMmap,
	"touch": clientTouch,
	"store": clientStore,
}

// AddVerb adds to what a client of this test binary can do. It is for init functions.
func AddVerb(name string, run func(args []string) error) { clientVerbs[name] = run }

// ErrnoName makes an error comparable across processes: the name of its errno.
func ErrnoName(err error) string {
	if errno, ok := asErrno(err); ok {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// Converse answers every line of stdin by command, until stdin ends.
func Converse(command func(words []string) (string, error)) error {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<24)
	for in.Scan() {
		answer, err := command(strings.Split(in.Text(), " "))
		if err != nil {
			answer = "error: " + ErrnoName(err)
		}
		fmt.Println(answer)
	}
	return in.Err()
}

// Atoi64 parses the numbers of the commands; they are the tests' own.
func Atoi64(s string) int64 {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// OpenFlags are the spellings that `client fd` knows, joined by "|".
var OpenFlags = map[string]int{
	"r": unix.O_RDONLY, "w": unix.O_WRONLY, "rw": unix.O_RDWR, "creat": unix.O_CREAT,
	"excl": unix.O_EXCL, "trunc": unix.O_TRUNC, "append": unix.O_APPEND,
	"direct": unix.O_DIRECT, "sync": unix.O_SYNC, "dsync": unix.O_DSYNC, "nonblock": unix.O_NONBLOCK,
}

func clientFD(args []string) error {
	flags := unix.O_CLOEXEC
	for _, word := range strings.Split(args[1], "|") {
		flag, ok := OpenFlags[word]
		if !ok {
			return fmt.Errorf("no open flag %q", word)
		}
		flags |= flag
	}
	fd, err := unix.Open(args[0], flags, 0o644)
	if err != nil {
		fmt.Println("error: " + ErrnoName(err))
		return nil
	}
	fmt.Println("open")
	return Converse(func(words []string) (string, error) { return fdCommand(fd, words) })
}

// fdCommand is one line of a conversation with an open file:
//
//	pread OFF LEN | pwrite OFF TEXT | write TEXT | truncate SIZE | size
//	chmod MODE | fsync | fdatasync
//	flock sh|ex|un | lock r|w|un | waitlock r|w | getlock
//
// Locks do not wait, but for waitlock. Data is quoted as by strconv.Quote in
// answers and taken as it is in commands.
func fdCommand(fd int, words []string) (string, error) {
	switch words[0] {
	case "pread":
		b := make([]byte, Atoi64(words[2]))
		n, err := unix.Pread(fd, b, Atoi64(words[1]))
		return strconv.Quote(string(b[:max(n, 0)])), err
	case "pwrite":
		n, err := unix.Pwrite(fd, []byte(words[2]), Atoi64(words[1]))
		return strconv.Itoa(n), err
	case "write":
		n, err := unix.Write(fd, []byte(words[1]))
		return strconv.Itoa(n), err
	case "truncate":
		return "ok", unix.Ftruncate(fd, Atoi64(words[1]))
	case "size":
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		return strconv.FormatInt(st.Size, 10), err
	case "chmod":
		return "ok", unix.Fchmod(fd, uint32(Atoi64(words[1])))
	case "fsync":
		return "ok", unix.Fsync(fd)
	case "fdatasync":
		return "ok", unix.Fdatasync(fd)
	case "flock":
		how := map[string]int{"sh": unix.LOCK_SH, "ex": unix.LOCK_EX, "un": unix.LOCK_UN}[words[1]]
		return "ok", unix.Flock(fd, how|unix.LOCK_NB)
	case "lock", "waitlock":
		cmd := unix.F_SETLK
		if words[0] == "waitlock" {
			cmd = unix.F_SETLKW
		}
		return "ok", unix.FcntlFlock(uintptr(fd), cmd, &unix.Flock_t{Type: lockType(words[1])})
	case "getlock":
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		err := unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &lock)
		if err == nil && lock.Type == unix.F_UNLCK {
			return "free", nil
		}
		return fmt.Sprintf("held by %d", lock.Pid), err
	}
	return "", fmt.Errorf("no command %q", words)
}

func lockType(word string) int16 {
	return map[string]int16{"r": unix.F_RDLCK, "w": unix.F_WRLCK, "un": unix.F_UNLCK}[word]
}

func clientMmap(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	how := map[string]int{"shared": unix.MAP_SHARED, "private": unix.MAP_PRIVATE}[args[1]]
	mem, err := unix.Mmap(fd, 0, int(Atoi64(args[2])), unix.PROT_READ|unix.PROT_WRITE, how)
	if err != nil {
		return err
	}
	fmt.Println("mapped")
	return Converse(func(words []string) (string, error) { return mmapCommand(mem, words) })
}

// mmapCommand is one line of a conversation with a mapping of a file:
//
//	load OFF LEN | store OFF TEXT | msync sync|async|invalidate
func mmapCommand(mem []byte, words []string) (string, error) {
	switch words[0] {
	case "load":
		off := Atoi64(words[1])
		return strconv.Quote(string(mem[off : off+Atoi64(words[2])])), nil
	case "store":
		return strconv.Itoa(copy(mem[Atoi64(words[1]):], words[2])), nil
	case "msync":
		how := map[string]int{"sync": unix.MS_SYNC, "async": unix.MS_ASYNC,
			"invalidate": unix.MS_INVALIDATE}[words[1]]
		return "ok", unix.Msync(mem, how)
	}
	return "", fmt.Errorf("no command %q", words)
}

// clientTouch loads one byte through a shared mapping that may reach past the
// end of the file: there the process dies of SIGBUS.
func clientTouch(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	off := Atoi64(args[1])
	mem, err := unix.Mmap(fd, 0, int(off)+1, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	fmt.Println(mem[off])
	return nil
}

// clientStore stores once through a shared mapping and ends without msync(2): the
// kernel writes the page back when the file is closed.
func clientStore(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	off := int(Atoi64(args[1]))
	mem, err := unix.Mmap(fd, 0, off+len(args[2]), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(mem[off:], args[2])
	if err := unix.Munmap(mem); err != nil {
		return err
	}
	return unix.Close(fd)
}
