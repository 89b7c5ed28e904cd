package manual

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"mapfs/fs/crash/explore"
	"mapfs/integration/harness"
)

// holdCrashManual holds mapfs-crash(1) to the program: its subcommands, their flags, and
// the keys of a report.
func holdCrashManual(t *testing.T, help string) {
	page := readManual(t, "mapfs-crash.1")
	var subcommands []string
	for _, line := range helpBlock(t, help, "Available Commands:") {
		subcommands = append(subcommands, strings.Fields(line)[0])
	}
	sameNames(t, "commands of crash", page.first(t, "crash"), subcommands)
	flags := helpFlags(t, help)
	sameNames(t, "flags of crash", page.all("flags crash"), flags)
	for _, sub := range subcommands {
		for _, flag := range helpFlags(t, harness.Run(t, harness.Binary, "crash", sub, "--help")) {
			if !slices.Contains(flags, flag) {
				t.Errorf("crash %s has the flag %s, and crash does not", sub, flag)
			}
		}
	}
	for list, of := range map[string]any{
		"report": explore.Report{}, "finding": explore.Finding{}, "operation": explore.Operation{}, "sync": explore.Sync{},
	} {
		var keys []string
		for _, field := range reflect.VisibleFields(reflect.TypeOf(of)) {
			if key, _, _ := strings.Cut(field.Tag.Get("json"), ","); key != "" {
				keys = append(keys, key)
			}
		}
		sameNames(t, "keys of a "+list, page.all(list), keys)
	}
}
