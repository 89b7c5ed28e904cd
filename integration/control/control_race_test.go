package control

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

func init() {
	harness.AddVerb("disturb", clientDisturb)
}

// TestControlRace has readers of the tree at work while what it tells of is
// renamed, removed, cut, written and made again. Nothing they read may be wrong.
func TestControlRace(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		events := harness.StartClient(t, "watch", events(m), "r")
		events.Hear("open")
		events.Say("check")
		var procs []*harness.Process
		for range 2 {
			procs = append(procs, harness.StartClient(t, "disturb", m.Dir, "2"))
		}
		for _, p := range procs {
			p.Hear("done")
			p.Wait()
		}
		harness.Run(t, "touch", m.Path("the-end"))
		if got := events.Line(); !strings.Contains(got, " lines, ") {
			t.Errorf("the reader of events: %s", got)
		}
		events.Wait()
	})
}

// disturbed are the names that clientDisturb works on. Each file is filled with
// its own letter, and can come under the name of another one by a rename.
const disturbed = "abcdef"

// clientDisturb is `client disturb DIR SECONDS`.
func clientDisturb(args []string) error {
	d := disturber{dir: args[0], until: time.Now().Add(time.Duration(harness.Atoi64(args[1])) * time.Second)}
	errs := make(chan error, 100)
	var group sync.WaitGroup
	for i, work := range []func(r *rand.Rand) error{d.write, d.write, d.rename, d.cut, d.read, d.read, d.command} {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(i)))
			for time.Now().Before(d.until) {
				if err := work(random); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	group.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	fmt.Println("done")
	return nil
}

// disturber is one process of the load.
type disturber struct {
	dir   string
	until time.Time
}

// pick is the path of one of the files, which may not exist at the moment.
func (d *disturber) pick(r *rand.Rand) string {
	name := string(disturbed[r.IntN(len(disturbed))])
	if r.IntN(2) == 0 {
		name = "sub/" + name
	}
	return name
}

// expected drops the errors that tell of a file that went or came meanwhile.
func expected(err error) error {
	for _, errno := range []syscall.Errno{unix.ENOENT, unix.ESTALE, unix.EEXIST, unix.ENOTEMPTY, unix.EISDIR, unix.ENOTDIR} {
		if errors.Is(err, errno) {
			return nil
		}
	}
	return err
}

// write fills a file with the letter of its name, from the beginning.
func (d *disturber) write(r *rand.Rand) error {
	_ = os.Mkdir(filepath.Join(d.dir, "sub"), 0o755)
	name := d.pick(r)
	// A new file under the name, so that all bytes of a file are one letter.
	f, err := os.OpenFile(filepath.Join(d.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return expected(err)
	}
	defer f.Close()
	letter := name[len(name)-1:]
	for range 1 + r.IntN(5) {
		if _, err := f.WriteString(strings.Repeat(letter, 1+r.IntN(pages(3)))); err != nil {
			return err
		}
	}
	return nil
}

// rename moves or removes a file or the directory.
func (d *disturber) rename(r *rand.Rand) error {
	from, to := filepath.Join(d.dir, d.pick(r)), filepath.Join(d.dir, d.pick(r))
	switch r.IntN(8) {
	case 0:
		from, to = filepath.Join(d.dir, "sub"), filepath.Join(d.dir, "other")
		if err := os.Rename(from, to); err != nil {
			return expected(err)
		}
		return expected(os.Rename(to, from))
	case 1, 2, 3:
		return expected(os.Remove(from))
	}
	return expected(os.Rename(from, to))
}

// cut makes a file shorter, and writes it back at times.
func (d *disturber) cut(r *rand.Rand) error {
	f, err := os.OpenFile(filepath.Join(d.dir, d.pick(r)), os.O_RDWR, 0)
	if err != nil {
		return expected(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return expected(err)
	}
	// Never longer: zeros would be no letter. Two who cut at a time could still
	// make it longer; that is why read takes zeros for right.
	if err := f.Truncate(r.Int64N(info.Size() + 1)); err != nil {
		return expected(err)
	}
	if r.IntN(4) == 0 {
		return expected(f.Sync())
	}
	return nil
}

// command writes to the ctl files.
func (d *disturber) command(r *rand.Rand) error {
	path := filepath.Join(d.dir, ".mapfs", "files", d.pick(r), "ctl")
	text := []string{"msync", "msync flags=async", "msync flags=invalidate", "madvise advice=dontneed",
		"madvise advice=willneed", fmt.Sprintf("msync offset=%d", pages(r.IntN(8))), "mlock", "munlock", "sync"}[r.IntN(9)]
	if text == "sync" {
		path = filepath.Join(d.dir, ".mapfs", "ctl")
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return expected(fmt.Errorf("open of ctl: %w", err))
	}
	defer unix.Close(fd)
	b := make([]byte, 1000)
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		n, _ := unix.Read(fd, b)
		// Cut meanwhile; locked by another, which is EINVAL for madvise(2).
		locked := errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) && strings.HasPrefix(text, "madvise")
		if locked || errors.Is(err, unix.ENOMEM) {
			return nil
		}
		return expected(fmt.Errorf("%s: %w: %s", text, err, b[:max(n, 0)]))
	}
	if n, err := unix.Read(fd, b); err != nil || string(b[:n]) != "ok\n" {
		return fmt.Errorf("answer to %s: %q %v", text, b[:max(n, 0)], err)
	}
	return nil
}

