package crash

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
	"mapfs/fs/crash/oracle"
	"mapfs/integration/harness"
)

func init() { harness.AddVerb("crashfuzz", crashFuzz) }

// TestCrashFuzz makes random operations and syncs on a mount with a history, and compares
// what is pending, what is durable and what a power cut leaves with the slow model.
// MAPFS_FUZZ is how long that is to take for each model on each filesystem.
func TestCrashFuzz(t *testing.T) {
	limit := time.Duration(lessIfSlow(3000)) * time.Millisecond
	if text := os.Getenv("MAPFS_FUZZ"); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, model := range crash.Models() {
		t.Run(model.Name(), func(t *testing.T) {
			harness.EachFS(t, func(t *testing.T, dir string) {
				m := harness.Mount(t, dir, "history="+model.Name())
				out, err := harness.RunCmd(harness.ClientCmd("crashfuzz", m.Dir, dir, model.Name(), limit.String()), limit+time.Minute)
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				t.Log(strings.TrimSpace(out))
				m.Unmount()
				if left, err := os.ReadDir(dir); err != nil || len(left) > 1 { // ext4 has lost+found
					t.Errorf("the mount left %v, %v", left, err)
				}
			})
		})
	}
}

// crashFuzz is the client: it plays rounds for a time.
func crashFuzz(args []string) error {
	limit, err := time.ParseDuration(args[3])
	if err != nil {
		return err
	}
	// By the process's number too: who runs it again sees something else.
	start := uint64(os.Getpid()) << 20
	if os.Getenv("MAPFS_FUZZ_SEED") != "" {
		if start, err = strconv.ParseUint(os.Getenv("MAPFS_FUZZ_SEED"), 10, 64); err != nil {
			return err
		}
	}
	var rounds, operations int
	for begin := time.Now(); time.Since(begin) < limit; rounds++ {
		seed := start + uint64(rounds)
		f := &fuzzer{
			mount: args[0], backing: args[1], p: oracle.NewPlayer(seed, 1000), fds: make(map[crash.Inode]int),
			m: &oracle.Model{Name: args[2], Page: int64(os.Getpagesize())},
		}
		// Of a write through its cache the kernel sends a page that it has to read first
		// by itself; a direct one comes as it is.
		if rounds%2 == 0 {
			f.flags = unix.O_DIRECT
		} else {
			f.p.Page = f.m.Page
		}
		err := f.round(5 + int(seed%50))
		f.close()
		if err != nil {
			return fmt.Errorf("seed %d (MAPFS_FUZZ_SEED): %w\noperations:\n%v", seed, err, f.m)
		}
		operations += len(f.m.Ops)
	}
	fmt.Printf("%d rounds, %d operations\n", rounds, operations)
	return nil
}

// fuzzer plays one round on an empty mount.
type fuzzer struct {
	mount, backing string
	p              *oracle.Player
	m              *oracle.Model
	flags          int                 // of open(2)
	fds            map[crash.Inode]int // of files, kept open: so nothing is closed in between
}

func (f *fuzzer) close() {
	for _, fd := range f.fds {
		unix.Close(fd)
	}
}

// round makes operations, compares, cuts the power and compares again.
func (f *fuzzer) round(steps int) error {
	for range steps {
		if f.p.Random.IntN(6) == 0 {
			if err := f.sync(); err != nil {
				return fmt.Errorf("sync: %w", err)
			}
			continue
		}
		if err := f.step(); err != nil {
			return err
		}
	}
	if err := f.looks(f.mount, f.p.Now, 0o777); err != nil {
		return fmt.Errorf("the mount: %w", err)
	}
	if err := f.looks(f.mount+"/.mapfs/durable", f.m.Left(nil), 0o555); err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	return f.cut()
}

