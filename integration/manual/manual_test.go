package manual

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mapfs/integration/harness"
	"mapfs/internal/need"
	"mapfs/mapping"
)

// The man pages mark their reference lists, in comments that no reader sees:
//
//	.\" list NAME
//	.Bl ...
//	.It Cm name Ar ARGUMENT
//	what it means
//	.El
//	.\" end
//
// Lists can be nested. What stands behind .It in a macro for literal text is a
// name; behind Op, or between Oo and Oc, it is optional.

// manualItem is an .It of a marked list: its names in order, and which of them
// can be left out.
type manualItem struct {
	names    []string
	optional []bool
}

// literalMacros and otherMacros are those of mdoc(7) that the lists use in .It.
var (
	literalMacros = []string{"Cm", "Fl", "Ic", "Pa"}
	otherMacros   = []string{"Ar", "Ns", "Op", "Oo", "Oc"}
)

// manualItemOf takes the arguments of an .It apart.
func manualItemOf(t *testing.T, line string) manualItem {
	t.Helper()
	var item manualItem
	macro, optional, once := "", false, false
	for _, word := range strings.Fields(line) {
		switch {
		case slices.Contains(literalMacros, word):
			macro = word
		case slices.Contains(otherMacros, word):
			switch word {
			case "Ar":
				macro = word
			case "Op":
				once = true
			case "Oo", "Oc":
				optional = word == "Oo"
			}
		case macro == "":
			t.Fatalf("%q: %q is in no macro that the test knows", line, word)
		case word == "," || word == "|" || macro == "Ar":
		default:
			name := strings.TrimPrefix(word, `\&`)
			if macro == "Fl" {
				name = "-" + name
			}
			item.names = append(item.names, name)
			item.optional = append(item.optional, optional || once)
		}
	}
	return item
}

// manualPage is a man page's marked lists by name.
type manualPage map[string][]manualItem

// readManual reads a page of docs/man.
func readManual(t *testing.T, name string) manualPage {
	t.Helper()
	source, err := os.ReadFile(harness.Repo("docs", "man", name))
	if err != nil {
		t.Fatal(err)
	}
	page := make(manualPage)
	var open []string
	bare := false // the line before was an .It whose text follows
	for line := range strings.Lines(string(source)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, `.\" list `):
			list := strings.TrimPrefix(line, `.\" list `)
			if _, twice := page[list]; twice {
				t.Fatalf("%s: two lists are named %q", name, list)
			}
			open = append(open, list)
			page[list] = nil
		case line == `.\" end`:
			if len(open) == 0 {
				t.Fatalf("%s: an end without its list", name)
			}
			open = open[:len(open)-1]
		case len(open) == 0:
		case bare || strings.HasPrefix(line, ".It "):
			list := open[len(open)-1]
			words := strings.TrimPrefix(strings.TrimPrefix(line, ".It "), ".")
			page[list] = append(page[list], manualItemOf(t, words))
		}
		bare = line == ".It" && len(open) > 0
	}
	if len(open) > 0 {
		t.Fatalf("%s: the list %q has no end", name, open[0])
	}
	return page
}

// first returns the first name of every item of a list, in order.
func (p manualPage) first(t *testing.T, list string) (names []string) {
	t.Helper()
	items, ok := p[list]
	if !ok {
		t.Fatalf("the man page has no list %q", list)
	}
	for _, item := range items {
		names = append(names, item.names[0])
	}
	return names
}

// all returns every name of every item of a list, in order; none if there is no
// such list.
func (p manualPage) all(list string) (names []string) {
	for _, item := range p[list] {
		names = append(names, item.names...)
	}
	return names
}

