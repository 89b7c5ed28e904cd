package fs

import (
	"syscall"

	"mapfs/mapping/share"
)

// admission decides who may open one more file or directory. A handle is charged to
// the user whose process opened it: who takes his share of them all gets ENFILE,
// and nobody else does.
type admission struct {
	handles *share.Pool
	texts   *share.Pool // bytes
}

// newAdmission returns an admission of nobody yet. shared says that there are more
// users than the daemon's own and root.
func newAdmission(l limits, shared bool) admission {
	return admission{handles: share.NewPool(l.handles, shared), texts: share.NewPool(l.texts, shared)}
}

// admit charges a user with one more handle, before anything is opened or made for
// it, and makes room for its descriptor. s.dismiss takes the charge back.
func (s *Session) admit(user uint32) error {
	explicit := int64(s.files.Arena().Count())
	if s.admission.handles.Taken()+explicit >= s.limits.handles || !s.admission.handles.Take(user, 1) {
		return syscall.ENFILE
	}
	s.makeDescriptorRoom(explicit)
	return nil
}

// dismiss takes back the charge of a handle that is closed, or was never made.
func (s *Session) dismiss(user uint32) { s.admission.handles.Give(user, 1) }

// admitMapping refuses the file of one more explicit mapping if there is no descriptor
// for it. Explicit mappings are for the daemon's own user and root alone, so they come
// out of all handles and not out of a share.
func (s *Session) admitMapping() error {
	explicit := int64(s.files.Arena().Count()) + 1
	if s.admission.handles.Taken()+explicit > s.limits.handles {
		return syscall.ENFILE
	}
	s.makeDescriptorRoom(explicit)
	return nil
}

// makeDescriptorRoom gives up idle files where they have descriptors that handles
// and explicit mappings are due.
func (s *Session) makeDescriptorRoom(explicit int64) {
	if over := s.admission.handles.Taken() + explicit + s.files.Idle() - s.limits.handles; over > 0 {
		s.files.GiveUpIdle(int(over))
	}
}

// admitText charges the user of a handle of the control tree with the text that it
// keeps until it is closed. A text is given to a user who has none, however long it
// is.
func (s *Session) admitText(h *handle) error {
	text, ok := h.control.(*snapshot)
	switch {
	case h.control == nil:
		return syscall.ENXIO
	case !ok || len(text.text) == 0:
		return nil
	}
	n := int64(len(text.text))
	switch texts := s.admission.texts; {
	case texts.Take(h.user, n):
	case texts.Held(h.user) == 0:
		texts.Force(h.user, n)
	default:
		return syscall.ENOMEM
	}
	h.textBytes = n
	return nil
}
