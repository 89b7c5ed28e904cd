//go:build linux

package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mapfs/cmd/mapfs/cli"
	"mapfs/fs"
	"mapfs/fs/control"
	"mapfs/fs/crash"
)

// optionsHelp explains -o in the help texts: what each row of the table says.
func optionsHelp() string {
	var b strings.Builder
	b.WriteString("Options for -o, with their defaults:\n")
	for _, option := range mountOptions {
		if option.usage == "" {
			continue
		}
		left := option.usage
		for line := range strings.Lines(option.help + "\n") {
			fmt.Fprintf(&b, "  %-24s  %s", left, line)
			left = ""
		}
	}
	b.WriteString(`A comma in a value is written '\,'. The options of mount(8) and /etc/fstab that
mean nothing here (defaults, nofail, user, _netdev, x-..., and so on) are accepted.
`)
	return b.String()
}

// valueRule says whether an option takes "=VALUE".
type valueRule int

const (
	noValue    valueRule = iota
	maybeValue           // user, user=alice
	needsValue
)

// mountOption is one word that -o understands.
type mountOption struct {
	name  string
	value valueRule
	// usage is how the help shows it, with those that belong to it, and help what it
	// does; "" for one that another row tells of.
	usage, help string
	// set puts the option into effect; nil accepts the option and does nothing.
	set func(opts *control.Options, value string) error
}