// step makes one operation.
func (f *fuzzer) step() error {
	before := make(map[crash.Inode]string) // where directories were, which the step may move
	for _, dir := range f.p.Dirs() {
		before[dir] = f.p.Path(dir)
	}
	someName := make(map[crash.Inode]string)
	f.p.Now.Walk(func(path string, inode crash.Inode, _ int) { someName[inode] = f.mount + path })
	op, data, ok := f.p.Step()
	if !ok {
		return nil
	}
	path := func(e crash.Entry) string { return f.mount + before[e.Dir] + "/" + e.Name }
	var err error
	switch op.Kind {
	case crash.Create:
		f.fds[op.Inode], err = unix.Open(path(op.Entry), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|f.flags, 0o644)
	case crash.Mkdir:
		err = unix.Mkdir(path(op.Entry), 0o755)
	case crash.Unlink:
		err = unix.Unlink(path(op.Entry))
	case crash.Rmdir:
		err = unix.Rmdir(path(op.Entry))
	case crash.Link:
		err = unix.Link(someName[op.Inode], path(op.Entry))
	case crash.Rename:
		err = unix.Rename(path(op.Entry), path(op.To))
	case crash.Chmod:
		err = unix.Chmod(someName[op.Inode], modeOf(string(op.New), false))
	case crash.Truncate:
		err = unix.Ftruncate(f.fds[op.Inode], op.Size)
	case crash.Write:
		_, err = unix.Pwrite(f.fds[op.Inode], data, op.Off)
	case crash.Fallocate:
		switch {
		case op.Length == 0:
			err = unix.Fallocate(f.fds[op.Inode], 0, 0, op.Size)
		case op.Size > op.OldSize:
			err = unix.Fallocate(f.fds[op.Inode], unix.FALLOC_FL_ZERO_RANGE, op.Off, op.Size-op.Off)
		default:
			err = unix.Fallocate(f.fds[op.Inode], unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, op.Off, op.Length)
		}
	}
	f.m.Add(op, data)
	if err != nil {
		return fmt.Errorf("operation %d: %w", len(f.m.Ops), err)
	}
	return nil
}

// sync calls fsync(2) or fdatasync(2) on some file or directory.
func (f *fuzzer) sync() error {
	y := crash.Sync{Inode: oracle.Pick(f.p.Random, f.p.Dirs()), DataOnly: f.p.Random.IntN(4) == 0}
	fd, isFile := -1, false
	if _, inode := f.p.Entry(); inode != 0 && f.p.Random.IntN(2) == 0 {
		if fd, isFile = f.fds[inode], f.p.Now.Dirs[inode] == nil; isFile {
			y.Inode = inode
		}
	}
	if !isFile {
		var err error
		if fd, err = unix.Open(f.mount+f.p.Path(y.Inode), unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
			return err
		}
		defer unix.Close(fd)
	}
	y.IsDir = !isFile
	f.m.Sync(y)
	if y.DataOnly {
		return unix.Fdatasync(fd)
	}
	return unix.Fsync(fd)
}

// cut compares what is pending, cuts the power, and compares what is left.
func (f *fuzzer) cut() error {
	text, err := os.ReadFile(f.mount + "/.mapfs/pending")
	if err != nil {
		return err
	}
	f.m.Bury()
	want := f.m.Pending()
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(want) == 0 {
		lines = slices.DeleteFunc(lines, func(line string) bool { return line == "" })
	}
	if len(lines) != len(want) {
		return fmt.Errorf("pending:\n%s\nwant %v", text, want)
	}
	numbers := make(map[uint64]string) // the mount's, by the model's
	for i, line := range lines {
		if line == "" {
			return fmt.Errorf("pending:\n%s\nwant %v", text, want)
		}
		fields := strings.Fields(line)
		if kind := f.m.Ops[want[i]-1].Kind.String(); fields[1] != kind {
			return fmt.Errorf("pending:\n%s\nline %d should be a %s", text, i, kind)
		}
		numbers[want[i]] = fields[0]
	}
	keep, arg := f.choose(want, numbers)
	answer, err := command(f.mount, "powercut keep="+arg)
	legal := f.m.Legal(keep)
	if legal != (err == nil) {
		return fmt.Errorf("keep %v: legal %v, but %v: %s", keep, legal, err, answer)
	}
	left := f.m.Left(keep)
	if !legal {
		if !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("an illegal set is %w: %s", err, answer)
		}
		// Nothing has changed.
		if err := f.looks(f.mount, f.p.Now, 0o777); err != nil {
			return fmt.Errorf("after a refusal: %w", err)
		}
		if answer, err = command(f.mount, "powercut"); err != nil {
			return fmt.Errorf("powercut: %w: %s", err, answer)
		}
		left = f.m.Left(nil)
	}
	for _, fd := range f.fds {
		var st unix.Stat_t
		if _, err := unix.Pread(fd, make([]byte, 1), 0); err != unix.EIO {
			return fmt.Errorf("read of what was open: %v", err)
		}
		if err := unix.Fstat(fd, &st); err != unix.EIO {
			return fmt.Errorf("fstat of what was open: %v", err)
		}
	}
	if text, err := os.ReadFile(f.mount + "/.mapfs/pending"); err != nil || len(text) > 0 {
		return fmt.Errorf("pending after the cut: %q, %w", text, err)
	}
	for _, dir := range []string{f.mount, f.backing, f.mount + "/.mapfs/durable"} {
		mask := uint32(0o777)
		if strings.HasSuffix(dir, "durable") {
			mask = 0o555
		}
		if err := f.looks(dir, left, mask); err != nil {
			return fmt.Errorf("%s after the cut, keep %v: %w", dir, keep, err)
		}
	}
	return f.empty()
}

