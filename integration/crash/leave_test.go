package crash

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mapfs/fs/crash"
	"mapfs/fs/crash/explore"
	"mapfs/fs/crash/image"
	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// everyday are small scripts that people write, with what they mean to do. Each begins with
// a file f that has "old" and is on the disk.
var everyday = []struct{ what, script string }{
	{"write over a file", "echo new > f"},
	{"the same, and sync it", "echo new > f; sync f"},
	{"save by rename", "echo new > t; mv t f"},
	{"the same, and sync the file before", "echo new > t; sync t; mv t f"},
	{"the same, and the directory after", "echo new > t; sync t; mv t f; sync ."},
	{"write a new file", "echo new > g"},
	{"the same, and sync it", "echo new > g; sync g"},
	{"append", "echo more >> f"},
	{"append to a new file, twice, one sync", "echo a > g; sync g; echo b >> g"},
	{"write in the middle", "printf NEW | dd of=f conv=notrunc status=none"},
	{"cut off, and write", "truncate -s 0 f; printf x >> f"},
	{"store into a mapping", "mapfs poke f 0 NEW"},
	{"the same, and msync(2)", "mapfs poke --msync sync f 0 NEW"},
	{"copy, then delete", "cp f g; rm f"},
	{"the same, and sync the copy", "cp f g; sync g; rm f"},
	{"rename, and write a new one", "mv f g; echo new > f"},
	{"move into a new directory", "mkdir d; mv f d/f"},
	{"make a directory and a file, sync the file", "mkdir d; echo new > d/f; sync d/f"},
	{"edit in place", "sed -i s/old/new/ f"},
	{"a sync of another file", "echo new > t; mv t f; echo o > o; sync o"},
	{"a link", "ln f g"},
	{"delete", "rm f"},
}

// columns are what a script runs on: a filesystem itself, or the rules of a model.
var columns = []string{"ext4", "xfs", "btrfs", "model posix", "model ext4"}

// alwaysKept is how many scripts are tried again at each run of the tests, on ext4 and by
// the models; the others are when the document is made, by -update.
const alwaysKept = 5

const leaveDocument = "docs/what-filesystems-leave.md"

