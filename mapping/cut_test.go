package mapping

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"mapfs/internal/filetest"
)

// TestReadsBesideCuts sends a file that somebody truncates again and again behind the
// engine. A page that vanishes on its way to the outlet is an error that nobody can take
// back; after one at the most the engine is warned, and reads in a way in which that
// cannot happen.
func TestReadsBesideCuts(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		for _, mode := range []Mode{Shared, Private, Staged} {
			t.Run(mode.String(), func(t *testing.T) {
				path := filepath.Join(dir, mode.String())
				content := filetest.Pattern(64<<10, 1)
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
				f := openTest(t, newTestTable(t, Config{Mode: mode}, nil), path)
				out := newCollector(t)
				done := make(chan struct{})
				var cutter sync.WaitGroup
				cutter.Go(func() {
					for {
						select {
						case <-done:
							return
						default:
						}
						if os.Truncate(path, 100) != nil || os.WriteFile(path, content, 0o600) != nil {
							return
						}
					}
				})
				failed, short := 0, 0
				for deadline := time.Now().Add(150 * time.Millisecond); time.Now().Before(deadline); {
					if err := out.file.Truncate(0); err != nil {
						t.Fatal(err)
					}
					if _, err := out.file.Seek(0, 0); err != nil {
						t.Fatal(err)
					}
					sent, err := f.ReadTo(out, 0, len(content), false)
					arrived, seekErr := out.file.Seek(0, 1)
					if seekErr != nil {
						t.Fatal(seekErr)
					}
					switch {
					case errnoIn(err) == syscall.EFAULT || arrived < int64(len(headerOfTests)+out.begun):
						// The device of FUSE has no half answers: this is EFAULT there.
						failed++
					case !sent || err != nil:
						t.Fatalf("ReadTo: %v, %v", sent, err)
					case out.begun < len(content):
						short++
					}
				}
				close(done)
				cutter.Wait()
				t.Logf("%d failed, %d short", failed, short)
				if failed > 1 {
					t.Errorf("%d reads failed", failed)
				}
				// What copies shows zeros where the file has nothing any more.
				if short == 0 && mode == Shared {
					t.Error("no read met a file that was cut: this shows nothing")
				}
			})
		}
	})
}
