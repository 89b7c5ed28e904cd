//go:build linux

package main

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"mapfs/cmd/mapfs/cli"
	"mapfs/fs/control"
	"mapfs/internal/quote"
)

func TestParseOptions(t *testing.T) {
	tests := []struct {
		name  string
		lists []string
		want  func(*control.Options) // changes the defaults into what is expected
	}{
		{"none", nil, func(*control.Options) {}},
		{"empty words", []string{"", ",,ro,", ","}, func(o *control.Options) { o.ReadOnly = true }},
		{"ro", []string{"ro"}, func(o *control.Options) { o.ReadOnly = true }},
		{"the last counts", []string{"ro,rw"}, func(*control.Options) {}},
		{"the last counts, over lists", []string{"rw", "noatime,ro", "atime"}, func(o *control.Options) { o.ReadOnly = true }},
		{"allow_other", []string{"allow_other"}, func(o *control.Options) { o.AllowOther = true }},
		{"noallow_other", []string{"allow_other,noallow_other"}, func(*control.Options) {}},
		{"permissions off", []string{"nodefault_permissions"}, func(o *control.Options) { o.DefaultPermissions = false }},
		{"permissions on", []string{"nodefault_permissions,default_permissions"}, func(*control.Options) {}},
		{"timeouts", []string{"attr_timeout=2.5,entry_timeout=0"}, func(o *control.Options) {
			o.AttrTimeout, o.EntryTimeout = 2500*time.Millisecond, 0
		}},
		{"longest timeout", []string{"attr_timeout=9223372036"}, func(o *control.Options) {
			o.AttrTimeout = 9223372036 * time.Second
		}},
		{"writeback", []string{"writeback"}, func(o *control.Options) { o.Writeback = true }},
		{"exclusive", []string{"exclusive"}, func(o *control.Options) {
			o.Exclusive, o.Writeback, o.AttrTimeout, o.EntryTimeout = true, true, 24*time.Hour, 24*time.Hour
		}},
		{"exclusive, but", []string{"exclusive,attr_timeout=2,nowriteback"}, func(o *control.Options) {
			o.Exclusive, o.AttrTimeout, o.EntryTimeout = true, 2*time.Second, 24*time.Hour
		}},
		{"noexclusive", []string{"exclusive,noexclusive"}, func(*control.Options) {}},
		{"nowriteback", []string{"writeback,nowriteback"}, func(*control.Options) {}},
		{"max_mappings", []string{"max_mappings=1000"}, func(o *control.Options) { o.MaxMappings = 1000 }},
		{"fsname", []string{`fsname=a\,b\\c\d=e`}, func(o *control.Options) { o.FSName = `a,b\c\d=e` }},
		{"control", []string{"control=.pages"}, func(o *control.Options) { o.Control = ".pages" }},
		{"no control", []string{"control=none"}, func(o *control.Options) { o.Control = "none" }},
		{"xattr_stats", []string{"xattr_stats"}, func(o *control.Options) { o.XattrStats = true }},
		{"noxattr_stats", []string{"xattr_stats,noxattr_stats"}, func(*control.Options) {}},
		{"nonempty", []string{"nonempty"}, func(o *control.Options) { o.NonEmpty = true }},
		{"as mount.fuse3 for root", []string{"rw,noatime,dev,suid"}, func(o *control.Options) {
			o.NoATime, o.Dev, o.SUID = true, true, true
		}},
		{"as mount.fuse3 for a user's line in fstab", []string{"rw,noexec,nosuid,nodev,user=alice"}, func(o *control.Options) {
			o.NoExec = true
		}},
		{"taken back", []string{"suid,dev,noexec,noatime,nosuid,nodev,exec,atime"}, func(*control.Options) {}},
		{"mount(8)'s own", []string{
			"defaults,auto,noauto,nofail,_netdev,user,user=alice,nouser,users,owner,group",
			"relatime,norelatime,strictatime,nostrictatime,lazytime,nolazytime",
			"async,sync,dirsync,silent,loud,mand,nomand,subtype=mapfs",
			"comment=hello,comment,x-systemd.automount,x-a=b,X-mount.mkdir=0755,x-",
		}, func(*control.Options) {}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, want := defaultOptions(), defaultOptions()
			test.want(&want)
			if err := parseOptions(&got, test.lists); err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("%q:\ngot  %+v\nwant %+v", test.lists, got, want)
			}
		})
	}
}

