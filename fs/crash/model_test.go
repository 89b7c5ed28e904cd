package crash_test

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"mapfs/fs/crash"
	"mapfs/fs/crash/oracle"
)

// testPage is small, so that a few bytes make many pages.
const testPage = 4

// apply does to a tree what a state says.
func apply(t *testing.T, w *oracle.World, state *crash.State) {
	t.Helper()
	for e, inode := range state.Names {
		if inode == 0 {
			delete(w.Dirs[e.Dir], e.Name)
		} else {
			w.Dirs[e.Dir][e.Name] = inode
		}
	}
	for a, value := range state.Attrs {
		w.Attrs[a] = string(value)
	}
	for inode, steps := range state.Files {
		for _, step := range steps {
			f := w.Files[inode]
			switch {
			case step.Resize && (!step.Grow || step.Off > int64(len(f))):
				w.Files[inode] = oracle.Resized(f, step.Off)
			case step.Resize:
			case step.IsZero():
				for at := step.Off; at < min(step.Off+step.Length, int64(len(f))); at++ {
					f[at] = 0
				}
			default:
				p := make([]byte, step.Length)
				if err := step.Read(p, 0); err != nil {
					t.Fatal(err)
				}
				f = oracle.Resized(f, max(step.Off+step.Length, int64(len(f))))
				copy(f[step.Off:], p)
				w.Files[inode] = f
			}
		}
	}
}

