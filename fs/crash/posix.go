package crash

// Posix is what the standard promises, and nothing more: what survives is what fsync(2),
// fdatasync(2), msync(2) with MS_SYNC, or O_SYNC was called for, on that very file or
// directory. Everything else survives or not, each by itself.
//
// Sources:
//   - POSIX.1-2024, fsync(): "all data for the open file descriptor" and what is needed to
//     read it go to the device. Of names it says nothing.
//   - fsync(2), Linux: "Calling fsync() does not necessarily ensure that the entry in the
//     directory containing the file has also reached disk. For that an explicit fsync()
//     on a file descriptor for the directory is also needed."
//   - fdatasync(2), Linux: metadata only if it is needed for a later read, as a change of
//     the size is and one of the owner or mode is not.
//   - rename(2): at no moment is the new name missing. So both names change, or neither.
type Posix struct{}

// Name is "posix".
func (Posix) Name() string { return "posix" }

func (Posix) orders(*Op) bool { return false }

func (Posix) early(*Log, *inodeOps, *Op) int64 { return 0 }

// commits: of a file its attributes, unless only the data is meant; of a directory also
// the names in it. A rename between two directories waits for both.
func (Posix) commits(l *Log, s Sync) (ops []*Op) {
	if in := l.inodes[s.Inode]; in != nil && !s.DataOnly {
		ops = append(ops, in.attrs...)
	}
	for _, op := range l.byDir[s.Inode] {
		if op.Entry.Dir == s.Inode {
			op.waits = false
		}
		if op.Kind == Rename && op.To.Dir == s.Inode {
			op.waitsTo = false
		}
		if !op.waits && !op.waitsTo {
			ops = append(ops, op)
		}
	}
	delete(l.byDir, s.Inode)
	return ops
}

func (Posix) flushes(*Log, *Op) []*Op { return nil }

func (Posix) closed(*Log, *inodeOps) {}

func (Posix) refuses(*Op, *dropped, int64, int64) *lack { return nil }