// mountOptions has every option that is not a pattern (see ignoredPrefix).
var mountOptions = []mountOption{
	{name: "ro",
		usage: "ro, rw", help: "refuse or allow changes (rw)",
		set: func(o *control.Options, _ string) error { o.ReadOnly = true; return nil }},
	{name: "rw", set: func(o *control.Options, _ string) error { o.ReadOnly = false; return nil }},
	{name: "allow_other",
		usage: "allow_other", help: "let other users in; permissions are then checked",
		set: func(o *control.Options, _ string) error { o.AllowOther = true; return nil }},
	{name: "noallow_other", set: func(o *control.Options, _ string) error { o.AllowOther = false; return nil }},
	{name: "default_permissions",
		usage: "default_permissions", help: "let the kernel check permissions (on); with\n" +
			"nodefault_permissions all is allowed that the daemon may",
		set: func(o *control.Options, _ string) error { o.DefaultPermissions = true; return nil }},
	{name: "nodefault_permissions", set: func(o *control.Options, _ string) error { o.DefaultPermissions = false; return nil }},
	{name: "attr_timeout",
		usage: "attr_timeout=SECONDS", help: "how long the kernel may keep attributes (1)",
		value: needsValue, set: func(o *control.Options, v string) (err error) {
			o.AttrTimeout, err = cli.ParseSeconds(v)
			return err
		}},
	{name: "entry_timeout",
		usage: "entry_timeout=SECONDS", help: "how long the kernel may keep names (1)",
		value: needsValue, set: func(o *control.Options, v string) (err error) {
			o.EntryTimeout, err = cli.ParseSeconds(v)
			return err
		}},
	{name: "mode",
		usage: "mode=MODE", help: "where stores go: shared (the file at once), private\n" +
			"(never to the file) or staged (to the file when it is\n" +
			"synced) (shared)",
		value: needsValue, set: func(o *control.Options, v string) (err error) {
			o.Mode, err = fs.ParseMode(v)
			return err
		}},
	{name: "dirty_limit",
		usage: "dirty_limit=SIZE", help: "bytes of private and staged pages in memory; writers\n" +
			"wait while staged ones are synced (1/4 of the memory)",
		value: needsValue, set: func(o *control.Options, v string) error {
			n, err := cli.ParseBytes(v)
			if err == nil && n < minDirtyLimit {
				err = fmt.Errorf("less than %d bytes", minDirtyLimit)
			}
			o.DirtyLimit = n
			return err
		}},
	{name: "history",
		usage: "history", help: "know what a power cut would take, by the rules of\n" +
			"posix, or of ext4 with history=ext4; sets mode=staged\n" +
			"(nohistory)",
		value: maybeValue, set: func(o *control.Options, v string) (err error) {
			o.History, o.Mode = crash.Posix{}, fs.Staged
			if v != "" {
				o.History, err = crash.ModelOf(v)
			}
			return err
		}},
	{name: "nohistory", set: func(o *control.Options, _ string) error { o.History = nil; return nil }},
	{name: "history_dir",
		usage: "history_dir=DIR", help: "where the history goes that memory has no room for: an\n" +
			"unlinked file (the system's temporary directory)",
		value: needsValue, set: absolute(func(o *control.Options) *string { return &o.HistoryDir })},
	{name: "history_memory",
		usage: "history_memory=SIZE", help: "bytes of the history in memory (64M)",
		value: needsValue, set: func(o *control.Options, v string) (err error) {
			o.HistoryMemory, err = cli.ParseBytes(v)
			if err == nil && o.HistoryMemory < 1 {
				err = errors.New("less than a byte")
			}
			return err
		}},
	{name: "record",
		usage: "record=DIR", help: "write the history to DIR, which must be empty, with a\n" +
			"copy of BACKING as it is before the mount",
		value: needsValue, set: absolute(func(o *control.Options) *string { return &o.Record })},
	{name: "writeback_interval",
		usage: "writeback_interval=SECONDS", help: "sync everything this often (0: only when asked)",
		value: needsValue, set: func(o *control.Options, v string) (err error) {
			o.WritebackInterval, err = cli.ParseSeconds(v)
			return err
		}},
	{name: "writeback",
		usage: "writeback", help: "collect writes in the kernel: faster, acknowledged\n" +
			"before they reach the mapping (nowriteback)",
		set: func(o *control.Options, _ string) error { o.Writeback = true; return nil }},
	{name: "nowriteback", set: func(o *control.Options, _ string) error { o.Writeback = false; return nil }},
	{name: "passthrough",
		usage: "passthrough", help: "let the kernel read, write and map files by itself: as\n" +
			"fast as BACKING, and a store is seen at once by all, but\n" +
			"the daemon sees only opens, syncs and closes; root only\n" +
			"(nopassthrough)",
		set: func(o *control.Options, _ string) error { o.Passthrough = true; return nil }},
	{name: "nopassthrough", set: func(o *control.Options, _ string) error { o.Passthrough = false; return nil }},
	{name: "exclusive",
		usage: "exclusive", help: "nobody but clients of the mount changes BACKING: the\n" +
			"kernel keeps names, attributes and directories for a\n" +
			"day, and writeback is on (noexclusive)",
		set: func(o *control.Options, _ string) error { setExclusive(o, true, fs.ExclusiveTimeout); return nil }},
	{name: "noexclusive", set: func(o *control.Options, _ string) error { setExclusive(o, false, fs.DefaultTimeout); return nil }},
	{name: "max_mappings",
		usage: "max_mappings=N", help: "files mapped at a time (as the kernel's limit allows)",
		value: needsValue, set: func(o *control.Options, v string) error {
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 {
				return errors.New("not a number of at least 1")
			}
			o.MaxMappings = n
			return nil
		}},
	{name: "fsname",
		usage: "fsname=NAME", help: "the mount's source as mount(8) shows it (BACKING)",
		value: needsValue, set: func(o *control.Options, v string) error { o.FSName = v; return nil }},
	{name: "control",
		usage: "control=NAME", help: "the control tree's name in the mount (.mapfs);\n" +
			"control=none makes none",
		value: needsValue, set: func(o *control.Options, v string) error {
			if v == "." || v == ".." || strings.ContainsAny(v, "/\x00") || len(v) > maxName {
				return errors.New("not a name for a directory")
			}
			o.Control = v
			return nil
		}},
	{name: "xattr_stats",
		usage: "xattr_stats", help: "list the attributes user.mapfs.* of every file too;\n" +
			"they can be read without (noxattr_stats)",
		set: func(o *control.Options, _ string) error { o.XattrStats = true; return nil }},
	{name: "noxattr_stats", set: func(o *control.Options, _ string) error { o.XattrStats = false; return nil }},
	{name: "nonempty",
		usage: "nonempty", help: "mount on a directory that has entries",
		set: func(o *control.Options, _ string) error { o.NonEmpty = true; return nil }},

	{name: "suid",
		usage: "suid, dev", help: "obey set-id bits and device nodes; root only (nosuid,nodev)",
		set: func(o *control.Options, _ string) error { o.SUID = true; return nil }},
	{name: "nosuid", set: func(o *control.Options, _ string) error { o.SUID = false; return nil }},
	{name: "dev", set: func(o *control.Options, _ string) error { o.Dev = true; return nil }},
	{name: "nodev", set: func(o *control.Options, _ string) error { o.Dev = false; return nil }},
	{name: "exec", set: func(o *control.Options, _ string) error { o.NoExec = false; return nil }},
	{name: "noexec",
		usage: "noexec", help: "run no programs (exec)",
		set: func(o *control.Options, _ string) error { o.NoExec = true; return nil }},
	{name: "atime", set: func(o *control.Options, _ string) error { o.NoATime = false; return nil }},
	{name: "noatime",
		usage: "noatime, nodiratime", help: "keep access times, of all or of directories (atime,diratime)",
		set: func(o *control.Options, _ string) error { o.NoATime = true; return nil }},
	{name: "diratime", set: func(o *control.Options, _ string) error { o.NoDirATime = false; return nil }},
	{name: "nodiratime", set: func(o *control.Options, _ string) error { o.NoDirATime = true; return nil }},

	// The mount's type is always fuse.mapfs.
	{name: "subtype", value: needsValue},

	// What mount(8) and fstab(5) say to themselves or to other filesystems.
	// How access times are updated otherwise is up to the mount that BACKING is on.
	{name: "defaults"}, {name: "auto"}, {name: "noauto"}, {name: "nofail"}, {name: "_netdev"},
	{name: "user", value: maybeValue}, {name: "nouser"}, {name: "users"}, {name: "owner"}, {name: "group"},
	{name: "relatime"}, {name: "norelatime"}, {name: "strictatime"}, {name: "nostrictatime"},
	{name: "lazytime"}, {name: "nolazytime"},
	{name: "async"}, {name: "sync"}, {name: "dirsync"},
	{name: "silent"}, {name: "loud"}, {name: "mand"}, {name: "nomand"},
	{name: "comment", value: maybeValue},
}

