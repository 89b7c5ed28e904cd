package wire

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"mapfs/mapping/paging"
)

// The protocol's versions (linux/fuse.h): the newest that is offered, and the oldest that
// is spoken, Linux 5.4's.
const (
	protocolMajor    = 7
	protocolMinor    = 45
	protocolMinorMin = 31
)

// feature is one of the flags of FUSE_INIT.
type feature uint64

// The features that are asked for.
const (
	featureAsyncRead       feature = 1 << 0  // FUSE_ASYNC_READ
	featureBigWrites       feature = 1 << 5  // FUSE_BIG_WRITES
	featureDontMask        feature = 1 << 6  // FUSE_DONT_MASK
	featureReaddirplus     feature = 1 << 13 // FUSE_DO_READDIRPLUS
	featureReaddirplusAuto feature = 1 << 14 // FUSE_READDIRPLUS_AUTO
	featureWriteback       feature = 1 << 16 // FUSE_WRITEBACK_CACHE
	featureParallelDirops  feature = 1 << 18 // FUSE_PARALLEL_DIROPS
	featurePosixACL        feature = 1 << 20 // FUSE_POSIX_ACL
	featureMaxPages        feature = 1 << 22 // FUSE_MAX_PAGES
	featureCacheSymlinks   feature = 1 << 23 // FUSE_CACHE_SYMLINKS
	featureKillprivV2      feature = 1 << 28 // FUSE_HANDLE_KILLPRIV_V2
	featureSetxattrExt     feature = 1 << 29 // FUSE_SETXATTR_EXT
	featureInitExt         feature = 1 << 30 // FUSE_INIT_EXT: there are more than 32
	featureCreateSuppGroup feature = 1 << 34 // FUSE_CREATE_SUPP_GROUP
	featureDirectIOMmap    feature = 1 << 36 // FUSE_DIRECT_IO_ALLOW_MMAP
	featurePassthrough     feature = 1 << 37 // FUSE_PASSTHROUGH
)

// featureNames has the features as the status of a mount names them, in the order of
// their bits.
var featureNames = []struct {
	feature feature
	name    string
}{
	{featureAsyncRead, "async_read"},
	{featureBigWrites, "big_writes"},
	{featureDontMask, "dont_mask"},
	{featureReaddirplus, "readdirplus"},
	{featureReaddirplusAuto, "readdirplus_auto"},
	{featureWriteback, "writeback_cache"},
	{featureParallelDirops, "parallel_dirops"},
	{featurePosixACL, "posix_acl"},
	{featureMaxPages, "max_pages"},
	{featureCacheSymlinks, "cache_symlinks"},
	{featureKillprivV2, "handle_killpriv_v2"},
	{featureSetxattrExt, "setxattr_ext"},
	{featureCreateSuppGroup, "create_supp_group"},
	{featureDirectIOMmap, "direct_io_allow_mmap"},
	{featurePassthrough, "passthrough"},
}

// String returns the names of the features, separated by commas.
func (f feature) String() string {
	var names []string
	for _, known := range featureNames {
		if f&known.feature != 0 {
			names = append(names, known.name)
		}
	}
	return strings.Join(names, ",")
}

// Protocol is what the kernel and this package have agreed on.
type Protocol struct {
	Major, Minor uint32
	granted      feature
	// RequestBytes is how many bytes one read or write may have.
	RequestBytes int
}

// Version returns the version of the protocol, "7.45".
func (p *Protocol) Version() string { return fmt.Sprintf("%d.%d", p.Major, p.Minor) }

// Features returns the names of the features that were granted, separated by commas.
func (p *Protocol) Features() string { return p.granted.String() }

// ACLs reports whether the kernel checks access control lists and leaves a client's umask
// to the filesystem.
func (p *Protocol) ACLs() bool { return p.granted&featurePosixACL != 0 }

// Passes reports whether files can be passed through; see [Conn.Pass].
func (p *Protocol) Passes() bool { return p.granted&featurePassthrough != 0 }

