package display

import (
	"io"
	"testing"
)

func TestWantsColor(t *testing.T) {
	for _, test := range []struct {
		noColor, term string
		want          bool
	}{
		{"", "xterm", true}, {"1", "xterm", false}, {"", "dumb", false}, {"", "", true},
	} {
		env := map[string]string{"NO_COLOR": test.noColor, "TERM": test.term}
		if got := wantsColor(func(key string) string { return env[key] }); got != test.want {
			t.Errorf("%v: got %t", env, got)
		}
	}
	if got := Of(io.Discard); got != (Screen{Width: plainWidth}) {
		t.Errorf("no terminal: got %+v", got)
	}
}

func TestByteTexts(t *testing.T) {
	tests := []struct {
		n                   int64
		short, exact, rough string
	}{
		{0, "0", "0 bytes", "0 B"},
		{1, "1", "1 byte", "1 B"},
		{1023, "1023", "1023 bytes", "1023 B"},
		{4096, "4K", "4096 bytes", "4.0 KiB"},
		{1 << 20, "1M", "1048576 bytes (1.0 MiB)", "1.0 MiB"},
		{1<<20 + 256<<10, "1.25M", "1310720 bytes (1.2 MiB)", "1.2 MiB"},
		{1<<20 + 512<<10, "1.5M", "1572864 bytes (1.5 MiB)", "1.5 MiB"},
		{1<<20 + 64<<10, "1088K", "1114112 bytes (1.1 MiB)", "1.1 MiB"},
		{1<<20 - 1, "1048575", "1048575 bytes (1.0 MiB)", "1.0 MiB"},
		{100<<30 - 256<<10, "102399.75M", "107373920256 bytes (100.0 GiB)", "100.0 GiB"},
		{1<<63 - 1, "9223372036854775807", "9223372036854775807 bytes (8.0 EiB)", "8.0 EiB"},
	}
	for _, test := range tests {
		if short, exact, rough := ShortBytes(test.n), ExactBytes(test.n), RoughBytes(test.n); short != test.short ||
			exact != test.exact || rough != test.rough {
			t.Errorf("%d: got %q, %q, %q, want %q, %q, %q", test.n, short, exact, rough, test.short, test.exact, test.rough)
		}
	}
}

// TestLabelWidth sweeps the offsets of rows: none is wider than its column.
func TestLabelWidth(t *testing.T) {
	for shift := 15; shift <= 45; shift++ {
		size := int64(1) << shift
		for _, row := range []int64{32 << 10, 128 << 10, 256 << 10, 512 << 10} {
			for _, off := range []int64{row, size/2 + row, size - row, size - 2*row} {
				if label := ShortBytes(off); off < size && off > 0 && len(label) > LabelWidth(size) {
					t.Errorf("size 1<<%d: label %s is wider than %d", shift, label, LabelWidth(size))
				}
			}
		}
	}
}
