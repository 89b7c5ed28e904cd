package explore

import (
	"fmt"
	"os"
	"path/filepath"
)

// Build makes the state of a finding in a directory that is not there yet. Of the options
// the recording, the model and the directory count.
func Build(o *Options, f *Finding, dir string) error {
	p, err := at(o, f.Event, nil)
	if err != nil {
		return err
	}
	defer p.close()
	if p.reached != f.Event {
		return fmt.Errorf("the recording has %d events, and the finding comes after %d", p.reached, f.Event)
	}
	t, err := treeOf(p, f.Choice)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o777); err != nil {
		return err
	}
	return buildAt(t, dir)
}
