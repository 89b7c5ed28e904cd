package control

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/fault"
	"mapfs/internal/quote"
	"mapfs/mapping"
)

// runFault does "fault op=... path=...", whose answer is the fault's number, and
// "fault remove=N".
func (t *Tree) runFault(_ *ctlHandle, c *command) (string, error) {
	if _, given := c.args["remove"]; given {
		return t.removeFault(c)
	}
	if err := c.require("op", "path"); err != nil {
		return "", err
	}
	r := fault.Rule{Op: fault.Op(c.args["op"]), Path: c.args["path"]}
	for _, parse := range []func(*fault.Rule) error{c.whichFault, c.whatFault} {
		if err := parse(&r); err != nil {
			return "", err
		}
	}
	if then := r.Action.Then; then != "" && then != fault.Keep && t.s.Files().Mode() != mapping.Staged {
		return "", invalid("fault: then=%s needs -o mode=staged: otherwise the kernel has the pages, and writes them", then)
	}
	if r.Action.PowerCut != "" && t.s.History() == nil {
		return "", invalid("fault: powercut=%s needs -o history: else nobody knows what is lost", r.Action.PowerCut)
	}
	number, err := t.s.Faults().Add(r)
	if err != nil {
		return "", invalid("fault: %v", err)
	}
	return strconv.Itoa(number), nil
}

func (t *Tree) removeFault(c *command) (string, error) {
	if len(c.keys) > 1 {
		return "", invalid("fault: remove= stands alone")
	}
	number, err := strconv.Atoi(c.args["remove"])
	if err != nil {
		return "", invalid("fault: remove=%s is no number of a fault", abbreviate(c.args["remove"]))
	}
	if !t.s.Faults().Remove(number) {
		return "", &refusal{syscall.ENOENT, fmt.Sprintf("fault: there is no fault %d; .mapfs/faults lists them", number)}
	}
	return "ok", nil
}

// whichFault parses which of the operations that suit are hit.
func (c *command) whichFault(r *fault.Rule) (err error) {
	for _, key := range []string{"nth", "count"} {
		text, given := c.args[key]
		if !given {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || n == 0 {
			return invalid("fault: %s=%s is no number of at least 1", key, abbreviate(text))
		}
		if key == "nth" {
			r.Nth, r.Count = n, 1 // the third means that one, unless count says more
		} else {
			r.Count = n
		}
	}
	chance, given := c.args["probability"]
	if given {
		if r.Probability, err = strconv.ParseFloat(chance, 64); err != nil || !(r.Probability > 0 && r.Probability <= 1) {
			return invalid("fault: probability=%s is no number over 0 and up to 1", abbreviate(chance))
		}
	}
	if text, seeded := c.args["seed"]; seeded {
		if !given {
			return invalid("fault: seed= is for probability=, which is not given")
		}
		if r.Seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			return invalid("fault: seed=%s is no number", abbreviate(text))
		}
	}
	return nil
}

// whatFault parses what becomes of an operation that is hit.
func (c *command) whatFault(r *fault.Rule) error {
	a := &r.Action
	if name, given := c.args["errno"]; given {
		if a.Errno = errnoNamed(name); a.Errno == 0 {
			return invalid("fault: errno=%s is no error's name, like EIO", abbreviate(name))
		}
	}
	a.PowerCut = fault.When(c.args["powercut"])
	if text, given := c.args["short"]; given {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return invalid("fault: short=%s is no number of bytes", abbreviate(text))
		}
		a.Short, a.IsShort = int(n), true
	}
	if text, given := c.args["delay"]; given {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 || d > maxDelay {
			return invalid("fault: delay=%s is no duration up to %v, like 50ms", abbreviate(text), maxDelay)
		}
		a.Delay = d
	}
	if then, given := c.args["then"]; given {
		if a.Then = fault.Then(then); then == "" {
			return invalid("fault: then= is empty; it takes clean, keep, revert")
		}
	}
	return nil
}

// maxDelay is the longest delay: one that nobody waits for any more holds up the unmount.
const maxDelay = time.Minute

// errnoNamed returns the error with a name of errno(3), or 0.
func errnoNamed(name string) syscall.Errno {
	const last = 133 // EHWPOISON
	for e := syscall.Errno(1); e <= last; e++ {
		if unix.ErrnoName(e) == name {
			return e
		}
	}
	return 0
}

// writeFaults makes the text of the file faults: what set each fault, and its hits.
func (t *Tree) writeFaults(b *strings.Builder, _ *node, _ *fuse.Header) error {
	for _, f := range t.s.Faults().List() {
		fmt.Fprintf(b, "%d op=%s path=%s nth=%d", f.Number, f.Op, quote.Path(f.Path), f.Nth)
		if f.Count > 0 {
			fmt.Fprintf(b, " count=%d", f.Count)
		}
		if f.Probability > 0 {
			fmt.Fprintf(b, " probability=%v seed=%d", f.Probability, f.Seed)
		}
		if f.Action.Errno != 0 {
			fmt.Fprintf(b, " errno=%s", unix.ErrnoName(f.Action.Errno))
		}
		if f.Action.IsShort {
			fmt.Fprintf(b, " short=%d", f.Action.Short)
		}
		if f.Action.Delay > 0 {
			fmt.Fprintf(b, " delay=%v", f.Action.Delay)
		}
		if f.Action.PowerCut != "" {
			fmt.Fprintf(b, " powercut=%s", f.Action.PowerCut)
		}
		if f.Action.Then != "" {
			fmt.Fprintf(b, " then=%s", f.Action.Then)
		}
		fmt.Fprintf(b, " hits=%d\n", f.Hits)
	}
	return nil
}