// setExclusive sets what the promise allows. Options after it can change each.
func setExclusive(o *control.Options, on bool, timeout time.Duration) {
	o.Exclusive, o.Writeback = on, on
	o.AttrTimeout, o.EntryTimeout = timeout, timeout
}

// ignoredPrefix tells the options that are comments for mount(8), systemd and
// others: x-systemd.automount, X-mount.mkdir=0755.
func ignoredPrefix(name string) bool {
	return strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-")
}

// minDirtyLimit is what a few requests at a time can hold.
const minDirtyLimit = 1 << 20

// maxName is NAME_MAX of Linux, in bytes.
const maxName = 255

// defaultOptions is a mount without any -o.
func defaultOptions() control.Options {
	return control.Options{Options: fs.Options{
		DefaultPermissions: true,
		AttrTimeout:        fs.DefaultTimeout,
		EntryTimeout:       fs.DefaultTimeout,
	}}
}

// absolute sets an option that is an absolute path.
func absolute(field func(*control.Options) *string) func(*control.Options, string) error {
	return func(o *control.Options, v string) error {
		if !filepath.IsAbs(v) {
			return errors.New("not an absolute path")
		}
		*field(o) = v
		return nil
	}
}

// checkOptions refuses options that exclude each other.
func checkOptions(opts *control.Options) error {
	if opts.Passthrough {
		const without = "-o passthrough has the kernel read and write files by itself: it excludes %s"
		switch {
		case opts.History != nil:
			return cli.Usagef(without, "history")
		case opts.Mode != fs.Shared:
			return cli.Usagef(without, "mode="+opts.Mode.String())
		case opts.Writeback:
			return cli.Usagef(without, "writeback (write exclusive,nowriteback for the rest of exclusive)")
		}
	}
	if opts.History == nil {
		if opts.Record != "" {
			return cli.Usagef("-o record writes the history of a mount: it needs history too")
		}
		return nil
	}
	switch {
	case opts.Mode != fs.Staged:
		return cli.Usagef("-o history keeps stores from BACKING until they are synced: it excludes mode=%s", opts.Mode)
	case opts.Writeback:
		return cli.Usagef("-o history must see each write in its place: it excludes writeback (write exclusive,nowriteback for the rest of exclusive)")
	case opts.WritebackInterval > 0:
		return cli.Usagef("-o history counts what clients sync, and nothing else: it excludes writeback_interval")
	case opts.Control == control.NoTree:
		return cli.Usagef("-o history is seen in the control tree: it excludes control=none")
	}
	return nil
}

// parseOptions sets opts from the arguments of -o, each a comma list. Of
// options that contradict each other the last one counts, as with mount(8).
// Its errors name the option and its value.
func parseOptions(opts *control.Options, lists []string) error {
	for _, list := range lists {
		for _, word := range splitOptions(list) {
			if err := setOption(opts, word); err != nil {
				return err
			}
		}
	}
	return nil
}

func setOption(opts *control.Options, word string) error {
	name, value, hasValue := strings.Cut(word, "=")
	if ignoredPrefix(name) {
		return nil
	}
	for _, option := range mountOptions {
		if option.name != name {
			continue
		}
		switch {
		case hasValue && option.value == noValue:
			return cli.Usagef("-o %s: option %s takes no value", word, name)
		case option.value == needsValue && value == "":
			return cli.Usagef("-o %s: option %s needs a value", word, name)
		case option.set == nil:
			return nil
		}
		if err := option.set(opts, value); err != nil {
			return cli.Usagef("-o %s: %w", word, err)
		}
		return nil
	}
	return cli.Usagef("-o %s: unknown option %q", word, name)
}

// splitOptions splits a comma list. A backslash takes the meaning from a comma
// or a backslash after it and stands for itself elsewhere. Empty words, as
// "ro,,rw" has, are left out.
func splitOptions(list string) []string {
	var words []string
	var word strings.Builder
	end := func() {
		if word.Len() > 0 {
			words = append(words, word.String())
		}
		word.Reset()
	}
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '\\' && i+1 < len(list) && (list[i+1] == ',' || list[i+1] == '\\'):
			i++
			word.WriteByte(list[i])
		case c == ',':
			end()
		default:
			word.WriteByte(c)
		}
	}
	end()
	return words
}
