package fs

import (
	"math"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
	"mapfs/mapping"
)

// lseek answers where a file's next data or hole is. The kernel answers every other seek
// by itself. It asks without having sent what clients have stored to its pages, which can
// be data in what looks like a hole: so that is handed over first, where there can be any.
func (s *Session) lseek(w *wire.Worker, r *wire.LseekRequest) error {
	h := s.handles.get(r.Handle)
	if h == nil || h.file == nil {
		return syscall.EBADF
	}
	if r.Offset > math.MaxInt64 {
		return syscall.EINVAL
	}
	seek := h.file.SeekData
	switch r.Whence {
	case unix.SEEK_DATA:
	case unix.SEEK_HOLE:
		seek = h.file.SeekHole
	default:
		return syscall.EINVAL
	}
	if h.node.mayBeStored() {
		if err := w.Wait(s.conn.HandOver([]fuse.NodeID{h.node.id}, nil)); err != nil {
			return err
		}
	}
	at, err := seek(int64(r.Offset))
	if err != nil {
		return err
	}
	out := wire.LseekOut{Offset: uint64(at)}
	return w.Send(wire.BytesOf(&out))
}

// copyFileRange copies bytes from one open file to another, or inside one. With a history
// the client's kernel reads and writes instead, and so it does wherever the engine cannot
// have the bytes copied below.
func (s *Session) copyFileRange(w *wire.Worker, r *wire.CopyFileRangeRequest) error {
	from, to := s.handles.get(r.Handle), s.handles.get(r.HandleOut)
	if from == nil || from.file == nil || to == nil || to.file == nil {
		return syscall.EBADF
	}
	if r.Offset > math.MaxInt64 || r.OffsetOut > math.MaxInt64 || r.Length > math.MaxInt64-max(r.Offset, r.OffsetOut) {
		return syscall.EFBIG
	}
	if s.history != nil {
		return syscall.EOPNOTSUPP
	}
	// As with fallocate(2), the request does not say what the client may.
	if err := s.dropPrivileges(to, r.Uid != 0); err != nil {
		return err
	}
	w.WillWait()
	n, err := to.file.CopyRange(int64(r.OffsetOut), from.file, int64(r.Offset), int64(r.Length), mapping.Origin{PID: r.Pid})
	if err != nil {
		return err
	}
	to.node.changed()
	out := wire.WriteOut{Size: uint32(n)}
	return w.Send(wire.BytesOf(&out))
}