func TestParseOptionsErrors(t *testing.T) {
	tests := []struct{ list, want string }{
		{"frob", `-o frob: unknown option "frob"`},
		{"ro,frob=1,rw", `-o frob=1: unknown option "frob"`},
		{"RO", `-o RO: unknown option "RO"`},
		{" ro", `-o  ro: unknown option " ro"`},
		{"=ro", `-o =ro: unknown option ""`},
		{"remount", `-o remount: unknown option "remount"`},
		{"ro=1", "-o ro=1: option ro takes no value"},
		{"ro=", "-o ro=: option ro takes no value"},
		{"defaults=1", "-o defaults=1: option defaults takes no value"},
		{"attr_timeout", "-o attr_timeout: option attr_timeout needs a value"},
		{"attr_timeout=", "-o attr_timeout=: option attr_timeout needs a value"},
		{"attr_timeout=abc", "-o attr_timeout=abc: not a number of seconds"},
		{"attr_timeout=-1", "-o attr_timeout=-1: not a number of seconds"},
		{"entry_timeout=1s", "-o entry_timeout=1s: not a number of seconds"},
		{"entry_timeout=NaN", "-o entry_timeout=NaN: not a number of seconds"},
		{"entry_timeout=inf", "-o entry_timeout=inf: more than 9223372037 seconds"},
		{"entry_timeout=1e300", "-o entry_timeout=1e300: more than 9223372037 seconds"},
		{"entry_timeout=1e999", "-o entry_timeout=1e999: not a number of seconds"},
		{"max_mappings=0", "-o max_mappings=0: not a number of at least 1"},
		{"max_mappings=-5", "-o max_mappings=-5: not a number of at least 1"},
		{"max_mappings=many", "-o max_mappings=many: not a number of at least 1"},
		{"max_mappings=99999999999999999999", "-o max_mappings=99999999999999999999: not a number of at least 1"},
		{"fsname=", "-o fsname=: option fsname needs a value"},
		{"subtype", "-o subtype: option subtype needs a value"},
		{"control", "-o control: option control needs a value"},
		{"control=a/b", "-o control=a/b: not a name for a directory"},
		{"control=..", "-o control=..: not a name for a directory"},
		{"control=.", "-o control=.: not a name for a directory"},
		{"control=\x00", "-o control=\x00: not a name for a directory"},
	}
	for _, test := range tests {
		opts := defaultOptions()
		err := parseOptions(&opts, []string{test.list})
		if err == nil {
			t.Errorf("%q: got no error, want %q", test.list, test.want)
			continue
		}
		if err.Error() != test.want {
			t.Errorf("%q:\ngot  %q\nwant %q", test.list, err, test.want)
		}
		if usage := (cli.Usage{}); !errors.As(err, &usage) {
			t.Errorf("%q: the error is no usage error", test.list)
		}
	}
}

func TestSplitOptions(t *testing.T) {
	tests := []struct {
		list string
		want []string
	}{
		{"", nil},
		{",", nil},
		{"a", []string{"a"}},
		{"a,b", []string{"a", "b"}},
		{`a\,b,c`, []string{"a,b", "c"}},
		{`a\\,b`, []string{`a\`, "b"}},
		{`a\\\,b`, []string{`a\,b`}},
		{`a\`, []string{`a\`}},
		{`\n,\040`, []string{`\n`, `\040`}},
	}
	for _, test := range tests {
		if got := splitOptions(test.list); !slices.Equal(got, test.want) {
			t.Errorf("splitOptions(%q): got %q, want %q", test.list, got, test.want)
		}
	}
}

// FuzzParseOptions checks what holds for every list: no crash, every error is
// one that names the word, and a list that splits and joins again says the same.
func FuzzParseOptions(f *testing.F) {
	f.Add("ro,allow_other,attr_timeout=2.5")
	f.Add(`fsname=a\,b\\,x-systemd.automount,,comment=`)
	f.Add("max_mappings=0,frob")
	f.Add("entry_timeout=1e300")
	f.Add(`\`)
	f.Fuzz(func(t *testing.T, list string) {
		opts := defaultOptions()
		err := parseOptions(&opts, []string{list})
		words := splitOptions(list)
		if err != nil {
			if usage := (cli.Usage{}); !errors.As(err, &usage) {
				t.Errorf("%q: %v is no usage error", list, err)
			}
			if !slices.ContainsFunc(words, func(word string) bool { return strings.Contains(err.Error(), word) }) {
				t.Errorf("%q: %v names none of the words", list, err)
			}
		}
		if opts.AttrTimeout < 0 || opts.EntryTimeout < 0 || opts.MaxMappings < 0 {
			t.Errorf("%q: a negative value in %+v", list, opts)
		}

		var escaped []string
		for _, word := range words {
			escaped = append(escaped, quote.Option(word))
		}
		if again := splitOptions(strings.Join(escaped, ",")); !slices.Equal(again, words) {
			t.Errorf("%q: got %q after a round trip, want %q", list, again, words)
		}
	})
}

// TestOptionsDocument: docs/options.md has a row for each option that the help tells of.
func TestOptionsDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/options.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range mountOptions {
		if option.usage == "" {
			continue
		}
		for name := range strings.SplitSeq(option.usage, ", ") {
			name, _, hasValue := strings.Cut(name, "=")
			if hasValue {
				name += "="
			}
			if !strings.Contains(string(text), "`"+name) {
				t.Errorf("docs/options.md has no `%s`", name)
			}
		}
	}
}
