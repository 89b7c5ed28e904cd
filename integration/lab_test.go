package integration

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/docs/lab"
	"mapfs/internal/need"
)

// update makes the tests of transcripts write what the commands print, instead
// of comparing it.
var update = flag.Bool("update", false, "write the outputs of the lab and of the table of statements anew")

// labShell is a bash session in a scratch directory that has backing and, as a
// mount, mnt: what "mapfs lab" gives to a person.
type labShell struct {
	*proc
	unmount func()
}

// quickRace lets a command that has the race detector in it end at once, and not
// after a second.
const quickRace = "GORACE=atexit_sleep_ms=0"

// startLabShell mounts DIR/backing on DIR/mnt, both new, and starts bash in dir.
func startLabShell(t *testing.T, dir string) *labShell {
	t.Helper()
	need.Tool(t, "bash")
	m := mountWith(t, subDir(t, dir, "backing"), mountConfig{dir: subDir(t, dir, "mnt")})
	bin := subDir(t, tempDir(t), "bin")
	if err := os.Symlink(mapfsBin, filepath.Join(bin, "mapfs")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "--norc", "--noprofile")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "LC_ALL=C", "TERM=dumb", "NO_COLOR=1", quickRace)
	sh := &labShell{startProc(t, cmd), m.unmount}
	sh.say("exec 2>&1")
	return sh
}

// endOfOutput stands on a line of its own after a command's output.
const endOfOutput = "-- end of output --"

// run gives the shell one command and returns the lines that it prints, to stdout
// and stderr.
func (sh *labShell) run(command string) (output []string) {
	sh.t.Helper()
	quoted := "'" + strings.ReplaceAll(command, "'", `'\''`) + "'"
	// Its stdin is not the shell's: it would read the next commands.
	sh.say("eval %s </dev/null; printf '\\n%%s\\n' '%s'", quoted, endOfOutput)
	for {
		line := sh.line()
		if line == endOfOutput {
			break
		}
		output = append(output, line)
	}
	last := len(output) - 1
	if last < 0 || output[last] != "" {
		sh.t.Fatalf("%s\nits output does not end with a newline, so a prompt would stand behind it: %q", command, output)
	}
	return output[:last]
}

// step is a command of a transcript and what it prints.
type step struct {
	command string
	output  []string
}

// matches reports whether a line is as documented: "..." stands for any
// characters.
func matches(documented, line string) bool {
	parts := strings.Split(documented, "...")
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(line)
}

// asDocumented returns printed with each line that a documented one with "..."
// stands for replaced by that, so that an update keeps it.
func asDocumented(documented, printed []string) (lines []string) {
	for _, line := range printed {
		i := slices.IndexFunc(documented, func(d string) bool { return matches(d, line) })
		if i >= 0 {
			line = documented[i]
		}
		lines = append(lines, line)
	}
	return lines
}

// transcript is a Markdown text in pieces: plain lines, and between them the
// steps of its console blocks.
type transcript []any // string, a line; or *step

// readTranscript takes a text apart. In a block "```console" a line "$ COMMAND"
// begins a step, and what follows is its output.
func readTranscript(t *testing.T, name, text string) (all transcript) {
	t.Helper()
	inBlock := false
	var last *step
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case !inBlock || line == "```":
			inBlock, last = line == "```console", nil
			all = append(all, line)
		case isCommand:
			last = &step{command: command}
			all = append(all, last)
		case last == nil:
			t.Fatalf("%s: output before the first command: %q", name, line)
		default:
			last.output = append(last.output, line)
		}
	}
	return all
}

// String is the text again.
func (all transcript) String() string {
	var b strings.Builder
	for _, piece := range all {
		switch piece := piece.(type) {
		case string:
			fmt.Fprintln(&b, piece)
		case *step:
			fmt.Fprintln(&b, "$ "+piece.command)
			for _, line := range piece.output {
				fmt.Fprintln(&b, line)
			}
		}
	}
	return b.String()
}

// withoutDirty is an exercise as it is where the kernel calls no page dirty, on tmpfs
// and in a Docker container: there the program's own record is all that is shown.
func withoutDirty(e lab.Exercise) lab.Exercise {
	e.Text = strings.ReplaceAll(e.Text, "  DDDD\n", "  UUUU\n")
	return e
}

// TestLab follows every exercise as a person would, in one shell session, and
// compares what is printed with what the text says. -update corrects the text.
func TestLab(t *testing.T) {
	requireFUSE(t)
	for _, e := range lab.Exercises() {
		t.Run(e.Name, func(t *testing.T) {
			eachFS(t, func(t *testing.T, dir string) {
				here := e
				if fsType(t, dir) == unix.TMPFS_MAGIC {
					if *update {
						return
					}
					here = withoutDirty(e)
				}
				followExercise(t, startLabShell(t, dir), here)
			})
		})
	}
}

func followExercise(t *testing.T, sh *labShell, e lab.Exercise) {
	t.Helper()
	source := e.Text
	if size := os.Getpagesize(); !*update {
		source = e.For(size)
	} else if size != 4096 {
		t.Fatalf("the texts are written for pages of 4096 bytes, and these have %d", size)
	}
	text := readTranscript(t, e.Name, source)
	if got := text.String(); got != source {
		t.Fatalf("the text does not survive being read:\n%s", got)
	}
	for _, piece := range text {
		step, ok := piece.(*step)
		if !ok {
			continue
		}
		printed := asDocumented(step.output, sh.run(step.command))
		if !*update && !slices.Equal(printed, step.output) {
			t.Errorf("$ %s\nprints\n%s\nand the text says\n%s", step.command,
				strings.Join(printed, "\n"), strings.Join(step.output, "\n"))
		}
		step.output = printed
	}
	// An exercise leaves nothing behind that keeps the mount busy.
	sh.unmount()
	if *update && !t.Failed() {
		path := filepath.Join("..", "docs", "lab", e.Name)
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDemo runs what "make demo" runs, which leaves nothing behind.
func TestDemo(t *testing.T) {
	requireFUSE(t)
	top := tempDir(t)
	cmd := exec.Command("../docs/demo.sh", mapfsBin)
	cmd.Env = append(os.Environ(), "TMPDIR="+top, quickRace)
	t.Cleanup(func() { clearMounts(t, top) })
	out, err := runCmd(cmd, clientTimeout)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range lab.Exercises()[:3] {
		if title := fmt.Sprintf("\n# Exercise %02d %s\n$ ", e.Number, e.Title); !strings.Contains(out, title) {
			t.Errorf("no %q:\n%s", title, out)
		}
	}
	expect(t, run(t, "ls", "-A", top), "", "left behind")
	if left := clearMounts(t, top); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestLabMatches is the test of the tests' one wildcard.
func TestLabMatches(t *testing.T) {
	for _, c := range []struct {
		documented, line string
		want             bool
	}{
		{"a...z", "a to z", true},
		{"a...z", "az", true},
		{"a...z", "a to zz top", false},
		{"...", "", true},
		{"a.z", "abz", false},
		{"pid=...", "pid=17 x", true},
		{"", "x", false},
	} {
		if got := matches(c.documented, c.line); got != c.want {
			t.Errorf("matches(%q, %q) = %v, want %v", c.documented, c.line, got, c.want)
		}
	}
}
