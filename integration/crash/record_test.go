package crash

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mapfs/fs/crash"
	"mapfs/fs/crash/explore"
	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// everyOperation is a script that does each kind of operation, also with hard links, moved
// directories and files whose first mention is not by their name.
const everyOperation = `
ln f g; mv a c; echo z >> c/b/g; ln c/b/g k; mv c/b b; echo w >> c/h; rm f; mkdir n; mv b n/b; echo q >> n/b/g
chmod 600 g; ln -s x s; mkfifo p; mv -T n/b/empty n/b/other; rmdir n/b/other; truncate -s 3 k; truncate -s 5000 k
fallocate -l 9000 e; fallocate -p -o 4096 -l 4096 big; printf x | dd of=big bs=1 seek=5000 conv=notrunc status=none
"$MAPFS" poke big 8000 stored; echo gone > gone; rm gone; sync n/b; chmod 750 n; sync big; echo "name with spaces" > 'a b'
mv g "$(printf 'no\377utf8')"; mv 'a b' k; echo last > c/last; mv c/last n/last; ln n/last n/again; rm n/last`

// TestRecordedTree: the tree in which all operations of a recording survive is the one that the
// program leaves on another filesystem.
func TestRecordedTree(t *testing.T) {
	dir := harness.TempDir(t)
	t.Setenv("MAPFS", harness.Binary)
	const makes = "echo x > f; mkdir -p a/b a/b/empty; mkdir a/b/other; echo y > a/b/g; ln f a/h; head -c 20000 /dev/urandom > big"
	from := harness.SubDir(t, dir, "from")
	harness.InDir(t, from, makes)
	native := filepath.Join(dir, "native")
	harness.Run(t, "cp", "-a", from, native)
	harness.InDir(t, native, everyOperation)
	run := filepath.Join(dir, "run")
	harness.Run(t, harness.Binary, "crash", "record", "--from", from, run, "--", "sh", "-ec", everyOperation+"; echo done")

	r, err := crash.OpenRecording(filepath.Join(run, "recording"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o := &explore.Options{Recording: r, Dir: harness.SubDir(t, dir, "work")}
	for _, model := range crash.Models() {
		o.Model = model
		left := filepath.Join(dir, "left-"+model.Name())
		whole := &explore.Finding{Event: eventsOf(t, r), Choice: crash.Choice{All: true}}
		if err := explore.Build(o, whole, left); err != nil {
			t.Fatal(err)
		}
		const list = `find . -mindepth 1 -printf '%P %M %n %l ' \( -type f -exec md5sum '{}' \; -o -printf '\n' \) | sort`
		harness.Expect(t, harness.InDir(t, left, list), harness.InDir(t, native, list), "the tree by "+model.Name())
	}
}

// eventsOf counts the events of a recording.
func eventsOf(t *testing.T, r *crash.Recording) (n uint64) {
	t.Helper()
	err := r.Each(func(*crash.Event) error {
		n++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// mapfsCrash runs "mapfs crash" and returns what it prints and its exit code.
func mapfsCrash(t *testing.T, args ...string) (string, int) {
	t.Helper()
	out, err := harness.RunCmd(exec.Command(harness.Binary, append([]string{"crash"}, args...)...), 2*time.Minute)
	code := harness.ExitCode(err)
	if code != 0 && code != 3 {
		t.Logf("mapfs crash %q: %v %s", args, err, out)
	}
	return out, code
}

var seconds = regexp.MustCompile(`[0-9.]+ s\)`)

// TestCrashStory: somebody who has never heard of fsync is told in 15 lines what is wrong.
func TestCrashStory(t *testing.T) {
	out, code := mapfsCrash(t, "--model", "posix", "--", "sh", "-c", "echo 1 > t; mv t f; echo saved")
	harness.Expect(t, seconds.ReplaceAllString(out, "T s)"), `saved
1. "saved" was promised. After a power cut then, f is empty.
     lost     2 write t 0 2
     missing  fsync t after "write t 0 2" and before "rename t f"; with it this cannot happen
2. "saved" was promised. After a power cut then, f is missing, t is there still.
     lost     3 rename t f
     missing  fsync . after "rename t f" and before "saved" is promised; with it this cannot happen
4 states are not good (2036 states, 10 of them different; rules of posix; T s).
An fsync(2) of a file or directory waits until it is on the disk; in a shell: sync PATH.
To keep the states and a page that shows them, run it again with --report DIR.
`, "the story")
	if code != 3 {
		t.Errorf("exit code %d", code)
	}
	out, code = mapfsCrash(t, "--", "sh", "-c", "echo 1 > t; sync t; mv t f; sync .; echo saved")
	if code != 0 || !strings.Contains(out, "No power cut breaks it") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	// A program that promises nothing has promised all by its end.
	if _, code = mapfsCrash(t, "--", "sh", "-c", "echo 1 > f"); code != 3 {
		t.Errorf("without a promise: exit code %d", code)
	}
	// What nobody can see is not lost.
	if _, code = mapfsCrash(t, "--", "sh", "-c", "echo 1 > f; rm f; sync .; echo done"); code != 0 {
		t.Errorf("a file that is gone: exit code %d", code)
	}
	if out, code = mapfsCrash(t, "--", "true"); code != 0 || !strings.Contains(out, "Nothing was done") {
		t.Errorf("nothing was done: exit code %d:\n%s", code, out)
	}
	// What the program does not survive without a promise: old and new bytes are lost.
	from := harness.TempDir(t)
	harness.MakeFile(t, filepath.Join(from, "f"), "old\n")
	out, code = mapfsCrash(t, "--from", from, "--", "sh", "-c", "echo start; echo new > f; sync f")
	if code != 3 || !strings.Contains(out, "f is empty") {
		t.Errorf("a file that is written over: exit code %d:\n%s", code, out)
	}
}

// TestCrashReport: what a report has, in all its forms, and what can be done with it.
func TestCrashReport(t *testing.T) {
	dir := harness.TempDir(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	const script = "echo 1 > t; mv t f; echo saved"
	const check = `read promise || exit 0; grep -q 1 f || { echo "no 1 <in> f"; exit 7; }`
	if _, code := mapfsCrash(t, "--report", path("report"), "--json", path("json"), "--junit", path("junit"), "--check", check, "--", "sh", "-c", script); code != 3 {
		t.Fatalf("exit code %d", code)
	}
	var report explore.Report
	text, err := os.ReadFile(path("json"))
	if err == nil {
		err = json.Unmarshal(text, &report)
	}
	if err != nil || len(report.Findings) != 2 || report.Findings[0].Status != 7 || report.Findings[0].Output != "no 1 <in> f\n" || len(report.Command) != 3 || report.Check != check {
		t.Errorf("%v: %s", err, text)
	}
	kept, err := os.ReadFile(path("report/report.json"))
	if err != nil || string(kept) != string(text) {
		t.Errorf("the report's own JSON differs: %v", err)
	}
	// The states are there, are made again, and can be worked on.
	for _, f := range report.Findings {
		number := fmt.Sprint(f.ID)
		list := "ls; cat f 2>/dev/null || echo none; : > new"
		want := harness.InDir(t, path("report/states/"+number), list)
		again, code := mapfsCrash(t, "replay", path("report"), number, "--", "sh", "-c", list+`; test "$PWD" = "$MAPFS_STATE"`)
		harness.Expect(t, again, want, "state "+number)
		if code != 0 {
			t.Errorf("exit code of replay: %d", code)
		}
	}
	if _, code := mapfsCrash(t, "replay", path("report"), "--", "sh", "-c", "exit 9"); code != 9 {
		t.Errorf("the exit code of replay is %d, not that of its command", code)
	}
	listed, _ := mapfsCrash(t, "list", path("report"))
	if !strings.Contains(listed, "1. ") || !strings.Contains(listed, "index.html") {
		t.Errorf("list says %q", listed)
	}
	checkJUnit(t, path("junit"), 2)

	// The same in two steps, twice, is the same.
	if _, code := mapfsCrash(t, "record", path("run"), "--", "sh", "-c", script+"; exit 5"); code != 5 {
		t.Errorf("the exit code of record is %d, not that of its command", code)
	}
	var reports [2]string
	for i := range reports {
		if _, code := mapfsCrash(t, "explore", "--check", check, "--seed", "7", "--jobs", fmt.Sprint(i+1), "--json", path("again"), path("run")); code != 3 {
			t.Errorf("exit code of explore: %d", code)
		}
		text, err := os.ReadFile(path("again"))
		if err != nil {
			t.Fatal(err)
		}
		reports[i] = regexp.MustCompile(`"seconds": .*`).ReplaceAllString(string(text), "")
	}
	harness.Expect(t, reports[1], reports[0], "the report of the same recording")

	// In shards, put together.
	for _, shard := range []string{"1/2", "2/2"} {
		mapfsCrash(t, "explore", "--check", check, "--shard", shard, "--report", path("shard"+shard[:1]), path("run"))
	}
	out, code := mapfsCrash(t, "merge", path("shard1"), path("shard2"), "--junit", path("merged"))
	if code != 3 || !strings.Contains(out, "2. ") {
		t.Errorf("merge: exit code %d:\n%s", code, out)
	}
	checkJUnit(t, path("merged"), 2)
	if _, code := mapfsCrash(t, "merge", path("shard1")); code != 1 {
		t.Errorf("a shard is missing, and the exit code is %d", code)
	}
}

// checkJUnit checks that a file is JUnit XML with so many failures.
func checkJUnit(t *testing.T, path string, failures int) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var suite struct {
		XMLName  xml.Name `xml:"testsuite"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Cases    []struct {
			ClassName string `xml:"classname,attr"`
			Name      string `xml:"name,attr"`
			Failure   *struct {
				Message string `xml:"message,attr"`
				Text    string `xml:",chardata"`
			} `xml:"failure"`
		} `xml:"testcase"`
	}
	if err := xml.Unmarshal(text, &suite); err != nil || suite.Failures != failures || suite.Tests != max(failures, 1) || len(suite.Cases) != suite.Tests {
		t.Errorf("%v: %s", err, text)
	}
	for _, c := range suite.Cases {
		if c.ClassName == "" || c.Name == "" || failures > 0 && (c.Failure == nil || c.Failure.Message == "" || !strings.Contains(c.Failure.Text, "missing")) {
			t.Errorf("a test of the suite: %+v", c)
		}
	}
	schema := harness.Repo("integration", "crash", "testdata", "junit.xsd")
	need.Tool(t, "xmllint")
	if out, err := harness.RunErr("xmllint", "--noout", "--schema", schema, path); err != nil {
		t.Errorf("xmllint: %v %s", err, out)
	}
}

// TestCrashPage: a browser shows the page of a report, which loads and runs nothing.
func TestCrashPage(t *testing.T) {
	report := filepath.Join(harness.TempDir(t), "report")
	const check = `read promise || exit 0; grep -q 1 f || { echo "no 1 <in> f"; exit 7; }`
	mapfsCrash(t, "--report", report, "--check", check, "--", "sh", "-c", "echo 1 > t; mv t f; echo saved")
	page := filepath.Join(report, "index.html")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{"<script", "http://", "https://"} {
		if strings.Contains(string(text), wrong) {
			t.Errorf("the page has %q", wrong)
		}
	}
	const browser = "chromium-headless-shell"
	need.Tool(t, browser)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, browser, "--no-sandbox", "--disable-gpu", "--user-data-dir="+harness.TempDir(t), "--dump-dom", "file://"+page).Output()
	dom := string(out)
	if err != nil || !strings.Contains(dom, "f is empty") || strings.Count(dom, "<rect") < 6 || !strings.Contains(dom, "no 1 &lt;in&gt; f") {
		t.Errorf("a browser shows: %v\n%s", err, dom)
	}
}

// TestCrashMount explores what was done in a mount that somebody else has made, while it is
// in use, and after a power cut in it.
func TestCrashMount(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		recording := filepath.Join(harness.TempDir(t), "recording")
		harness.MakeFile(t, filepath.Join(dir, "f"), "old\n")
		m := harness.Mount(t, dir, "history,record="+recording)
		crashMount := func(args ...string) (string, int) {
			return mapfsCrash(t, append([]string{"--mount", m.Dir}, args...)...)
		}
		if out, code := crashMount(); code != 0 || !strings.Contains(out, "Nothing was done") {
			t.Errorf("at the beginning: %d %s", code, out)
		}
		harness.InDir(t, m.Dir, "echo new > t; mv t f; echo 'f is new' > .mapfs/promises; echo later > g")
		harness.Expect(t, harness.Run(t, "cat", m.Path(".mapfs", "promises")), "3 f is new\n", "promises")
		out, code := crashMount()
		if code != 3 || !strings.Contains(out, `"f is new" was promised`) || !strings.Contains(out, `missing  fsync t after "write t 0 4"`) {
			t.Errorf("exit code %d:\n%s", code, out)
		}
		// What a client has stored through a mapping by then is part of it.
		client := harness.StartClient(t, "mmap", m.Path("f"), "shared", "4")
		client.Hear("mapped")
		client.Ask("store 0 abc")
		if out, code = crashMount("--check", "! grep -q abc f"); code != 3 {
			t.Errorf("a store: exit code %d:\n%s", code, out)
		}
		// The power is cut, and the recording goes on.
		powercut(t, m, "keep=all")
		harness.InDir(t, m.Dir, "mv f h; sync .; echo 'h is there' > .mapfs/promises")
		if out, code = crashMount("--check", `read a && read b && [ "$b" = "h is there" ] || exit 0; test -e h && ! test -e f`); code != 0 {
			t.Errorf("after a power cut: exit code %d:\n%s", code, out)
		}
		if out, err := harness.RunErr(harness.Binary, "crash", "--mount", m.Dir, "--model", "ext4"); err == nil || !strings.Contains(err.Error(), "only with --model posix") {
			t.Errorf("by another model: %s %v", out, err)
		}
		client.Kill()
	})
}

// TestCrashAnswers: what is typed wrong, or cannot be done, gets one sentence.
func TestCrashAnswers(t *testing.T) {
	dir := harness.TempDir(t)
	full := harness.SubDir(t, dir, "full")
	harness.MakeFile(t, filepath.Join(full, "x"), "")
	harness.MakeFile(t, filepath.Join(dir, "f"), "x\n")
	plain := harness.Mount(t, harness.TempDir(t), "history")
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"crash", 2, "name the COMMAND to run after --"},
		{"crash true", 2, `"true" is no subcommand of crash; a COMMAND to run is named after --`},
		{"crash --model zfs -- true", 2, "--model zfs: choose posix or ext4"},
		{"crash --fs zfs -- true", 2, "--fs zfs: choose ext4, xfs or btrfs"},
		{"crash --torn 100 -- true", 2, "--torn 100: choose 0 or a number of bytes that divides 4096"},
		{"crash --shard 3/2 -- true", 2, "--shard 3/2: choose N/M, such as 2/8"},
		{"crash --jobs 0 -- true", 2, "--jobs 0: choose 1 or more"},
		{"crash --mount " + dir + " -- true", 2, "name no COMMAND"},
		{"crash --mount " + plain.Dir, 1, "keeps no recording; mount with -o history,record=DIR"},
		{"crash --report " + full + " -- true", 1, "full is not empty: it has x"},
		{"crash --from /nowhere -- true", 1, "/nowhere"},
		{"crash -- no-such-command", 127, "no-such-command"},
		{"crash explore " + full, 1, "has no recording"},
		{"crash list " + full, 1, "has no report: 'mapfs crash --report"},
		{"crash replay " + full + " 1", 1, "has no report"},
		{"crash record", 2, "name the directory DIR for the recording, and the COMMAND after --"},
		{"crash merge", 2, "name the directories of the reports"},
		{"-o record=/x " + dir + " " + full, 2, "-o record writes the history of a mount: it needs history too"},
		{"-f -o history,record=" + full + " " + dir + " " + full, 1, "a recording cannot be inside of what it records"},
	} {
		_, err := harness.RunErr(harness.Binary, strings.Fields(c.args)...)
		if code := harness.ExitCode(err); code != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("mapfs %s: exit code %d, want %d, and %q: %v", c.args, code, c.code, c.says, err)
		}
	}
}

// TestCrashEnds: a check that hangs is ended, with all it has started; and so is the search by a
// signal, which leaves nothing behind.
func TestCrashEnds(t *testing.T) {
	out, code := mapfsCrash(t, "--check-timeout", "300ms", "--budget", "2s", "--check", "sleep 1000 & wait", "--", "sh", "-c", "echo 1 > f")
	if code != 3 || !strings.Contains(out, "exit status 137: (ended after 300ms)") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	tmp := harness.TempDir(t)
	cmd := exec.Command(harness.Binary, "crash", "--check", "sleep 0.1", "--", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do echo $i > f$i; echo $i; done")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := harness.WaitCmd(cmd, 10*time.Second); harness.ExitCode(err) != 1 {
		t.Errorf("after a signal: %v\n%s", err, said.String())
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("%v are left: %v", left, err)
	}
}

// TestCrashUser: it needs no root, also where the program makes directories that nobody may
// write to.
func TestCrashUser(t *testing.T) {
	need.Root(t) // to become somebody else
	harness.OpenDevice(t)
	tmp := harness.TempDir(t)
	if err := os.Chmod(tmp, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := harness.As(exec.Command(harness.Binary, "crash", "--", "sh", "-c", "echo 1 > t; mkdir d; echo x > d/x; chmod 500 d; mv t f; echo saved"), 65534, 65534)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "HOME="+tmp)
	out, err := harness.RunCmd(cmd, time.Minute)
	if harness.ExitCode(err) != 3 || !strings.Contains(out, `missing  fsync . after "rename t f"`) {
		t.Errorf("%v\n%s", err, out)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("%v are left: %v", left, err)
	}
}
