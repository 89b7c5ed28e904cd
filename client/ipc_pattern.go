package client

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
)

// headSize is the part of a message that holds its number.
const headSize = 8

// stripes is how many messages in a row differ in all their bytes but a few. It
// is a prime, so that no size of a ring or of a page is a multiple of it.
const stripes = 509

// pattern knows every byte of every message: its number, then a piece of random
// bytes that depends on the number. To fill and to check a message costs one
// pass over it, which is as near to a program's own use of it as can be.
type pattern struct {
	random []byte
	size   int64
}

// newPattern is the same in both processes.
func newPattern(size int64) pattern {
	random := make([]byte, size+stripes)
	rand.NewChaCha8([32]byte([]byte("messages between two processes.."))).Read(random)
	return pattern{random, size}
}

// body is what follows the number of message n.
func (p pattern) body(n uint64) []byte {
	return p.random[n%stripes:][headSize:p.size]
}

// fill makes dst message n. Numbers count from 1: memory that is all zero is no
// message yet.
func (p pattern) fill(dst []byte, n uint64) {
	binary.NativeEndian.PutUint64(dst, n)
	copy(dst[headSize:], p.body(n))
}

// number is what a message says that it is.
func (p pattern) number(msg []byte) uint64 { return binary.NativeEndian.Uint64(msg) }

// whole says whether msg is what its number promises, in every byte.
func (p pattern) whole(msg []byte) bool {
	return bytes.Equal(msg[headSize:], p.body(p.number(msg)))
}

// is says whether msg is message n.
func (p pattern) is(msg []byte, n uint64) bool { return p.number(msg) == n && p.whole(msg) }
