package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"mapfs/fs"
	"mapfs/fs/control"
)

// optionsHelp explains -o in the help texts.
const optionsHelp = `Options for -o, with their defaults:
  ro, rw                    refuse or allow changes (rw)
  allow_other               let other users in; permissions are then checked
  default_permissions       let the kernel check permissions (on); with
                            nodefault_permissions all is allowed that the daemon may
  attr_timeout=SECONDS      how long the kernel may keep attributes (1)
  entry_timeout=SECONDS     how long the kernel may keep names (1)
  mode=MODE                 where stores go: shared (the file at once), private
                            (never to the file) or staged (to the file when it is
                            synced) (shared)
  dirty_limit=SIZE          bytes of private and staged pages in memory; writers
                            wait while staged ones are synced (1/4 of the memory)
  writeback_interval=SECONDS  sync everything this often (0: only when asked)
  writeback                 collect writes in the kernel: faster, acknowledged
                            before they reach the mapping (nowriteback)
  exclusive                 nobody but clients of the mount changes BACKING: the
                            kernel keeps names, attributes and directories for a
                            day, and writeback is on (noexclusive)
  max_mappings=N            files mapped at a time (as the kernel's limit allows)
  fsname=NAME               the mount's source as mount(8) shows it (BACKING)
  control=NAME              the control tree's name in the mount (.mapfs);
                            control=none makes none
  xattr_stats               list the attributes user.mapfs.* of every file too;
                            they can be read without (noxattr_stats)
  nonempty                  mount on a directory that has entries
  suid, dev                 obey set-id bits and device nodes; root only (nosuid,nodev)
  noexec                    run no programs (exec)
  noatime, nodiratime       keep access times, of all or of directories (atime,diratime)
A comma in a value is written '\,'. The options of mount(8) and /etc/fstab that
mean nothing here (defaults, nofail, user, _netdev, x-..., and so on) are accepted.
`

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
	// set puts the option into effect; nil accepts the option and does nothing.
	set func(opts *control.Options, value string) error
}

// mountOptions has every option that is not a pattern (see ignoredPrefix).
var mountOptions = []mountOption{
	{name: "ro", set: func(o *control.Options, _ string) error { o.ReadOnly = true; return nil }},
	{name: "rw", set: func(o *control.Options, _ string) error { o.ReadOnly = false; return nil }},
	{name: "allow_other", set: func(o *control.Options, _ string) error { o.AllowOther = true; return nil }},
	{name: "noallow_other", set: func(o *control.Options, _ string) error { o.AllowOther = false; return nil }},
	{name: "default_permissions", set: func(o *control.Options, _ string) error { o.DefaultPermissions = true; return nil }},
	{name: "nodefault_permissions", set: func(o *control.Options, _ string) error { o.DefaultPermissions = false; return nil }},
	{name: "attr_timeout", value: needsValue, set: func(o *control.Options, v string) (err error) {
		o.AttrTimeout, err = parseSeconds(v)
		return err
	}},
	{name: "entry_timeout", value: needsValue, set: func(o *control.Options, v string) (err error) {
		o.EntryTimeout, err = parseSeconds(v)
		return err
	}},
	{name: "writeback", set: func(o *control.Options, _ string) error { o.Writeback = true; return nil }},
	{name: "nowriteback", set: func(o *control.Options, _ string) error { o.Writeback = false; return nil }},
	{name: "exclusive", set: func(o *control.Options, _ string) error { setExclusive(o, true, fs.ExclusiveTimeout); return nil }},
	{name: "noexclusive", set: func(o *control.Options, _ string) error { setExclusive(o, false, fs.DefaultTimeout); return nil }},
	{name: "mode", value: needsValue, set: func(o *control.Options, v string) (err error) {
		o.Mode, err = fs.ParseMode(v)
		return err
	}},
	{name: "dirty_limit", value: needsValue, set: func(o *control.Options, v string) error {
		n, err := parseBytes(v)
		if err == nil && n < minDirtyLimit {
			err = fmt.Errorf("less than %d bytes", minDirtyLimit)
		}
		o.DirtyLimit = n
		return err
	}},
	{name: "writeback_interval", value: needsValue, set: func(o *control.Options, v string) (err error) {
		o.WritebackInterval, err = parseSeconds(v)
		return err
	}},
	{name: "max_mappings", value: needsValue, set: func(o *control.Options, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return errors.New("not a number of at least 1")
		}
		o.MaxMappings = n
		return nil
	}},
	{name: "fsname", value: needsValue, set: func(o *control.Options, v string) error { o.FSName = v; return nil }},
	{name: "control", value: needsValue, set: func(o *control.Options, v string) error {
		if v == "." || v == ".." || strings.ContainsAny(v, "/\x00") || len(v) > maxName {
			return errors.New("not a name for a directory")
		}
		o.Control = v
		return nil
	}},
	{name: "xattr_stats", set: func(o *control.Options, _ string) error { o.XattrStats = true; return nil }},
	{name: "noxattr_stats", set: func(o *control.Options, _ string) error { o.XattrStats = false; return nil }},
	{name: "nonempty", set: func(o *control.Options, _ string) error { o.NonEmpty = true; return nil }},

	{name: "suid", set: func(o *control.Options, _ string) error { o.SUID = true; return nil }},
	{name: "nosuid", set: func(o *control.Options, _ string) error { o.SUID = false; return nil }},
	{name: "dev", set: func(o *control.Options, _ string) error { o.Dev = true; return nil }},
	{name: "nodev", set: func(o *control.Options, _ string) error { o.Dev = false; return nil }},
	{name: "exec", set: func(o *control.Options, _ string) error { o.NoExec = false; return nil }},
	{name: "noexec", set: func(o *control.Options, _ string) error { o.NoExec = true; return nil }},
	{name: "atime", set: func(o *control.Options, _ string) error { o.NoATime = false; return nil }},
	{name: "noatime", set: func(o *control.Options, _ string) error { o.NoATime = true; return nil }},
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
			return usagef("-o %s: option %s takes no value", word, name)
		case option.value == needsValue && value == "":
			return usagef("-o %s: option %s needs a value", word, name)
		case option.set == nil:
			return nil
		}
		if err := option.set(opts, value); err != nil {
			return usagef("-o %s: %w", word, err)
		}
		return nil
	}
	return usagef("-o %s: unknown option %q", word, name)
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

// parseSeconds reads a time as libfuse takes it: seconds, with a fraction.
func parseSeconds(s string) (time.Duration, error) {
	seconds, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(seconds) || seconds < 0 {
		return 0, errors.New("not a number of seconds")
	}
	// 2^63 ns is the first time that a Duration cannot hold.
	nanoseconds := seconds * float64(time.Second)
	if nanoseconds >= 1<<63 {
		return 0, fmt.Errorf("more than %.0f seconds", time.Duration(math.MaxInt64).Seconds())
	}
	return time.Duration(nanoseconds), nil
}
