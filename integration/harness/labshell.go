package harness

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

	"mapfs/docs/lab"
	"mapfs/internal/need"
)

// Update makes the tests of transcripts write what the commands print, instead
// of comparing it.
var Update = flag.Bool("update", false, "write the outputs of the lab and of the table of statements anew")

// LabShell is a bash session in a scratch directory that has backing and, as a
// mount, mnt: what "mapfs lab" gives to a person.
type LabShell struct {
	*Process
	Unmount func()
}

// QuickRace lets a command that has the race detector in it end at once, and not
// after a second.
const QuickRace = "GORACE=atexit_sleep_ms=0"

// StartLabShell mounts DIR/backing on DIR/mnt, both new, and starts bash in dir.
func StartLabShell(t *testing.T, dir string) *LabShell {
	t.Helper()
	need.Tool(t, "bash")
	m := MountWith(t, SubDir(t, dir, "backing"), MountConfig{Dir: SubDir(t, dir, "mnt")})
	bin := SubDir(t, TempDir(t), "bin")
	if err := os.Symlink(Binary, filepath.Join(bin, "mapfs")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "--norc", "--noprofile")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "LC_ALL=C", "TERM=dumb", "NO_COLOR=1", QuickRace)
	sh := &LabShell{StartProc(t, cmd), m.Unmount}
	sh.Say("exec 2>&1")
	return sh
}

// endOfOutput stands on a line of its own after a command's output.
const endOfOutput = "-- end of output --"

// Run gives the shell one command and returns the lines that it prints, to stdout
// and stderr.
func (sh *LabShell) Run(command string) (output []string) {
	sh.t.Helper()
	quoted := "'" + strings.ReplaceAll(command, "'", `'\''`) + "'"
	// Its stdin is not the shell's: it would read the next commands.
	sh.Say("eval %s </dev/null; printf '\\n%%s\\n' '%s'", quoted, endOfOutput)
	for {
		line := sh.Line()
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

// Step is a command of a transcript and what it prints.
type Step struct {
	Command string
	Output  []string
}

// Matches reports whether a line is as documented: "..." stands for any
// characters.
func Matches(documented, line string) bool {
	parts := strings.Split(documented, "...")
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(line)
}

// AsDocumented returns printed with each line that a documented one with "..."
// stands for replaced by that, so that an update keeps it.
func AsDocumented(documented, printed []string) (lines []string) {
	for _, line := range printed {
		i := slices.IndexFunc(documented, func(d string) bool { return Matches(d, line) })
		if i >= 0 {
			line = documented[i]
		}
		lines = append(lines, line)
	}
	return lines
}

// transcript is a Markdown text in pieces: plain lines, and between them the
// steps of its console blocks.
type transcript []any

// readTranscript takes a text apart. In a block "```console" a line "$ COMMAND"
// begins a step, and what follows is its output.
func readTranscript(t *testing.T, name, text string) (all transcript) {
	t.Helper()
	inBlock := false
	var last *Step
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case !inBlock || line == "```":
			inBlock, last = line == "```console", nil
			all = append(all, line)
		case isCommand:
			last = &Step{Command: command}
			all = append(all, last)
		case last == nil:
			t.Fatalf("%s: output before the first command: %q", name, line)
		default:
			last.Output = append(last.Output, line)
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
		case *Step:
			fmt.Fprintln(&b, "$ "+piece.Command)
			for _, line := range piece.Output {
				fmt.Fprintln(&b, line)
			}
		}
	}
	return b.String()
}

// WithoutDirty is an exercise as it is where the kernel calls no page dirty, on tmpfs
// and in a Docker container: there the program's own record is all that is shown.
func WithoutDirty(e lab.Exercise) lab.Exercise {
	e.Text = strings.ReplaceAll(e.Text, "  DDDD\n", "  UUUU\n")
	return e
}

func FollowExercise(t *testing.T, sh *LabShell, e lab.Exercise) {
	t.Helper()
	source := e.Text
	if size := os.Getpagesize(); !*Update {
		source = e.For(size)
	} else if size != 4096 {
		t.Fatalf("the texts are written for pages of 4096 bytes, and these have %d", size)
	}
	text := readTranscript(t, e.Name, source)
	if got := text.String(); got != source {
		t.Fatalf("the text does not survive being read:\n%s", got)
	}
	for _, piece := range text {
		step, ok := piece.(*Step)
		if !ok {
			continue
		}
		printed := AsDocumented(step.Output, sh.Run(step.Command))
		if !*Update && !slices.Equal(printed, step.Output) {
			t.Errorf("$ %s\nprints\n%s\nand the text says\n%s", step.Command,
				strings.Join(printed, "\n"), strings.Join(step.Output, "\n"))
		}
		step.Output = printed
	}
	// An exercise leaves nothing behind that keeps the mount busy.
	sh.Unmount()
	if *Update && !t.Failed() {
		path := Repo("docs", "lab", e.Name)
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