// play runs random operations and syncs, and compares with the slow model.
func play(t *testing.T, model crash.Model, seed uint64, steps int) {
	p := oracle.NewPlayer(seed, 1)
	l, err := crash.New(crash.Options{Model: model, PageSize: testPage, MaxMemory: 1, Dir: os.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := &oracle.Model{Name: model.Name(), Page: testPage}
	for range steps {
		switch p.Random.IntN(8) {
		case 0:
			y := crash.Sync{Inode: oracle.Pick(p.Random, p.Dirs()), DataOnly: p.Random.IntN(4) == 0}
			if _, inode := p.Entry(); inode != 0 && p.Random.IntN(2) == 0 {
				y.Inode = inode
			}
			y.IsDir = p.Now.Dirs[y.Inode] != nil
			l.Sync(y)
			m.Sync(y)
		case 1:
			if _, inode := p.Entry(); inode != 0 {
				l.Closed(inode)
				m.Closed(inode)
			}
		default:
			op, data, ok := p.Step()
			if !ok {
				continue
			}
			m.Add(op, data)
			if op.Bytes, err = l.Keep(data); err != nil {
				t.Fatal(err)
			}
			l.Add(&op)
		}
	}
	compare(t, l, m, p)
}

func compare(t *testing.T, l *crash.Log, m *oracle.Model, p *oracle.Player) {
	var got []uint64
	l.Pending(func(op *crash.Op, _ []string) bool {
		got = append(got, op.Number)
		return true
	})
	want := m.Pending()
	if !slices.Equal(got, want) {
		t.Fatalf("pending %v, want %v\n%s", got, want, m)
	}
	sets := [][]uint64{nil, want}
	for range 12 {
		var set []uint64
		for _, n := range want {
			if p.Random.IntN(3) > 0 {
				set = append(set, n)
			}
		}
		sets = append(sets, set)
	}
	for at := range want {
		sets = append(sets, want[:at])
	}
	for _, set := range sets {
		keep := make(map[uint64]bool)
		for _, n := range set {
			keep[n] = true
		}
		state, err := l.Cut(crash.Choice{Keep: set})
		if legal := m.Legal(keep); legal != (err == nil) {
			t.Fatalf("keep %v: legal %v, but %v\n%s", set, legal, err, m)
		}
		if err != nil {
			continue
		}
		left := m.Synced()
		apply(t, left, state)
		if got, want := left.String(), m.Left(keep).String(); got != want {
			t.Fatalf("keep %v leaves\n%s\nwant\n%s\noperations\n%s", set, got, want, m)
		}
		if state.Kept != len(set) || len(state.Lost) != len(want)-len(set) {
			t.Fatalf("keep %v: %d kept, %d lost of %d", set, state.Kept, len(state.Lost), len(want))
		}
	}
	for seed := range uint64(10) {
		state, err := l.Cut(crash.Choice{Random: true, Seed: seed, Torn: 2 * int64(seed%2)})
		if err != nil {
			t.Fatal(err)
		}
		left := m.Synced()
		apply(t, left, state)
		if left.IsRound() {
			t.Fatalf("seed %d: directories go round\n%s", seed, m)
		}
	}
	sure, stored := m.Left(nil), m.Synced()
	for inode, f := range sure.Files {
		p := make([]byte, 64)
		base := stored.Files[inode]
		n, err := l.ReadDurable(inode, p, 0, int64(len(base)), func(p []byte, off int64) (int, error) {
			return copy(p, base[min(off, int64(len(base))):]), nil
		})
		if err != nil || !bytes.Equal(p[:n], f) || l.DurableSize(inode, int64(len(base))) != int64(len(f)) {
			t.Fatalf("inode %d: %q (size %d), %v; want %q\n%s", inode, p[:n], l.DurableSize(inode, int64(len(base))), err, f, m)
		}
	}
}

func TestModels(t *testing.T) {
	for _, model := range crash.Models() {
		t.Run(model.Name(), func(t *testing.T) {
			for seed := range uint64(1200) {
				play(t, model, seed, 4+int(seed%60))
			}
		})
	}
}

func FuzzModels(f *testing.F) {
	f.Add(uint64(1), 40)
	f.Fuzz(func(t *testing.T, seed uint64, steps int) {
		for _, model := range crash.Models() {
			play(t, model, seed, min(max(steps, 0), 120))
		}
	})
}

// TestModelsCompared plays the same on both models: ext4 promises no less than POSIX does, and
// what it allows POSIX allows too.
func TestModelsCompared(t *testing.T) {
	for seed := range uint64(800) {
		p := oracle.NewPlayer(seed, 1)
		var logs []*crash.Log
		for _, model := range []crash.Model{crash.Posix{}, crash.Ext4{}} {
			l, err := crash.New(crash.Options{Model: model, PageSize: testPage, MaxMemory: 1, Dir: os.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			logs = append(logs, l)
		}
		for range 4 + seed%40 {
			if p.Random.IntN(6) == 0 {
				y := crash.Sync{Inode: oracle.Pick(p.Random, p.Dirs()), DataOnly: p.Random.IntN(2) == 0}
				if _, inode := p.Entry(); inode != 0 && p.Now.Dirs[inode] == nil {
					y.Inode = inode
				}
				y.IsDir = p.Now.Dirs[y.Inode] != nil
				for _, l := range logs {
					l.Sync(y)
				}
				continue
			}
			op, data, ok := p.Step()
			if !ok {
				continue
			}
			for _, l := range logs {
				op := op
				var err error
				if op.Bytes, err = l.Keep(data); err != nil {
					t.Fatal(err)
				}
				l.Add(&op)
			}
		}
		pending := func(l *crash.Log) (numbers []uint64) {
			l.Pending(func(op *crash.Op, _ []string) bool { numbers = append(numbers, op.Number); return true })
			return numbers
		}
		posix, ext4 := pending(logs[0]), pending(logs[1])
		for _, n := range ext4 {
			if !slices.Contains(posix, n) {
				t.Fatalf("seed %d: operation %d is pending by ext4 and durable by posix", seed, n)
			}
		}
		for range 10 {
			var lost []uint64
			keep := slices.DeleteFunc(slices.Clone(ext4), func(n uint64) bool {
				drop := p.Random.IntN(3) == 0
				if drop {
					lost = append(lost, n)
				}
				return drop
			})
			if _, err := logs[1].Cut(crash.Choice{Keep: keep}); err != nil {
				continue
			}
			also := slices.DeleteFunc(slices.Clone(posix), func(n uint64) bool { return slices.Contains(lost, n) })
			if _, err := logs[0].Cut(crash.Choice{Keep: also}); err != nil {
				t.Fatalf("seed %d: ext4 allows %v, and posix not %v: %v", seed, keep, also, err)
			}
		}
	}
}
