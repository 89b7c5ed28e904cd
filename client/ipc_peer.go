package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
)

// RunPeer is the other process of [RunIPC]: it attaches to the medium that the
// argument describes, and tells on stdout what it got. It ends when stdin does,
// which is when the first process has ended.
func RunPeer(ctx context.Context, argument string, stdin io.Reader, stdout io.Writer) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		cancel(fmt.Errorf("the first process has ended"))
	}()
	var cfg peerConfig
	if err := json.Unmarshal([]byte(argument), &cfg); err != nil {
		return fmt.Errorf("the argument of the other process: %w", err)
	}
	medium, err := findMedium(cfg.Via)
	if err != nil {
		return err
	}
	link, err := medium.attach(cfg)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := link.close(); err == nil {
			err = closeErr
		}
	}()
	answer := json.NewEncoder(stdout)
	if err := answer.Encode(peerReady); err != nil {
		return err
	}
	p := newPattern(cfg.Size)
	var got tally
	err = link.shared.guard(func() (err error) {
		if cfg.Unsynchronised {
			got, err = link.mop(ctx, p, cfg.Count)
		} else {
			got, err = link.follow(ctx, p, cfg.Count)
		}
		return err
	})
	if err != nil {
		return err
	}
	return answer.Encode(got)
}
