package control

import (
	"strings"
)

// verb is a row of the table of commands.
type verb struct {
	whose owner
	name  string
	// keys are the arguments it takes; "" is a word that stands alone.
	keys []string
	// run does what the command says, and returns the answer.
	run func(t *Tree, h *ctlHandle, c *command) (string, error)
}

// owner says whose ctl files take a command.
type owner string

const (
	ofMount   owner = "the mount's"
	ofFile    owner = "a file's"
	ofMapping owner = "a mapping's"
)

// findVerb returns the row of a command, and refuses arguments that it does not take.
func findVerb(table []verb, whose owner, c *command) (verb, error) {
	var names []string
	for _, v := range table {
		if v.whose != whose {
			continue
		}
		if v.name == c.verb {
			return v, c.only(v.keys...)
		}
		names = append(names, v.name)
	}
	return verb{}, invalid("unknown command %s; %s are %s", abbreviate(c.verb), whose, strings.Join(names, ", "))
}
