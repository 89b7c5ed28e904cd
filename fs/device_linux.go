package fs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

// fuseDevice is the device of fuse sessions (fuse(4)).
const fuseDevice = "/dev/fuse"

// openDevices returns the descriptors of this process that are open on
// /dev/fuse.
func openDevices() (map[int]bool, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	found := make(map[int]bool)
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == fuseDevice {
			if fd, err := strconv.Atoi(e.Name()); err == nil {
				found[fd] = true
			}
		}
	}
	return found, nil
}

// sessionDevice returns a duplicate of the descriptor of the session that was
// mounted since before was taken. The library keeps that descriptor to itself,
// and a reply straight from a mapping needs it.
func sessionDevice(before map[int]bool) (int, error) {
	now, err := openDevices()
	if err != nil {
		return -1, err
	}
	session := -1
	for fd := range now {
		if before[fd] {
			continue
		}
		if session >= 0 {
			return -1, errors.New("two new descriptors of " + fuseDevice)
		}
		session = fd
	}
	if session < 0 {
		return -1, errors.New("no new descriptor of " + fuseDevice)
	}
	dup, err := unix.FcntlInt(uintptr(session), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("dup of the session's descriptor: %w", err)
	}
	return dup, nil
}

// headerSize is the size of what stands before every reply.
const headerSize = int(unsafe.Sizeof(outHeader{}))

// replier answers requests, one at a time. Each worker has its own, so that an
// answer needs no memory but this.
type replier struct {
	dev int
	// request is the one being answered.
	request *fuse.Header
	// buf holds the header and a fixed reply after it.
	buf struct {
		header outHeader
		body   [unsafe.Sizeof(createOut{})]byte
	}
}

// start makes ready for the answer to a request.
func (r *replier) start(request *fuse.Header) {
	r.request = request
	r.buf.header = outHeader{Unique: uint64(request.ID)}
}

// finish gives the request's buffer back to the library, which does it for the
// answers it sends itself. A forget is never answered, so answering one is how
// the buffer comes back and nothing else happens.
func (r *replier) finish() {
	(&fuse.ForgetRequest{Header: *r.request}).Respond()
	r.request = nil
}

// ok answers without a body.
func (r *replier) ok() error { return r.send(nil) }

// fail answers with an errno.
func (r *replier) fail(errno syscall.Errno) error {
	r.buf.header.Error = -int32(errno)
	return r.send(nil)
}

// send answers with a body of a fixed size, at most that of a createOut. It only
// copies the body, which can therefore live on the caller's stack.
func (r *replier) send(body []byte) error {
	length := headerSize + copy(r.buf.body[:], body)
	r.buf.header.Len = uint32(length)
	_, err := unix.Write(r.dev, bytesOf(&r.buf)[:length])
	return err
}

// sendBytes answers with a body of any length.
func (r *replier) sendBytes(body []byte) error {
	if len(body) <= len(r.buf.body) {
		return r.send(body)
	}
	r.buf.header.Len = uint32(headerSize + len(body))
	_, err := unix.Writev(r.dev, [][]byte{bytesOf(&r.buf.header), body})
	return err
}

// Begin is [mapping.Outlet]'s: n bytes of a file follow.
func (r *replier) Begin(n int) (fd int, header []byte) {
	r.buf.header.Len = uint32(headerSize + n)
	return r.dev, bytesOf(&r.buf.header)
}
