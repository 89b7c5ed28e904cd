package wire

import (
	"slices"
	"testing"
	"unsafe"

	"bazil.org/fuse"
)

// message puts the parts of a request together.
func message(opcode uint32, extlen uint16, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	h := inHeader{Opcode: opcode, Unique: 7, Nodeid: 3, UID: 1, GID: 2, PID: 4, Extlen: extlen}
	h.Len = uint32(int(unsafe.Sizeof(h)) + len(body))
	return slices.Concat(BytesOf(&h), body)
}

// TestDecode: requests come out as the kernel sent them, and what reaches past its message
// is malformed.
func TestDecode(t *testing.T) {
	write := writeIn{Fh: 5, Offset: 6, Size: 4}
	create := createIn{Flags: 2, Mode: 0o100644, Umask: 0o22}
	groups := []uint32{16, extGroups, 1, 4242}
	ext := slices.Concat(BytesOf(&groups[0]), BytesOf(&groups[1]), BytesOf(&groups[2]), BytesOf(&groups[3]))
	rename := rename2In{Newdir: 9, Flags: 2}
	count := batchForgetIn{Count: 2}
	one := forgetOne{Nodeid: 1, Nlookup: 2}
	for _, test := range []struct {
		name    string
		message []byte
		check   func(d *decoder, r fuse.Request) bool
	}{
		{"lookup", message(opLookup, 0, []byte("name\x00")), func(_ *decoder, r fuse.Request) bool {
			l, ok := r.(*fuse.LookupRequest)
			return ok && l.Name == "name" && l.Node == 3 && l.ID == 7 && l.Uid == 1 && l.Gid == 2 && l.Pid == 4
		}},
		{"lookup without an end", message(opLookup, 0, []byte("name")), nil},
		{"write", message(opWrite, 0, BytesOf(&write), []byte("data")), func(_ *decoder, r fuse.Request) bool {
			w, ok := r.(*fuse.WriteRequest)
			return ok && string(w.Data) == "data" && w.Handle == 5 && w.Offset == 6
		}},
		{"write that is cut", message(opWrite, 0, BytesOf(&write), []byte("dat")), nil},
		{"create with a group", message(opCreate, 2, BytesOf(&create), []byte("f\x00"), ext), func(d *decoder, r fuse.Request) bool {
			c, ok := r.(*fuse.CreateRequest)
			return ok && c.Name == "f" && c.Umask == 0o22 && d.hasGroup && d.group == 4242
		}},
		{"extension longer than the message", message(opCreate, 200, BytesOf(&create), []byte("f\x00")), nil},
		{"rename2", message(opRename2, 0, BytesOf(&rename), []byte("a\x00b\x00")), func(_ *decoder, r fuse.Request) bool {
			m, ok := r.(*Rename2Request)
			return ok && m.OldName == "a" && m.NewName == "b" && m.Flags == 2 && m.NewDir == 9
		}},
		{"rename2 of one name", message(opRename2, 0, BytesOf(&rename), []byte("a\x00b")), nil},
		{"batch forget", message(opBatchForget, 0, BytesOf(&count), BytesOf(&one), BytesOf(&one)), func(_ *decoder, r fuse.Request) bool {
			b, ok := r.(*fuse.BatchForgetRequest)
			return ok && len(b.Forget) == 2 && b.Forget[1] == fuse.BatchForgetItem{NodeID: 1, N: 2}
		}},
		{"batch forget of more than there are", message(opBatchForget, 0, BytesOf(&count), BytesOf(&one)), nil},
		{"unknown", message(4000, 0), func(_ *decoder, r fuse.Request) bool {
			u, ok := r.(*fuse.UnrecognizedRequest)
			return ok && u.Opcode == 4000
		}},
		{"shorter than a header", make([]byte, 39), nil},
		{"of another length than it says", append(message(opLookup, 0, []byte("a\x00")), 0), nil},
	} {
		var d decoder
		r, _, err := d.decode(test.message)
		switch {
		case test.check == nil && err != errMalformed:
			t.Errorf("%s: %v, %v, want it malformed", test.name, r, err)
		case test.check != nil && (err != nil || !test.check(&d, r)):
			t.Errorf("%s: %v, %v", test.name, r, err)
		}
	}
}

// FuzzDecode: no message makes the decoder read outside of it.
func FuzzDecode(f *testing.F) {
	f.Add(uint32(opLookup), uint16(0), []byte("name\x00"))
	f.Add(uint32(opWrite), uint16(0), make([]byte, 60))
	f.Add(uint32(opCreate), uint16(2), make([]byte, 60))
	f.Add(uint32(opSetxattr), uint16(0), []byte("\x01\x00\x00\x00\x00\x00\x00\x00user.a\x00b"))
	f.Fuzz(func(t *testing.T, opcode uint32, extlen uint16, body []byte) {
		for _, ext := range []bool{false, true} {
			d := decoder{setxattrExt: ext}
			m := message(opcode, extlen, body)
			r, h, err := d.decode(m)
			if (r == nil) != (err != nil) {
				t.Fatalf("%v, %v", r, err)
			}
			if h.ID != 7 {
				t.Fatalf("header %v", h)
			}
			if r != nil {
				_ = r.String()
			}
		}
	})
}

// TestDecodeAllocates: the requests that come often cost no allocation.
func TestDecodeAllocates(t *testing.T) {
	var d decoder
	write := writeIn{Size: 4}
	for _, m := range [][]byte{
		message(opLookup, 0, []byte("name\x00")),
		message(opWrite, 0, BytesOf(&write), []byte("data")),
		message(opRead, 0, BytesOf(&readIn{})),
		message(opGetattr, 0, BytesOf(&getattrIn{})),
		message(opOpen, 0, BytesOf(&openIn{})),
		message(opRelease, 0, BytesOf(&releaseIn{})),
	} {
		if n := testing.AllocsPerRun(100, func() { _, _, _ = d.decode(m) }); n > 0 {
			t.Errorf("opcode %d: %v allocations", m[4], n)
		}
	}
}