// LeavesUmask reports whether the umask of a client is the filesystem's to apply.
func (p *Protocol) LeavesUmask() bool { return p.granted&featureDontMask != 0 }

// MaxRequestBytes is the most that one read or write can have: the kernel's default limit
// of pages in a request (fs.fuse.max_pages_limit).
const MaxRequestBytes = 1 << 20

// oldRequestBytes is what a request has where the kernel does not know FUSE_MAX_PAGES.
const oldRequestBytes = 128 << 10

// initOut is struct fuse_init_out.
type initOut struct {
	Major, Minor, MaxReadahead, Flags  uint32
	MaxBackground, CongestionThreshold uint16
	MaxWrite, TimeGran                 uint32
	MaxPages, MapAlignment             uint16
	Flags2, MaxStackDepth              uint32
	RequestTimeout                     uint16
	_                                  [11]uint16
}

// wants returns the features that a mount asks for.
func (o *Options) wants() feature {
	want := featureAsyncRead | featureBigWrites | featureReaddirplus | featureReaddirplusAuto |
		featureParallelDirops | featureMaxPages | featureCacheSymlinks | featureKillprivV2 | featureSetxattrExt |
		featureInitExt | featureCreateSuppGroup | featureDirectIOMmap
	if o.DefaultPermissions {
		// The kernel checks permissions by itself wherever it checks lists, so without
		// default_permissions there are none.
		want |= featurePosixACL | featureDontMask
	}
	if o.Writeback {
		want |= featureWriteback
	}
	if o.Passthrough {
		want |= featurePassthrough
	}
	return want
}

// answerInit answers what the kernel has sent first, and returns the answer and what is
// agreed on by it. An error is the answer too: EPROTO.
func (o *Options) answerInit(message []byte) (initOut, Protocol, error) {
	var out initOut
	body := message
	h := take[inHeader](&body)
	if h == nil || h.Opcode != opInit {
		return out, Protocol{}, errMalformed
	}
	// Old kernels send the first four words alone.
	var in initIn
	if len(body) < 16 {
		return out, Protocol{}, errMalformed
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&in)), unsafe.Sizeof(in)), body)
	if in.Major != protocolMajor || in.Minor < protocolMinorMin {
		return out, Protocol{}, fmt.Errorf("the kernel speaks version %d.%d of the FUSE protocol, and mapfs needs %d.%d or newer: %w",
			in.Major, in.Minor, protocolMajor, protocolMinorMin, unix.EPROTO)
	}
	offered := feature(in.Flags)
	if offered&featureInitExt != 0 {
		offered |= feature(in.Flags2) << 32
	}
	p := Protocol{Major: protocolMajor, Minor: min(in.Minor, protocolMinor), granted: offered & o.wants(), RequestBytes: oldRequestBytes}
	if p.granted&featureMaxPages != 0 {
		p.RequestBytes = o.requestBytes()
	}
	out = initOut{
		Major: protocolMajor, Minor: protocolMinor, MaxReadahead: maxReadahead,
		Flags: uint32(p.granted), Flags2: uint32(p.granted >> 32),
		MaxBackground: maxBackground, MaxWrite: uint32(p.RequestBytes), TimeGran: 1,
	}
	if p.Passes() {
		// One filesystem, ours, lies over the one that is passed through to, so that one
		// can be laid over ours. What lies over another itself is then too many.
		out.MaxStackDepth = 1
	}
	if p.granted&featureMaxPages != 0 {
		out.MaxPages = uint16(p.RequestBytes / int(paging.PageSize))
	}
	return out, p, nil
}

// requestBytes returns how many bytes a request of the mount may have.
func (o *Options) requestBytes() int {
	most := MaxRequestBytes
	if o.RequestBytes > 0 {
		most = o.RequestBytes
	}
	return min(most, maxPagesLimit()*int(paging.PageSize))
}
