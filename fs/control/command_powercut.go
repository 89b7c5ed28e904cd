package control

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mapfs/fs"
	"mapfs/fs/crash"
	"mapfs/fs/wire"
	"mapfs/mapping/paging"
)

// runPowercut does "powercut keep=... seed=... torn=...". Its answer says what was lost.
func (t *Tree) runPowercut(_ *ctlHandle, c *command) (string, error) {
	if t.s.History() == nil {
		return "", &refusal{syscall.EOPNOTSUPP, "powercut: the mount has no history of what is durable; mount with -o history"}
	}
	choice, err := c.choice()
	if err != nil {
		return "", err
	}
	state, err := t.s.PowerCut(c.w, choice)
	var illegal fs.IllegalChoice
	switch {
	case errors.As(err, &illegal):
		return "", invalid("powercut: %v", illegal.Err)
	case state == nil:
		return "", &refusal{wire.ErrnoOf(err), "powercut: " + plainText(err)}
	}
	summary := t.summary(state, &choice)
	if err != nil {
		return "", &refusal{wire.ErrnoOf(err), fmt.Sprintf("powercut: the power is off, but not all could be made as it says: %s\n%s",
			strings.ReplaceAll(err.Error(), "\n", "; "), summary)}
	}
	return summary, nil
}

// choice returns what the arguments say is to survive.
func (c *command) choice() (choice crash.Choice, err error) {
	keep, seed := c.args["keep"], c.args["seed"]
	switch keep {
	case "", "none":
	case "all":
		choice.All = true
	case "random":
		choice.Random, choice.Seed = true, uint64(time.Now().UnixNano())
	default:
		for text := range strings.SplitSeq(keep, ",") {
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				return choice, invalid("powercut: keep=%s is none of all, none, random, and no numbers of pending operations", abbreviate(keep))
			}
			choice.Keep = append(choice.Keep, n)
		}
	}
	if seed != "" {
		if !choice.Random {
			return choice, invalid("powercut: seed= is for keep=random")
		}
		if choice.Seed, err = strconv.ParseUint(seed, 10, 64); err != nil {
			return choice, invalid("powercut: seed=%s is no number", abbreviate(seed))
		}
	}
	if torn, given := c.args["torn"]; given && torn != "none" {
		choice.Torn, err = strconv.ParseInt(torn, 10, 64)
		if err != nil || choice.Torn < 1 || choice.Torn > paging.PageSize || paging.PageSize%choice.Torn != 0 {
			return choice, invalid("powercut: torn=%s is neither none nor a number of bytes that divides the page size, %d", abbreviate(torn), paging.PageSize)
		}
		if !choice.Random {
			return choice, invalid("powercut: torn= is for keep=random: an operation that is kept is kept whole")
		}
	}
	return choice, nil
}

// mostTold is how many lost operations a summary lists.
const mostTold = 1000

// summary says what a power cut has left and taken.
func (t *Tree) summary(state *crash.State, choice *crash.Choice) string {
	var b strings.Builder
	fmt.Fprintf(&b, "the power was cut: %d of %d pending operations lost (model %s", len(state.Lost), len(state.Lost)+state.Kept, t.s.History().Name())
	if choice.Random {
		fmt.Fprintf(&b, ", seed %d", choice.Seed)
	}
	if choice.Torn > 0 {
		fmt.Fprintf(&b, ", torn %d", choice.Torn)
	}
	b.WriteByte(')')
	for i, op := range state.Lost {
		b.WriteByte('\n')
		if i == mostTold {
			fmt.Fprintf(&b, "and %d more", len(state.Lost)-i)
			break
		}
		b.WriteString("lost ")
		writeOp(&b, op)
	}
	return b.String()
}