// TestWhatFilesystemsLeave holds the table in the document to what filesystems and models
// leave of everyday scripts when the power is cut right after them.
func TestWhatFilesystemsLeave(t *testing.T) {
	need.Root(t)
	path := harness.Repo(strings.Split(leaveDocument, "/")...)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- table -->\n", "<!-- end -->\n"
	before, rest, found := strings.Cut(string(text), begin)
	_, after, found2 := strings.Cut(rest, end)
	if !found || !found2 {
		t.Fatalf("%s has no %q and %q", leaveDocument, begin, end)
	}
	var table strings.Builder
	fmt.Fprintf(&table, "| | script | %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)+2))
	for i, e := range everyday {
		if i >= alwaysKept && !*harness.Update {
			break
		}
		fmt.Fprintf(&table, "| %s | %s |", e.what, inTable(e.script))
		for _, column := range columns {
			cell := ""
			if column == "xfs" || column == "btrfs" {
				cell = documentedCell(rest, e.script, column)
			}
			if cell == "" || *harness.Update {
				cell = strings.Join(leftBy(t, column, e.script), "; ")
			}
			fmt.Fprintf(&table, " %s |", cell)
		}
		table.WriteByte('\n')
	}
	if *harness.Update {
		if err := os.WriteFile(path, []byte(before+begin+table.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if documented, _, _ := strings.Cut(rest, end); !strings.HasPrefix(documented, table.String()) {
		t.Errorf("%s says\n%s\nand this is left:\n%s", leaveDocument, documented, table.String())
	}
}

// inTable writes a script in a table.
func inTable(script string) string { return "`" + strings.ReplaceAll(script, "|", `\|`) + "`" }

// documentedCell returns what a document's table has for a script in a column.
func documentedCell(table, script, column string) string {
	for row := range strings.Lines(table) {
		cells := strings.Split(row, " | ")
		if len(cells) == len(columns)+2 && cells[1] == inTable(script) {
			return strings.TrimSuffix(strings.TrimSpace(cells[2+slices.Index(columns, column)]), " |")
		}
	}
	return ""
}

// leftBy returns the states that a power cut right after a script leaves, on a filesystem
// or by a model, sorted.
func leftBy(t *testing.T, column, script string) []string {
	t.Helper()
	dir := harness.TempDir(t)
	from := harness.SubDir(t, dir, "from")
	harness.MakeFile(t, filepath.Join(from, "f"), "old\n")
	model, isModel := strings.CutPrefix(column, "model ")
	args := []string{"crash", "record", "--from", from, filepath.Join(dir, "run"), "--", "sh", "-ec", script + "\necho done"}
	l := &lister{states: make(map[string]bool)}
	o := explore.Options{Checker: l, Model: crash.Posix{}, Budget: 20 * time.Second, Seed: 1, Torn: 512, Jobs: 2, Dir: harness.SubDir(t, dir, "work")}
	if isModel {
		var err error
		if o.Model, err = crash.ModelOf(model); err != nil {
			t.Fatal(err)
		}
	} else {
		device := deviceOf(t, column)
		args = slices.Insert(args, 2, "--fs", column)
		o.Checker, o.Device, o.Torn = explore.Image{FS: device, Then: l}, true, 0
		if device.Alone {
			o.Jobs = 1
		}
	}
	t.Setenv("PATH", filepath.Dir(harness.Binary)+":"+os.Getenv("PATH"))
	o.Checker = atTheEnd{o.Checker}
	harness.Run(t, harness.Binary, args...)
	recording, err := crash.OpenRecording(filepath.Join(dir, "run", "recording"))
	if err != nil {
		t.Fatal(err)
	}
	defer recording.Close()
	o.Recording = recording
	r, err := explore.Run(t.Context(), o)
	if err != nil || !r.Complete && !o.Device || r.Failures > 0 {
		t.Fatalf("%s on %s: %v %+v", script, column, err, r)
	}
	var states []string
	for state := range l.states {
		states = append(states, state)
	}
	slices.Sort(states)
	return states
}

// deviceOf returns a filesystem on images, or says that the machine cannot have it.
func deviceOf(t *testing.T, name string) image.FS {
	t.Helper()
	device, err := image.Of(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := device.Missing(); err != nil {
		need.Missing(t, name, "%v", err)
	}
	return device
}

// atTheEnd has a checker look at states only for which all is promised.
type atTheEnd struct{ explore.Checker }

func (c atTheEnd) Check(ctx context.Context, dir string, promises []string) (explore.Verdict, error) {
	if len(promises) == 0 {
		return explore.Verdict{Good: true}, nil
	}
	return c.Checker.Check(ctx, dir, promises)
}

// lister lists states.
type lister struct {
	mu     sync.Mutex
	states map[string]bool
}

func (l *lister) Check(_ context.Context, dir string, _ []string) (explore.Verdict, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, dir+"/")
		if err != nil || path == dir || name == "lost+found" {
			return err
		}
		if d.IsDir() {
			entries, err := os.ReadDir(path)
			if len(entries) == 0 {
				files = append(files, name+"/")
			}
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files = append(files, temporary.ReplaceAllString(name, "sedXXXXXX")+shown(string(text)))
		return nil
	})
	if err != nil {
		return explore.Verdict{}, err
	}
	state := strings.Join(files, " ")
	if state == "" {
		state = "nothing"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states[state] = true
	return explore.Verdict{Good: true}, nil
}

// temporary is a name that sed(1) makes for itself.
var temporary = regexp.MustCompile(`^sed\w{6}$`)

// shown is how a table tells of a file's bytes: its lines, and zeros as dots, or as their
// number.
func shown(text string) string {
	if text == "" {
		return " empty"
	}
	text = strings.ReplaceAll(strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "+"), "\x00", ".")
	return "=" + manyZeros.ReplaceAllStringFunc(text, func(zeros string) string { return fmt.Sprintf("(%d_zeros)", len(zeros)) })
}

var manyZeros = regexp.MustCompile(`\.{10,}`)
