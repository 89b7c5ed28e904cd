package control

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

func init() {
	harness.AddVerb("wake", clientWake)
}

// TestControlPoll has pollers of events sleep and be woken.
func TestControlPoll(t *testing.T) {
	m := harness.Mount(t, harness.TempDir(t))
	harness.Run(t, "touch", m.Path("f"))

	// Whoever polls a plain file must not spoil it: the kernel asks no more about
	// any file of the mount once one request is refused.
	plain := harness.StartClient(t, "watch", m.Path("f"), "r")
	plain.Hear("open")
	if got := plain.Ask("poll 20000"); got != "true" {
		t.Errorf("poll of a plain file: %s", got)
	}
	plain.Wait()

	for _, call := range []string{"poll", "select"} {
		t.Run(call, func(t *testing.T) {
			w := harness.StartClient(t, "watch", events(m), "r|nonblock")
			w.Hear("open")
			if got := w.Ask("%s 0", call); got != "true" {
				t.Errorf("with something to read: %s", got)
			}
			// The kernel tells of a close when it likes, so there can be more to read
			// than was caused here. In the end there is not.
			for drainWatch(t, w); w.Ask("%s 200", call) == "true"; {
				drainWatch(t, w)
			}
			w.Say("%s 20000", call)
			touched(t, m)
			if got := w.Line(); got != "true" {
				t.Errorf("woken by an event: %s", got)
			}
			if got := w.Ask("read 100000"); !strings.Contains(got, "touched") {
				t.Errorf("read after that: %s", got)
			}
			w.Wait()
		})
	}
	for _, how := range []string{"poll", "epoll"} {
		t.Run("every_time_by_"+how, func(t *testing.T) {
			out := harness.Client(t, "wake", events(m), m.Path("wake-"+how), "1000", how)
			if out != "1000 times\n" {
				t.Errorf("got %q", out)
			}
		})
	}
	t.Run("follow", func(t *testing.T) {
		// Go's runtime waits by epoll(7), and is told of edges alone.
		follower := harness.StartClient(t, "follow", events(m))
		for range 20 {
			until(t, follower, touched(t, m))
		}
		// Also when events come while it reads.
		harness.Run(t, "sh", "-c", `for i in $(seq 200); do echo x >"$1/burst"; done`, "sh", m.Dir)
		until(t, follower, touched(t, m))
		follower.Kill()
	})
}

// wakeLimit is how long a poller sleeps until the event is called lost, in
// milliseconds.
const wakeLimit = 20_000

// clientWake is `client wake EVENTS FILE TIMES poll|epoll`: a poller of EVENTS reads
// all there is and sleeps; a write to FILE, one event, comes at about the time when
// it falls asleep. Each must wake it.
func clientWake(args []string) error {
	events, err := unix.Open(args[0], unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	file, err := unix.Open(args[1], unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	sleep := pollSleep(events)
	if args[3] == "epoll" {
		if sleep, err = epollSleep(events); err != nil {
			return err
		}
	}
	// What came before does not count. It is read after the first look of epoll, as
	// programs do: the look finds something, and no other follows until the next event.
	if _, err := readAvailable(events); err != nil {
		return err
	}
	times, mark := int(harness.Atoi64(args[2])), " write "+filepath.Base(args[1])+" "
	written := make(chan error, 1)
	for told, round := 0, 1; round <= times; round++ {
		go func() {
			for range rand.IntN(100) {
				runtime.Gosched()
			}
			_, err := unix.Pwrite(file, []byte("x"), 0)
			written <- err
		}()
		for told < round {
			awake, err := sleep()
			if err != nil {
				return err
			}
			if !awake {
				return fmt.Errorf("event %d did not wake the poller", round)
			}
			text, err := readAvailable(events)
			if err != nil {
				return err
			}
			told += strings.Count(text, mark)
		}
		if err := <-written; err != nil {
			return err
		}
	}
	fmt.Println(times, "times")
	return nil
}

// pollSleep is a sleep in poll(2), which reports whether it was woken in time.
func pollSleep(fd int) func() (bool, error) {
	return func() (bool, error) {
		for {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(fds, wakeLimit)
			if err != unix.EINTR {
				return n == 1 && fds[0].Revents == unix.POLLIN, err
			}
		}
	}
}

// epollSleep is a sleep in epoll(7), woken by edges.
func epollSleep(fd int) (func() (bool, error), error) {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	err = unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET})
	return func() (bool, error) {
		for {
			n, err := unix.EpollWait(set, make([]unix.EpollEvent, 1), wakeLimit)
			if err != unix.EINTR {
				return n == 1, err
			}
		}
	}, err
}
