package main

import (
	"context"
	"io"
	"os"
	"syscall"

	"bazil.org/fuse"
	"bazil.org/fuse/fs"
)

var (
	_ fs.HandleReader       = (*fileHandle)(nil)
	_ fs.HandleWriter       = (*fileHandle)(nil)
	_ fs.HandleReleaser     = (*fileHandle)(nil)
	_ fs.HandleReadDirAller = (*dirHandle)(nil)
)

// A fileHandle is one open backing file.
type fileHandle struct {
	f *os.File
}

func (h *fileHandle) Read(_ context.Context, req *fuse.ReadRequest, resp *fuse.ReadResponse) error {
	buf := resp.Data[:req.Size]
	n, err := h.f.ReadAt(buf, req.Offset)
	if err != nil && err != io.EOF {
		return errno(err)
	}
	resp.Data = buf[:n]
	return nil
}

func (h *fileHandle) Write(_ context.Context, req *fuse.WriteRequest, resp *fuse.WriteResponse) error {
	n, err := h.f.WriteAt(req.Data, req.Offset)
	resp.Size = n
	return errno(err)
}

func (h *fileHandle) Release(context.Context, *fuse.ReleaseRequest) error {
	return errno(h.f.Close())
}

// A dirHandle is a directory to be read as a whole.
type dirHandle struct {
	path string
}

func (h *dirHandle) ReadDirAll(context.Context) ([]fuse.Dirent, error) {
	list, err := os.ReadDir(h.path)
	if err != nil {
		return nil, errno(err)
	}
	entries := make([]fuse.Dirent, 0, len(list))
	for _, e := range list {
		entry := fuse.Dirent{Name: e.Name(), Type: fuse.DT_File}
		switch {
		case e.IsDir():
			entry.Type = fuse.DT_Dir
		case e.Type()&os.ModeSymlink != 0:
			entry.Type = fuse.DT_Link
		}
		if info, err := e.Info(); err == nil {
			entry.Inode = info.Sys().(*syscall.Stat_t).Ino
		}
		entries = append(entries, entry)
	}
	return entries, nil
}