// The lines that the files of the tree consist of.
var (
	statusText   = regexp.MustCompile(`^(?:[a-z_]+ [^\n]+\n)+$`)
	unsyncedText = regexp.MustCompile(`^(?:\d+ [1-9]\d* (?:write|truncate)\n)*$`)
	mapsText     = regexp.MustCompile(`^(?:[0-9a-f]+-[0-9a-f]+ r[w-]-s 00000000 [0-9a-f]{2}:[0-9a-f]{2} \d+ \S+\n)*$`)
)

// read reads one file of the tree and checks what can be said of it whatever the
// others do.
func (d *disturber) read(r *rand.Rand) error {
	tree := filepath.Join(d.dir, ".mapfs")
	name := d.pick(r)
	get := func(path string) (string, error) {
		data, err := os.ReadFile(path)
		return string(data), err
	}
	leaf := []string{"status", "pages", "map", "unsynced", "memory", "backing", "maps", "list"}[r.IntN(8)]
	switch leaf {
	case "maps":
		text, err := get(filepath.Join(tree, "maps"))
		if err == nil && !mapsText.MatchString(text) {
			err = fmt.Errorf("maps is %q", text)
		}
		return err
	case "list":
		entries, err := os.ReadDir(filepath.Join(tree, "files", "sub"))
		for _, e := range entries {
			if len(e.Name()) != 1 || !strings.Contains(disturbed, e.Name()) {
				return fmt.Errorf("the mirror has an entry %q", e.Name())
			}
		}
		return expected(err)
	}
	text, err := get(filepath.Join(tree, "files", name, leaf))
	if err != nil {
		return expected(err)
	}
	switch leaf {
	case "status":
		if !statusText.MatchString(text) || strings.Count(text, "\n") != len(fileKeys) || !strings.Contains(text, "\nerror none\n") {
			return fmt.Errorf("status of %s is %q", name, text)
		}
	case "pages":
		runs, err := parsePages(text)
		if err != nil {
			return fmt.Errorf("pages of %s: %w", name, err)
		}
		if k := len(runs); k > 0 && runs[k-1].last > 15*3 {
			return fmt.Errorf("pages of %s has too many: %q", name, text)
		}
	case "map":
		if !strings.HasSuffix(text, "U unsynced  . none\n") {
			return fmt.Errorf("map of %s is %q", name, text)
		}
	case "unsynced":
		if !unsyncedText.MatchString(text) {
			return fmt.Errorf("unsynced of %s is %q", name, text)
		}
	case "memory", "backing":
		// One letter, and zeros: a file read here is never another one's.
		rest := bytes.Trim([]byte(text), "\x00")
		if len(rest) > 0 && len(bytes.Trim(rest, string(rest[0])+"\x00")) > 0 {
			return fmt.Errorf("%s of %s has more than one letter: %.100q", leaf, name, rest)
		}
	}
	return nil
}

// TestControlLeaks does everything often, and then counts what is left of it.
func TestControlLeaks(t *testing.T) {
	dir := harness.TempDir(t)
	m := harness.Mount(t, dir)
	round := func() {
		harness.Run(t, "sh", "-c", `cd "$1" && for i in $(seq 20); do echo x >f$i; t=.mapfs/files/f$i
			cat $t/status $t/pages $t/map $t/unsynced $t/memory $t/backing .mapfs/maps .mapfs/status .mapfs/metrics
			ls -R .mapfs
			for c in msync "msync offset=1" frob "mlock" "msync flags=invalidate" munlock; do echo "$c" >$t/ctl; done
			echo frob >.mapfs/ctl; echo sync >.mapfs/ctl
			head -c 100 .mapfs/events; done >/dev/null 2>&1; rm f*; true`, "sh", m.Dir)
		for range 3 {
			cat := startCat(t, m)
			cat.Kill()
		}
		w := harness.StartClient(t, "watch", events(m), "r|nonblock")
		w.Hear("open")
		drainWatch(t, w)
		// Polls that nothing ever answers.
		if got := w.Ask("polls 300"); got != "ok" {
			t.Error(got)
		}
		w.Wait()
		harness.Run(t, "rm", "-rf", m.Path("touched"))
	}
	round()
	fds := m.Fds()
	for range 3 {
		round()
	}
	m.Settles(fds+16, 0, harness.SettleLimit)

	// A dump of the goroutines is how a daemon that is under suspicion ends.
	dump := m.Dump()
	if n := strings.Count("\n"+dump, "\ngoroutine "); n == 0 || n > 60 {
		t.Errorf("%d goroutines are left; many are:\n%s", n, commonest(dump))
	}
}

// commonest are the tops of the goroutines of a dump, each with how often it is
// there.
func commonest(dump string) string {
	count := make(map[string]int)
	for _, g := range strings.Split(dump, "\n\n") {
		if lines := strings.SplitN(g, "\n", 3); len(lines) > 1 && strings.HasPrefix(lines[0], "goroutine ") {
			call, _, _ := strings.Cut(lines[1], "(")
			count[call]++
		}
	}
	var text strings.Builder
	for call, n := range count {
		if n > 5 {
			fmt.Fprintf(&text, "%d in %s\n", n, call)
		}
	}
	return text.String()
}
