package picture

import (
	"testing"
)

func TestParseRun(t *testing.T) {
	for flags := range Flags(1 << len(flagLetters)) {
		got, ok := parseRun("5-7 " + flags.String())
		if want := (Run{5, 7, flags}); got != want || !ok {
			t.Errorf("flags %s: got %+v, %t", flags, got, ok)
		}
	}
	for _, bad := range []string{"", "5", "5-", "-7 R", "7-5 R", "5-7", "5-7 ", "5-7 X", "5-7 R ", "5 - 7 R", "a-b R",
		"5-9999999999999999999 R", "5-4611686018427387904 R"} {
		if got, ok := parseRun(bad); ok {
			t.Errorf("%q: got %+v", bad, got)
		}
	}
}
