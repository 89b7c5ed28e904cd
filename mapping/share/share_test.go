package share

import "testing"

// takeAll takes units one by one until the pool refuses.
func takeAll(p *Pool, user uint32) (n int64) {
	for p.Take(user, 1) {
		n++
	}
	return n
}

func TestOneUserLeavesAFifth(t *testing.T) {
	p := NewPool(1000, true)
	if got := takeAll(p, 1); got != 800 {
		t.Errorf("one user took %d of 1000 units, want 800", got)
	}
	if !p.Take(2, 100) {
		t.Error("a second user got none of the 200 that were left")
	}
	if got := takeAll(p, 1); got != 0 {
		t.Errorf("the first user got %d more", got)
	}
}

func TestEachLeavesAFifthOfWhatHeFound(t *testing.T) {
	p := NewPool(625, true)
	for round, want := range []int64{125, 25, 5, 1} {
		for again := 0; again < 3; again++ {
			takeAll(p, uint32(round))
		}
		if free := p.Limit() - p.Taken(); free != want {
			t.Fatalf("user %d left %d units, want %d", round, free, want)
		}
	}
}

func TestWhatIsGivenBackCanBeTaken(t *testing.T) {
	p := NewPool(100, true)
	n := takeAll(p, 7)
	if p.Held(7) != n || p.Taken() != n {
		t.Errorf("the pool says %d and %d, want %d", p.Held(7), p.Taken(), n)
	}
	p.Give(7, n)
	if p.Held(7) != 0 || p.Taken() != 0 || len(p.users) != 0 {
		t.Errorf("after all was given back: held %d, taken %d, users %v", p.Held(7), p.Taken(), p.users)
	}
	if again := takeAll(p, 7); again != n {
		t.Errorf("the second time %d units, want %d", again, n)
	}
}

func TestTooManyAtOnceTakesNothing(t *testing.T) {
	p := NewPool(100, true)
	if p.Take(1, 101) || p.Take(1, 90) {
		t.Error("more than a share was given")
	}
	if p.Taken() != 0 {
		t.Errorf("a refusal took %d units", p.Taken())
	}
	p.Force(1, 200)
	if p.Take(2, 1) {
		t.Error("a pool that is over its limit gave a unit")
	}
	p.Give(1, 200)
	if !p.Take(2, 1) {
		t.Error("the pool gives nothing though all was given back")
	}
}

func TestOneUserHasAllOfWhatIsNotShared(t *testing.T) {
	p := NewPool(100, false)
	if got := takeAll(p, 1); got != 100 {
		t.Errorf("%d of 100 units", got)
	}
	if p.Has(2, 1) {
		t.Error("an empty pool has a unit")
	}
}
