// Package wire speaks the kernel's side of FUSE: it mounts, reads requests and hands
// them to a [Handler], sends replies and notifications, and decides how many requests
// are worked on at a time and whose. It knows no file and no directory.
//
// The library mapfs is built on, bazil.org/fuse, opens the connection and decodes
// requests. Replies are this package's own, because the library's encoder leaves the
// sticky bit out of a mode, and because a reply straight from a mapping must not be
// copied. See [Worker.Send] and [Worker.Begin].
//
// # Lock order
//
// workers.mu is taken under no other lock and no other is taken under it, except that
// of the share of waiting requests, which waits for nothing. waiters.mu and notifier.mu
// likewise.
package wire