// choose returns a set of the pending operations, and how to say it.
func (f *fuzzer) choose(pending []uint64, numbers map[uint64]string) (keep map[uint64]bool, arg string) {
	keep = make(map[uint64]bool)
	switch f.p.Random.IntN(4) {
	case 0:
		return keep, "none"
	case 1:
		for _, n := range pending {
			keep[n] = true
		}
		return keep, "all"
	}
	var words []string
	for try := 0; try < 20 && (try == 0 || !f.m.Legal(keep)); try++ {
		clear(keep)
		words = nil
		for _, n := range pending {
			if f.p.Random.IntN(3) > 0 {
				keep[n] = true
				words = append(words, numbers[n])
			}
		}
	}
	if len(words) == 0 {
		return keep, "none"
	}
	return keep, strings.Join(words, ",")
}

// empty removes everything, for good.
func (f *fuzzer) empty() error {
	entries, err := os.ReadDir(f.mount)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "lost+found" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(f.mount, e.Name())); err != nil {
			return err
		}
	}
	answer, err := command(f.mount, "sync")
	if err != nil {
		return fmt.Errorf("sync: %w: %s", err, answer)
	}
	return nil
}

// command writes a line to the mount's ctl and returns the answer.
func command(mount, line string) (answer string, err error) {
	ctl, err := os.OpenFile(mount+"/.mapfs/ctl", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer ctl.Close()
	_, err = ctl.WriteString(line)
	text, readErr := io.ReadAll(ctl)
	if readErr != nil {
		return "", readErr
	}
	return string(text), err
}

// modeOf is what the model's word for a mode stands for, and wordOf the reverse of what mask
// leaves of it.
func modeOf(word string, isDir bool) uint32 {
	switch {
	case word != "":
		return 0o600 | []uint32{0, 1, 4, 5}[word[0]-'4']
	case isDir:
		return 0o755
	}
	return 0o644
}

func wordOf(mode, mask uint32) string {
	for _, word := range []string{"4", "5", "6", "7"} {
		if modeOf(word, false)&mask == mode {
			return word
		}
	}
	if mode == 0o755&mask || mode == 0o644&mask {
		return ""
	}
	return fmt.Sprintf("%o", mode)
}

// looks compares a directory with a world. mask says which permissions are shown.
func (f *fuzzer) looks(dir string, want *oracle.World, mask uint32) error {
	got := oracle.NewWorld()
	next := oracle.Root
	known := make(map[uint64]crash.Inode)
	var read func(path string, into crash.Inode) error
	read = func(path string, into crash.Inode) error {
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Name() == "lost+found" || e.Name() == ".mapfs" && path == f.mount {
				continue
			}
			at := filepath.Join(path, e.Name())
			var st unix.Stat_t
			if err := unix.Lstat(at, &st); err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
			inode := known[st.Ino]
			if inode == 0 {
				next++
				inode = next
				known[st.Ino] = inode
			}
			got.Dirs[into][e.Name()] = inode
			got.Attrs[crash.Attribute{Inode: inode, Name: "mode"}] = wordOf(st.Mode&0o777, mask)
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				got.Dirs[inode] = make(map[string]crash.Inode)
				if err := read(at, inode); err != nil {
					return err
				}
				continue
			}
			data, err := os.ReadFile(at)
			if err != nil {
				return err
			}
			if int64(len(data)) != st.Size {
				return fmt.Errorf("%s has %d bytes, stat says %d", at, len(data), st.Size)
			}
			got.Files[inode] = data
		}
		return nil
	}
	if err := read(dir, oracle.Root); err != nil {
		return err
	}
	if got.String() != want.String() {
		return fmt.Errorf("there is\n%s\nwant\n%s", brief(got), brief(want))
	}
	return nil
}

// brief lists a world with the beginnings of runs of equal bytes.
func brief(w *oracle.World) string {
	short := oracle.NewWorld()
	maps.Copy(short.Dirs, w.Dirs)
	maps.Copy(short.Attrs, w.Attrs)
	for inode, data := range w.Files {
		var b strings.Builder
		for i, c := range data {
			if i == 0 || data[i-1] != c {
				fmt.Fprintf(&b, "%d:%c ", i, c)
			}
		}
		fmt.Fprintf(&b, "%d", len(data))
		short.Files[inode] = []byte(b.String())
	}
	return short.String()
}
