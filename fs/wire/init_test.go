package wire

import (
	"errors"
	"slices"
	"syscall"
	"testing"
)

// TestAnswerInit: nothing is used that the kernel has not offered, and a kernel that is
// too old is told so.
func TestAnswerInit(t *testing.T) {
	everything := uint32(1<<32 - 1)
	o := Options{DefaultPermissions: true}
	for _, test := range []struct {
		name    string
		in      initIn
		short   bool // the first four words alone
		refused bool
		version string
		granted feature
		bytes   int
	}{
		{name: "6.18", in: initIn{Major: 7, Minor: 45, Flags: everything, Flags2: everything}, version: "7.45", granted: o.wants(), bytes: o.requestBytes()},
		{name: "newer than we know", in: initIn{Major: 7, Minor: 99, Flags: everything, Flags2: everything}, version: "7.45", granted: o.wants(), bytes: o.requestBytes()},
		{name: "5.10", in: initIn{Major: 7, Minor: 32, Flags: uint32(featureAsyncRead | featureMaxPages | featurePosixACL)}, short: true,
			version: "7.32", granted: featureAsyncRead | featureMaxPages | featurePosixACL, bytes: o.requestBytes()},
		{name: "with nothing", in: initIn{Major: 7, Minor: 31}, short: true, version: "7.31", bytes: oldRequestBytes},
		{name: "4.19", in: initIn{Major: 7, Minor: 27, Flags: everything}, short: true, refused: true},
		{name: "another protocol", in: initIn{Major: 8, Minor: 0}, refused: true},
	} {
		body := BytesOf(&test.in)
		if test.short {
			body = body[:16]
		}
		out, agreed, err := o.answerInit(message(opInit, 0, body))
		if test.refused {
			if !errors.Is(err, syscall.EPROTO) {
				t.Errorf("%s: %v, want EPROTO", test.name, err)
			}
			continue
		}
		if err != nil || agreed.Version() != test.version || agreed.granted != test.granted || agreed.RequestBytes != test.bytes {
			t.Errorf("%s: %+v, %v", test.name, agreed, err)
		}
		if got := feature(out.Flags) | feature(out.Flags2)<<32; got&^(feature(test.in.Flags)|feature(test.in.Flags2)<<32) != 0 {
			t.Errorf("%s: answered with features %#x that were not offered", test.name, uint64(got))
		}
		if out.Major != 7 || int(out.MaxWrite) != test.bytes {
			t.Errorf("%s: answer %+v", test.name, out)
		}
	}
	if _, _, err := o.answerInit(message(opLookup, 0, []byte("a\x00"))); err == nil {
		t.Error("a lookup was taken for FUSE_INIT")
	}
	if _, _, err := o.answerInit(slices.Clip(message(opInit, 0, make([]byte, 8)))); err == nil {
		t.Error("half a FUSE_INIT was taken for one")
	}
}

// TestWants: lists are asked for where the kernel checks permissions, and nowhere else.
func TestWants(t *testing.T) {
	if got := (&Options{}).wants() & (featurePosixACL | featureDontMask | featureWriteback); got != 0 {
		t.Errorf("without options: %v", got)
	}
	if got := (&Options{Writeback: true}).wants() & featureWriteback; got == 0 {
		t.Error("no writeback")
	}
}
