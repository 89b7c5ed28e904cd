// Package share divides a bounded resource among users so that no one of them
// can take all of it.
//
// What a user may hold follows what is left: at most four times the free part of
// the pool. A user who takes all he can gets four fifths of what he finds, and
// leaves a fifth to those who come after him; nothing is set aside for users who are
// not there. This is the dynamic threshold by which switches share their buffer
// memory among ports (Choudhury and Hahne, "Dynamic queue length thresholds for
// shared-memory packet switches", 1998).
package share

import "sync"

// alpha is how many times the free part of the pool one user may hold.
const alpha = 4

// Fair reports whether a user may hold so many units where so many are then free.
func Fair(held, free int64) bool { return free >= 0 && held <= alpha*free }

// Pool is a number of units that users take and give back. All methods can be
// called at the same time from any goroutine.
type Pool struct {
	limit  int64
	shared bool

	mu    sync.Mutex
	taken int64
	users map[uint32]int64 // units by user; those who have none are not in it
}

// NewPool returns a pool of limit units. Unless it is shared, one user may have them
// all.
func NewPool(limit int64, shared bool) *Pool {
	return &Pool{limit: limit, shared: shared, users: make(map[uint32]int64)}
}

// Take gives n units to a user, or none and reports false: the pool has too few
// left, or the user would hold more than four times what is left.
func (p *Pool) Take(user uint32, n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.hasLocked(user, n) {
		return false
	}
	p.addLocked(user, n)
	return true
}

// Has reports whether Take would give n units to a user.
func (p *Pool) Has(user uint32, n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hasLocked(user, n)
}

// hasLocked is Has; p.mu must be held.
func (p *Pool) hasLocked(user uint32, n int64) bool {
	free := p.limit - p.taken - n
	return free >= 0 && (!p.shared || Fair(p.users[user]+n, free))
}

// Force gives n units to a user whatever is left. Somebody must have them.
func (p *Pool) Force(user uint32, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addLocked(user, n)
}

// Give takes n units back from a user.
func (p *Pool) Give(user uint32, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addLocked(user, -n)
}

// addLocked counts n more units of a user, or fewer. p.mu must be held.
func (p *Pool) addLocked(user uint32, n int64) {
	p.taken += n
	if held := p.users[user] + n; held != 0 {
		p.users[user] = held
	} else {
		delete(p.users, user)
	}
}

// Limit returns how many units there are.
func (p *Pool) Limit() int64 { return p.limit }

// Taken returns how many units are taken.
func (p *Pool) Taken() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// Held returns how many units a user has.
func (p *Pool) Held(user uint32) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.users[user]
}
