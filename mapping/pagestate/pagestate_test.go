package pagestate

import "testing"

func TestPageFlagsString(t *testing.T) {
	for flags, want := range map[Flags]string{
		0: "-", Resident: "R", Resident | Dirty | Unsynced | Tail: "RDUT",
		Writeback | Copied: "WC",
	} {
		if got := flags.String(); got != want {
			t.Errorf("%d is %q, want %q", flags, got, want)
		}
	}
}
