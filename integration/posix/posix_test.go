package posix

import (
	"slices"
	"strings"
	"testing"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

func init() {
	harness.AddChecks(posixChecks())
}

// checkT is what a check works with, with what checks of this package share.
type checkT struct{ *harness.CheckT }

// check is one row of the POSIX table.
type check struct {
	name                    string
	run                     func(c *checkT)
	mountOnly, writeThrough bool // as in Check
	// notPassed: with -o passthrough the kernel does it in a way of its own.
	notPassed bool
}

// posixChecks is the whole table, in the order in which it runs.
func posixChecks() (all []harness.Check) {
	for _, c := range slices.Concat(nameChecks, dataChecks, sizeChecks, spaceChecks, attrChecks, askChecks, timeChecks, atimeChecks,
		setidChecks, userChecks, specialChecks, linkChecks, renameChecks, dirChecks, xattrChecks,
		mmapChecks, execChecks, lockChecks, backingChecks, extentChecks, tmpfileChecks,
		flagsChecks, aclChecks, forbiddenChecks) {
		all = append(all, harness.Check{Name: c.name, Run: func(t *harness.CheckT) { c.run(&checkT{t}) }, MountOnly: c.mountOnly, WriteThrough: c.writeThrough, NotPassed: c.notPassed})
	}
	return all
}

// TestPOSIX runs the table on a plain directory and on a mount of one, on ext4
// and on tmpfs.
func TestPOSIX(t *testing.T) {
	need.Root(t)
	harness.EachFS(t, func(t *testing.T, top string) {
		t.Run("plain", func(t *testing.T) {
			dir := harness.SubDir(t, top, "plain")
			for _, c := range posixChecks() {
				if !c.MountOnly {
					t.Run(c.Name, func(t *testing.T) { harness.RunCheck(t, dir, "", c.Name) })
				}
			}
		})
		t.Run("mount", func(t *testing.T) {
			harness.RequireFUSE(t)
			backing := harness.SubDir(t, top, "backing")
			m := harness.Mount(t, backing, "allow_other", "suid", "dev")
			for _, c := range posixChecks() {
				t.Run(c.Name, func(t *testing.T) { harness.RunCheck(t, m.Dir, backing, c.Name) })
				m.Lives(c.Name)
			}
		})
		t.Run("passthrough", func(t *testing.T) {
			harness.RequireFUSE(t)
			backing := harness.SubDir(t, top, "passthrough")
			m := harness.Mount(t, backing, "passthrough", "allow_other", "suid", "dev")
			for _, c := range posixChecks() {
				if c.MountOnly || c.NotPassed {
					continue // the former are about the daemon's mappings
				}
				t.Run(c.Name, func(t *testing.T) { harness.RunCheck(t, m.Dir, backing, c.Name) })
				m.Lives(c.Name)
			}
		})
		t.Run("exclusive", func(t *testing.T) {
			harness.RequireFUSE(t)
			backing := harness.SubDir(t, top, "exclusive")
			m := harness.Mount(t, backing, "exclusive", "allow_other", "suid", "dev")
			for _, c := range posixChecks() {
				if c.MountOnly || c.WriteThrough {
					continue // the former change BACKING
				}
				below := ""
				if strings.HasPrefix(c.Name, "forbidden_") {
					below = backing // and so the directory is no plain one
				}
				t.Run(c.Name, func(t *testing.T) { harness.RunCheck(t, m.Dir, below, c.Name) })
				m.Lives(c.Name)
			}
		})
	})
}