// sameNames fails the test unless the page has just what the program has.
func sameNames(t *testing.T, what string, documented, real []string) {
	t.Helper()
	for _, name := range real {
		if !slices.Contains(documented, name) {
			t.Errorf("%s: %q is not in the man page", what, name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(real, name) {
			t.Errorf("%s: %q is in the man page and does not exist", what, name)
		}
	}
	if len(documented) != len(real) && !t.Failed() {
		t.Errorf("%s: something is named twice: %q, %q", what, documented, real)
	}
}

// sameOrder is sameNames for lists whose order is documented too.
func sameOrder(t *testing.T, what string, documented, real []string) {
	t.Helper()
	if !slices.Equal(documented, real) {
		t.Errorf("%s: the man page has\n%q, the mount has\n%q", what, documented, real)
	}
}

// firstWords returns the first word of every line.
func firstWords(text string) (words []string) {
	for line := range strings.Lines(text) {
		word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		words = append(words, word)
	}
	return words
}

// TestManualFormat lets mandoc(1) read the pages: it has nothing to warn of.
func TestManualFormat(t *testing.T) {
	need.Tool(t, "mandoc")
	for _, page := range []string{"mapfs.1", "mapfs-crash.1", "mapfs-control.5"} {
		out, err := harness.RunErr("mandoc", "-T", "lint", "-W", "warning", harness.Repo("docs", "man", page))
		if err != nil || out != "" {
			t.Errorf("%s: %v\n%s", page, err, out)
		}
	}
}

// TestManualTree holds mapfs-control(5) to a live mount: every name in the
// control tree, every key of a status and every metric is in the page, and
// nothing else.
func TestManualTree(t *testing.T) {
	m := harness.Mount(t, harness.Ext4Dir(t), "history") // it has everything
	page := readManual(t, "mapfs-control.5")
	harness.Run(t, "mkdir", m.Path("d"))
	harness.Run(t, "sh", "-c", `echo hello >"$0"/f; echo hello >"$0"/d/g; sync "$0"/f "$0"/d/g`, m.Dir)

	root, leaves := page.first(t, "root"), page.first(t, "file")
	documented := append([]string{"files/d"}, root...)
	for _, file := range []string{"files/f", "files/d/g"} {
		documented = append(documented, file)
		for _, leaf := range leaves {
			documented = append(documented, file+"/"+leaf)
		}
	}
	harness.Run(t, harness.Binary, "ctl", m.Dir, "mmap name=one file=f")
	documented = append(documented, "mappings/one")
	for _, leaf := range page.all("mapping") {
		documented = append(documented, "mappings/one/"+leaf)
	}
	found := harness.Run(t, "find", m.Path(".mapfs"), "-mindepth", "1", "-not", "-path", "*/.mapfs/durable/*", "-printf", `%P\n`)
	sameNames(t, "the control tree", documented, strings.Fields(found))

	cat := func(elem ...string) string {
		t.Helper()
		return harness.Run(t, "cat", m.Path(append([]string{".mapfs"}, elem...)...))
	}
	sameOrder(t, "status", page.all("status"), firstWords(cat("status")))
	sameOrder(t, "files/f/status", page.all("file-status"), firstWords(cat("files", "f", "status")))
	sameOrder(t, "mappings/one/status", page.all("mapping-status"), firstWords(cat("mappings", "one", "status")))

	var metrics []string
	for _, match := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(cat("metrics"), -1) {
		metrics = append(metrics, match[1])
	}
	sameNames(t, "metrics", page.all("metrics"), metrics)

	// The legend of the picture has every letter but that of the last page.
	lines := strings.Split(strings.TrimSpace(cat("files", "f", "map")), "\n")
	var letters []string
	for _, entry := range strings.Split(lines[len(lines)-1], "  ") {
		letters = append(letters, entry[:1])
	}
	sameNames(t, "letters of mapfs(1)", readManual(t, "mapfs.1").all("letters"), letters)
	letters[slices.Index(letters, ".")] = "T"
	sameNames(t, "letters", page.all("letters"), letters)
}

// TestManualXattrs holds the list of extended attributes to a live mount.
func TestManualXattrs(t *testing.T) {
	need.Tool(t, "getfattr")
	m := harness.Mount(t, harness.Ext4Dir(t), "xattr_stats")
	documented := readManual(t, "mapfs-control.5").first(t, "xattrs")
	harness.Run(t, "touch", m.Path("f"))
	for _, name := range documented {
		harness.Run(t, "getfattr", "--only-values", "-n", name, m.Path("f"))
	}
	for _, line := range strings.Split(harness.Run(t, "getfattr", "-m", "^user.mapfs", m.Path("f")), "\n") {
		if strings.HasPrefix(line, "user.") && !slices.Contains(documented, line) {
			t.Errorf("%s is listed and not in the man page", line)
		}
	}
}

// TestManualCommands holds the commands of the ctl files to what the mount
// says of them when it is asked for something that it does not know.
func TestManualCommands(t *testing.T) {
	m := harness.Mount(t, harness.Ext4Dir(t))
	page := readManual(t, "mapfs-control.5")
	harness.Run(t, "sh", "-c", `echo hello >"$0"`, m.Path("f"))
	harness.Run(t, harness.Binary, "ctl", m.Dir, "mmap name=one file=f")

	// told gives a command that fails, and returns the list at the end of the
	// sentence.
	told := func(path, command, before string) []string {
		t.Helper()
		out, err := harness.RunErr(harness.Binary, "ctl", path, command)
		if err == nil {
			t.Fatalf("%q succeeded: %s", command, out)
		}
		match := regexp.MustCompile(before + ` (.*)`).FindStringSubmatch(err.Error())
		if match == nil {
			t.Fatalf("%q: the sentence names no list: %v", command, err)
		}
		if match[1] == "none" {
			return nil
		}
		return strings.Split(match[1], ", ")
	}
	for _, c := range []struct{ list, path string }{
		{"root-commands", m.Dir}, {"file-commands", m.Path("f")}, {"mapping-commands", m.Path(".mapfs", "mappings", "one")},
	} {
		sameNames(t, c.list, page.first(t, c.list), told(c.path, "nosuch", `'?s (?:is|are)`))
		for _, item := range page[c.list] {
			verb, arguments := item.names[0], item.names[1:]
			probe := verb
			var keys []string
			for i, argument := range arguments {
				key := strings.TrimSuffix(argument, "=")
				keys = append(keys, key)
				values := page.all(verb + "-" + key)
				if values == nil {
					continue
				}
				sameNames(t, verb+" "+key, values, told(c.path, verb+" "+key+"=nosuch", `is none of`))
				if !item.optional[i+1] {
					probe += " " + argument + values[0]
				}
			}
			sameNames(t, verb, keys, told(c.path, probe+" nosuch=1", `it takes`))
		}
	}
}

// eventKinds are the names of the engine's kinds of events, which are numbered
// without a gap, and that of the note that some were lost.
func eventKinds() (kinds []string) {
	defer func() {
		_ = recover() // the number after the last has no name
		kinds = append(kinds, "lost")
	}()
	for kind := mapping.Kind(0); ; kind++ {
		kinds = append(kinds, kind.String())
	}
}

// TestManualEvents holds the list of events to the engine's kinds, and their
// keys to events that happen on a live mount.
func TestManualEvents(t *testing.T) {
	page := readManual(t, "mapfs-control.5")
	sameNames(t, "kinds of events", page.first(t, "events"), eventKinds())

	backing := harness.Ext4Dir(t)
	if err := os.WriteFile(filepath.Join(backing, "old"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := harness.Mount(t, backing, "max_mappings=1")
	// What is open and mapped has to make room for the next file.
	old := harness.StartClient(t, "fd", m.Path("old"), "r")
	old.Hear("open")
	old.Ask("pread 0 5")
	harness.Run(t, "dd", "if=/dev/zero", "of="+m.Path("f"), "bs=5000", "count=3")
	stores := harness.StartClient(t, "mmap", m.Path("f"), "shared", "15000")
	stores.Hear("mapped")
	stores.Ask("store 0 hello")
	stores.Ask("msync sync")
	stores.Wait()
	old.Wait()
	harness.Run(t, "truncate", "-s", "100", m.Path("f"))
	harness.Run(t, harness.Binary, "msync", "--async", m.Path("f"))
	harness.Run(t, harness.Binary, "ctl", m.Path("f"), "madvise advice=dontneed")
	harness.Run(t, harness.Binary, "ctl", m.Dir, "mmap name=one file=f length=9000 flags=private\nmmap name=two file=f length=9000")
	for _, name := range []string{"one", "two"} {
		memory := m.Path(".mapfs", "mappings", name, "memory")
		harness.Run(t, "dd", "if=/dev/zero", "of="+memory, "bs=1", "count=1")
		if _, err := harness.RunErr("dd", "if="+memory, "of=/dev/null", "bs=4096", "skip=2"); err == nil {
			t.Error("no fault past the end of the file")
		}
		harness.Run(t, harness.Binary, "ctl", m.Path(".mapfs", "mappings", name), "msync length=1 flags=async\nmadvise advice=dontneed\nmunmap")
	}

	text := harness.Run(t, harness.Binary, "events", "--no-follow", m.Dir)
	seen := make(map[string]bool)
	quoted := regexp.MustCompile(`"[^"]*"`)
	for line := range strings.Lines(text) {
		columns := strings.Fields(quoted.ReplaceAllString(line, ""))
		kind := columns[2]
		seen[kind] = true
		var keys []string
		for _, column := range columns[4:] {
			key, _, _ := strings.Cut(column, "=")
			keys = append(keys, key+"=")
		}
		if !page.describes("events", kind, keys) {
			t.Errorf("not as in the man page: %s", line)
		}
	}
	for _, kind := range []string{
		"read", "write", "store", "copy", "fault", "extend", "truncate", "map", "unmap", "msync", "invalidate", "evict", "open", "close",
	} {
		if !seen[kind] {
			t.Errorf("no event %s among\n%s", kind, text)
		}
	}
	for line := range strings.Lines(harness.Run(t, "cat", m.Path(".mapfs", "files", "f", "unsynced"))) {
		if cause := strings.Fields(line)[2]; !slices.Contains(page.first(t, "causes"), cause) {
			t.Errorf("the cause %q is not in the man page", cause)
		}
	}
}

// describes reports whether the list has an item of the given name with the
// given further ones, of which the optional may be absent.
func (p manualPage) describes(list, name string, further []string) bool {
	for _, item := range p[list] {
		if item.names[0] != name {
			continue
		}
		for i, documented := range item.names[1:] {
			switch {
			case len(further) > 0 && further[0] == documented:
				further = further[1:]
			case !item.optional[i+1]:
				return false
			}
		}
		return len(further) == 0
	}
	return false
}

// helpBlock returns the lines of a help text that follow a headline, up to the
// next empty line.
func helpBlock(t *testing.T, help, headline string) (lines []string) {
	t.Helper()
	_, after, found := strings.Cut(help, "\n"+headline)
	if !found {
		t.Fatalf("the help has no %q:\n%s", headline, help)
	}
	_, after, _ = strings.Cut(after, "\n") // the rest of the headline
	for line := range strings.Lines(after) {
		if strings.TrimSpace(line) == "" {
			break
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	return lines
}

// helpFlags returns the flags in a help text, but -h.
func helpFlags(t *testing.T, help string) (flags []string) {
	t.Helper()
	pattern := regexp.MustCompile(`^ +(?:(-\w), )?(--[\w-]+)`)
	for _, line := range helpBlock(t, help, "Flags:") {
		match := pattern.FindStringSubmatch(line)
		if match == nil {
			t.Fatalf("no flag in %q", line)
		}
		if match[2] != "--help" {
			flags = append(flags, slices.DeleteFunc(match[1:], func(s string) bool { return s == "" })...)
		}
	}
	return flags
}

// TestManualHelp holds mapfs(1) to the help texts: every command, every flag
// and every mount option is in both.
func TestManualHelp(t *testing.T) {
	page := readManual(t, "mapfs.1")
	help := harness.Run(t, harness.Binary, "--help")

	var verbs []string
	for _, line := range helpBlock(t, help, "Available Commands:") {
		verbs = append(verbs, strings.Fields(line)[0])
	}
	sameNames(t, "commands", page.first(t, "commands"), verbs)
	sameNames(t, "flags of every command", page.all("flags every"), []string{"-h", "--help"})
	sameNames(t, "flags of mapfs", append(page.all("flags mount"), page.all("flags root")...), helpFlags(t, help))
	for _, verb := range verbs {
		text := harness.Run(t, harness.Binary, verb, "--help")
		if verb == "help" {
			continue // that is mapfs's own help again
		}
		if verb == "crash" {
			holdCrashManual(t, text)
			continue
		}
		sameNames(t, "flags of "+verb, page.all("flags "+verb), helpFlags(t, text))
		if verb == "watch" {
			var keys []string
			for _, line := range helpBlock(t, text, "Keys:") {
				names, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
				keys = append(keys, strings.Split(names, ", ")...)
			}
			sameNames(t, "keys of watch", page.all("keys"), keys)
		}
	}

	// Completion knows every option, the help only one of each pair.
	var options []string
	for _, line := range strings.Fields(harness.Run(t, harness.Binary, "__complete", "-o", "")) {
		if !strings.HasPrefix(line, ":") { // a directive to the shell's script
			options = append(options, line)
		}
	}
	sameNames(t, "mount options", page.all("options"), options)
	first := regexp.MustCompile(`^  ([^\s,]+(?:, [^\s,]+)*)`)
	for _, line := range helpBlock(t, help, "Options for -o") {
		match := first.FindStringSubmatch(line)
		if match == nil {
			continue // the second line of an option
		}
		for _, option := range strings.Split(match[1], ", ") {
			name, _, hasValue := strings.Cut(option, "=")
			if hasValue {
				name += "="
			}
			if !slices.Contains(page.all("options"), name) {
				t.Errorf("mount options: %q of the help is not in the man page", option)
			}
		}
	}

	ignored := strings.Join(append(page.all("ignored"), "x-anything"), ",")
	_, err := harness.RunErr(harness.Binary, "-o", ignored, "/nonexistent/backing", "/nonexistent/mountpoint")
	if err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("the options that mean nothing: %v", err)
	}
}

// TestVerbsManual holds the man page's lists of the commands of hold and of the
// media of ipc to the program.
func TestVerbsManual(t *testing.T) {
	page := readManual(t, "mapfs.1")
	file := filepath.Join(harness.TempDir(t), "f")
	harness.MakeFile(t, file, "x")
	hold := harness.StartHold(t, file)
	hold.Say("help")
	hold.Say("quit")
	var commands []string
	for line := range hold.Lines {
		if name, found := strings.CutPrefix(line, "  "); found && !strings.HasPrefix(name, " ") {
			commands = append(commands, strings.Fields(name)[0])
		}
	}
	hold.Wait()
	sameNames(t, "commands of hold", page.first(t, "hold"), commands)

	_, err := harness.RunErr(harness.Binary, "ipc", "--via", "nosuch")
	if err == nil {
		t.Fatal("ipc knows a medium nosuch")
	}
	_, list, _ := strings.Cut(err.Error(), "choose ")
	list, _, _ = strings.Cut(list, ";")
	sameNames(t, "media of ipc", page.first(t, "media"), strings.Split(list, ", "))
}
