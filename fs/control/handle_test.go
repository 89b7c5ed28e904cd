package control

import (
	"strings"
	"syscall"
	"testing"

	"mapfs/fs/wire"
	"mapfs/mapping/share"
)

// TestTextsAreBounded: what a user keeps open of the control tree's texts is bounded,
// and a single one is always given.
func TestTextsAreBounded(t *testing.T) {
	tree := unmounted(t)
	tree.texts = share.NewPool(1000, true)
	text := func(n int) *snapshot { return &snapshot{text: string(make([]byte, n))} }
	huge := text(5000)
	if err := huge.charge(tree.texts, 1000); err != nil {
		t.Errorf("the only text: %v", err)
	}
	if err := text(1).charge(tree.texts, 1000); wire.ErrnoOf(err) != syscall.ENOMEM {
		t.Errorf("one more: %v, want ENOMEM", err)
	}
	huge.Close()
	for range 8 {
		if err := text(100).charge(tree.texts, 1000); err != nil {
			t.Error(err)
		}
	}
	if err := text(100).charge(tree.texts, 1000); wire.ErrnoOf(err) != syscall.ENOMEM {
		t.Errorf("the ninth of ten parts: %v, want ENOMEM", err)
	}
	if err := text(1).charge(tree.texts, 2000); err != nil {
		t.Errorf("another user: %v", err)
	}
}

// TestPromisesAreCharged: the text of an open file promises counts as others do, until it is
// closed.
func TestPromisesAreCharged(t *testing.T) {
	tree := new(Tree)
	tree.texts = share.NewPool(1000, true)
	open := func() (*promisesHandle, error) {
		h := &promisesHandle{t: tree, snapshot: snapshot{text: strings.Repeat("x", 600)}}
		return h, tree.charge(h, 1000)
	}
	first, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(); wire.ErrnoOf(err) != syscall.ENOMEM {
		t.Errorf("a second one: %v", err)
	}
	first.Close()
	if _, err := open(); err != nil {
		t.Errorf("after the first was closed: %v", err)
	}
}
