package control

import (
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
