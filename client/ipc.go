package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A message has room for its number, and rings of the largest ones still fit
// into the memory of a small machine.
const (
	SmallestMessage = headSize
	LargestMessage  = 64 << 20
)

// IPC says what [RunIPC] moves, and how.
type IPC struct {
	Size  int64 // bytes of a message, SmallestMessage to LargestMessage
	Count int64 // messages, at least 1
	// Dir is where the file of the medium mapping lives for as long as it takes
	// the other process to open it.
	Dir string
	// Unsynchronised leaves the semaphores out of shared memory.
	Unsynchronised bool
	// Peer makes the command that is the other process: one that calls
	// [RunPeer] with the argument, its stdin and its stdout.
	Peer func(argument string) *exec.Cmd
}

// IPCResult is what became of the messages.
type IPCResult struct {
	Via    string
	Keeper string // what keeps reader and writer apart: futex, kernel or nothing
	// RoundTrip is the median time of a message and its answer. It is 0 without
	// synchronisation, which knows no answers.
	RoundTrip time.Duration
	// BytesPerSecond is the speed of all messages in one direction, with the
	// time to fill them and to check every byte.
	BytesPerSecond float64

	Sent  int64 // messages, in both directions
	Whole int64 // of them arrived as they were sent
	Torn  int64 // times that a receiver saw no whole message where one should be
	Lost  int64 // messages that never arrived whole
}

// peerConfig is the argument of the other process.
type peerConfig struct {
	Via            string
	Size, Count    int64
	Unsynchronised bool
	Name           string `json:",omitempty"` // of a file
	ID             int    `json:",omitempty"` // of a System V segment
	Piece          int64  `json:",omitempty"` // of a message in a queue
}

// ErrUnavailable is in the errors of media that cannot be made here: the system
// forbids them, has no room for them or does not know them.
var ErrUnavailable = errors.New("not available")

// peerReady is the first line of the other process; a tally is the second.
const peerReady = "ready"

// RunIPC moves messages between this process and another one, which it starts,
// and checks every byte of each at the receiver. When it returns, the other
// process has ended and nothing of the medium is left, however it went. If ctx
// is cancelled, its cause is the error.
func RunIPC(ctx context.Context, via string, ipc IPC) (result IPCResult, err error) {
	medium, err := findMedium(via)
	if err != nil {
		return IPCResult{}, err
	}
	offer, err := medium.open(peerConfig{
		Via: via, Size: ipc.Size, Count: ipc.Count, Unsynchronised: ipc.Unsynchronised,
	}, ipc.Dir)
	if err != nil {
		return IPCResult{}, fmt.Errorf("%s is %w: %w", via, ErrUnavailable, err)
	}
	defer func() { err = first(err, offer.discard()) }()
	argument, err := json.Marshal(offer.config)
	if err != nil {
		return IPCResult{}, err
	}
	peer, err := startPeer(ctx, ipc.Peer(string(argument)), offer.files)
	if err != nil {
		return IPCResult{}, fmt.Errorf("%s: start the other process: %w", via, err)
	}
	defer peer.end()
	// Only the peer may hold its ends: a pipe ends when the last one is closed.
	offer.closeFiles()
	result = IPCResult{Via: via, Keeper: medium.keeper}
	if err := result.exchange(peer, offer, ipc); err != nil {
		return IPCResult{}, fmt.Errorf("%s: %w", via, peer.reason(ctx, err))
	}
	return result, nil
}

// exchange is this process's part.
func (r *IPCResult) exchange(peer *peer, offer *offer, ipc IPC) error {
	var ready string
	if err := peer.answer.Decode(&ready); err != nil || ready != peerReady {
		return fmt.Errorf("the other process is not ready: %w", err)
	}
	if err := offer.leave(); err != nil {
		return err
	}
	var here measure
	p := newPattern(ipc.Size)
	err := offer.shared.guard(func() (err error) {
		if !ipc.Unsynchronised {
			here, err = offer.lead(peer.ctx, p, ipc.Count)
			return err
		}
		start := time.Now()
		err = offer.spill(peer.ctx, p, ipc.Count)
		here.stream = time.Since(start)
		return err
	})
	if err != nil {
		return err
	}
	var there tally
	if err := peer.answer.Decode(&there); err != nil {
		return fmt.Errorf("the other process does not tell what it got: %w", err)
	}
	r.RoundTrip = here.roundTrip
	r.BytesPerSecond = float64(ipc.Size*ipc.Count) / max(here.stream.Seconds(), 1e-9)
	r.Sent = 3*ipc.Count + 1 // there and back, then there, and the one answer
	if ipc.Unsynchronised {
		r.Sent = ipc.Count
		if offer.shared != nil {
			r.Keeper = "nothing"
		}
	}
	r.Whole, r.Torn = here.Whole+there.Whole, here.Torn+there.Torn
	r.Lost = r.Sent - r.Whole
	return nil
}

// peer is the other process, seen from here.
type peer struct {
	// ctx ends with the process, and the process with ctx.
	ctx    context.Context
	cancel context.CancelCauseFunc
	answer *json.Decoder
	stdout *os.File
	stdin  io.Closer
	said   strings.Builder // to stderr; read it after gone
	gone   chan struct{}   // closed when the process has ended
}

// startPeer starts the command with some more descriptors.
func startPeer(ctx context.Context, cmd *exec.Cmd, files []*os.File) (*peer, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	p := &peer{stdout: reader, answer: json.NewDecoder(reader), gone: make(chan struct{})}
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = files, writer, &p.said
	// Its stdin ends when this process does, and it then ends too.
	p.stdin, err = cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		reader.Close()
		return nil, err
	}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	stop := context.AfterFunc(p.ctx, func() { _ = cmd.Process.Kill() })
	go func() {
		defer close(p.gone)
		defer stop()
		err := cmd.Wait()
		p.cancel(fmt.Errorf("the other process ended: %v", err))
	}()
	return p, nil
}

// end makes sure that the process has ended.
func (p *peer) end() {
	p.stdin.Close()
	select {
	case <-p.gone:
	case <-time.After(time.Second):
		p.cancel(errors.New("the other process did not end"))
		<-p.gone
	}
	p.stdout.Close()
}

// reason replaces an error that only says that the other process is gone by the
// cause of the whole end, or by what that process said. ctx is the one of RunIPC.
func (p *peer) reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, ended := range []error{io.EOF, io.ErrUnexpectedEOF, unix.EPIPE, unix.ECONNRESET} {
		if errors.Is(err, ended) {
			select {
			case <-p.gone: // at once, or it is no end
			case <-time.After(time.Second):
			}
		}
	}
	select {
	case <-p.gone:
	default:
		return err
	}
	if said := strings.TrimSpace(p.said.String()); said != "" {
		return errors.New(said)
	}
	return context.Cause(p.ctx)
}
