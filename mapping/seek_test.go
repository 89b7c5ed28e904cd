package mapping

import (
	"syscall"
	"testing"

	"mapfs/internal/filetest"
)

// wantSeeks checks that data and holes agree with what the file holds: what is no data is
// zero, and neither answer leaves the file or goes back.
func wantSeeks(t *testing.T, f *File, model []byte) {
	t.Helper()
	size := int64(len(model))
	for at := int64(0); at < size; {
		data, err := f.SeekData(at)
		if errnoIn(err) == syscall.ENXIO {
			data = size
		} else if err != nil || data < at || data >= size {
			t.Fatalf("SeekData from %d of %d: %d, %v", at, size, data, err)
		}
		if filetest.SameBytes(model[at:data], make([]byte, data-at)) != nil {
			t.Fatalf("the bytes from %d to %d are not zero, and no data", at, data)
		}
		if data == size {
			break
		}
		if hole, err := f.SeekHole(at); data > at && (err != nil || hole != at) {
			t.Fatalf("SeekHole from %d, where no data is until %d: %d, %v", at, data, hole, err)
		}
		hole, err := f.SeekHole(data)
		if err != nil || hole <= data || hole > size {
			t.Fatalf("SeekHole from the data at %d of %d: %d, %v", data, size, hole, err)
		}
		at = hole
	}
	for _, seek := range []func(int64) (int64, error){f.SeekData, f.SeekHole} {
		if _, err := seek(size); errnoIn(err) != syscall.ENXIO {
			t.Fatalf("a seek from the end: %v, want ENXIO", err)
		}
	}
}
