package fs

import (
	"syscall"

	"mapfs/mapping/share"
)

// admission decides who may open one more file or directory. A handle is charged to
// the user whose process opened it: who takes his share of them all gets ENFILE,
// and nobody else does.
type admission struct{ handles *share.Pool }

// newAdmission returns an admission of nobody yet. shared says that there are more
// users than the daemon's own and root.
func newAdmission(l limits, shared bool) admission {
	return admission{handles: share.NewPool(l.handles, shared)}
}

// admit charges a user with one more handle, before anything is opened or made for
// it, and makes room for its descriptor. s.dismiss takes the charge back.
func (s *Session) admit(user uint32) error {
	held := s.heldBySubtree()
	if s.admission.handles.Taken()+held >= s.limits.handles || !s.admission.handles.Take(user, 1) {
		return syscall.ENFILE
	}
	s.makeDescriptorRoom(held)
	return nil
}

// dismiss takes back the charge of a handle that is closed, or was never made.
func (s *Session) dismiss(user uint32) { s.admission.handles.Give(user, 1) }

// AdmitDescriptor makes room for one more descriptor of a file that the subtree wants to
// hold (see [Subtree]), or refuses it: ENFILE. Such descriptors come out of those for all
// handles, and not out of anybody's share.
func (s *Session) AdmitDescriptor() error {
	held := s.heldBySubtree() + 1
	if s.admission.handles.Taken()+held > s.limits.handles {
		return syscall.ENFILE
	}
	s.makeDescriptorRoom(held)
	return nil
}

// makeDescriptorRoom closes idle files where they have descriptors that handles
// and the subtree are due.
func (s *Session) makeDescriptorRoom(held int64) {
	if over := s.admission.handles.Taken() + held + s.files.Idle() - s.limits.handles; over > 0 {
		s.files.CloseIdle(int(over))
	}
}

func (s *Session) heldBySubtree() int64 {
	if s.subtree == nil {
		return 0
	}
	return s.subtree.Descriptors()
}

// Handles returns how many files and directories clients have open, and how many they
// can have.
func (s *Session) Handles() (open, limit int64) {
	return s.admission.handles.Taken(), s.admission.handles.Limit()
}

// DescriptorLimit returns how many descriptors the process may have (RLIMIT_NOFILE).
func (s *Session) DescriptorLimit() int { return s.limits.descriptors }
