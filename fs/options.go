package fs

import (
	"log/slog"
	"time"

	"mapfs/fs/crash"
	"mapfs/mapping"
)

// DefaultTimeout is how long the kernel may keep a name or a file's attributes
// before it asks again, unless Options say otherwise. It is libfuse's default.
const DefaultTimeout = time.Second

// ExclusiveTimeout stands for ever: how long the kernel may keep names and attributes
// of a mount that alone changes what it mirrors.
const ExclusiveTimeout = 24 * time.Hour

// DefaultHistoryMemory is how many bytes of a history stay in memory.
const DefaultHistoryMemory = 64 << 20

// Mode says where stores to a file go: mapping.Shared, Private or Staged.
type Mode = mapping.Mode

// Shared and Staged are mapping's.
const (
	Shared = mapping.Shared
	Staged = mapping.Staged
)

// ParseMode returns the mode that is called shared, private or staged.
func ParseMode(name string) (Mode, error) { return mapping.ParseMode(name) }

// Options say what is mounted where, and how.
type Options struct {
	// Backing is the directory that the mount mirrors; Mountpoint is the
	// directory it appears on. Both must exist and neither may lie inside the
	// other.
	Backing, Mountpoint string

	// FSName is the mount's source in /proc/self/mountinfo; Backing if empty.
	FSName string

	// ReadOnly refuses every change (mount(8): ro).
	ReadOnly bool
	// AllowOther lets users other than the mounter reach the mount.
	AllowOther bool
	// DefaultPermissions lets the kernel check every access against the mode,
	// owner and group that the mount shows (fuse(8)).
	DefaultPermissions bool
	// NonEmpty allows a mount point that has entries.
	NonEmpty bool

	// SUID and Dev let set-id bits and device nodes take effect; both need
	// root. NoExec refuses to run programs; NoATime keeps access times as they
	// are, NoDirATime those of directories. All are mount(8)'s.
	SUID, Dev, NoExec, NoATime, NoDirATime bool

	// Writeback lets the kernel collect writes and send them later
	// (FUSE_WRITEBACK_CACHE). A write is then acknowledged before it reaches
	// the mapping.
	Writeback bool

	// Passthrough has the kernel read, write and map shared files by itself
	// (FUSE_PASSTHROUGH), where it can. It needs root. Mode must be Shared, Writeback and
	// History not set.
	Passthrough bool

	// Exclusive promises that nobody but clients of the mount changes BACKING while it
	// is mounted. The kernel then keeps the contents of directories, and those of
	// files from one open(2) to the next, without asking whether they changed. What
	// breaks the promise may never be seen.
	Exclusive bool

	// AttrTimeout and EntryTimeout bound how long the kernel may use an
	// attribute or a name (absent ones too) without asking. 0 means never.
	AttrTimeout, EntryTimeout time.Duration

	// Mode is that of files that are given no other: where stores go.
	Mode Mode
	// DirtyLimit bounds the bytes of copied pages in memory, in the modes that
	// copy: writers wait while the oldest are written back. 0 is a quarter of the
	// memory.
	DirtyLimit int64
	// History is the model by which the mount knows what a power cut would leave; nil if it
	// keeps no history. Then Mode must be Staged, WritebackInterval 0, Writeback not set, and
	// there must be a Subtree with a name. HistoryMemory is how many bytes of the history
	// stay in memory, the rest goes to an unlinked file in HistoryDir; 0 and "" stand for
	// DefaultHistoryMemory and the system's directory for temporary files.
	History       crash.Model
	HistoryDir    string
	HistoryMemory int64
	// Record is a directory that gets a recording of the history; "" is none. The caller
	// has put the tree as it is before the mount there; see [crash.InitialDir].
	Record string

	// WritebackInterval is how often everything unsynced is written back without
	// being asked for. 0 is never.
	WritebackInterval time.Duration

	// MaxMappings caps the mappings that live at a time; 0 picks a cap well
	// below vm.max_map_count, whose exhaustion would end the process.
	MaxMappings int

	// Subtree answers for an entry of the root that mirrors nothing; nil if there is
	// none.
	Subtree Subtree
	// Observer is told of what happens to files; nil if nobody is.
	Observer mapping.Observer

	// Log gets what the daemon has to say; slog.Default if nil.
	Log *slog.Logger
}
