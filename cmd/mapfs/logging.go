//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"runtime/debug"
	"strings"
	"sync"
)

// daemonLog is where the serving process says what happens.
type daemonLog struct {
	*slog.Logger
	toStderr bool // what goes there need not be said twice
	file     *os.File
}

// openLog opens the log: file if there is one, else stderr in the foreground
// and the system's log in the background. Without a system log, as in most
// containers, the background is silent.
func openLog(file string, foreground bool, level slog.Level, stderr io.Writer) (*daemonLog, error) {
	options := &slog.HandlerOptions{Level: level}
	if file != "" {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
		if err != nil {
			return nil, fmt.Errorf("log file: %w", err)
		}
		// The daemon's stderr is /dev/null: a crash would leave no trace.
		if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
			f.Close()
			return nil, fmt.Errorf("log file: %w", err)
		}
		return &daemonLog{Logger: slog.New(slog.NewTextHandler(f, options)), file: f}, nil
	}
	if foreground {
		return &daemonLog{Logger: slog.New(slog.NewTextHandler(stderr, options)), toStderr: true}, nil
	}
	system, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "mapfs")
	if err != nil {
		return &daemonLog{Logger: slog.New(slog.DiscardHandler)}, nil
	}
	return &daemonLog{Logger: slog.New(newSyslogHandler(system, level))}, nil
}

func (l *daemonLog) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// syslogWriter is the part of syslog.Writer that a handler needs.
type syslogWriter interface {
	Debug(message string) error
	Info(message string) error
	Warning(message string) error
	Err(message string) error
}

// syslogHandler is a slog.Handler whose records go to syslog(3) with their
// level as the severity, written as slog.TextHandler does but without what
// syslog adds by itself.
type syslogHandler struct {
	sink *syslogSink
	text slog.Handler // writes to sink.line
}

// syslogSink is shared by a handler and those derived from it.
type syslogSink struct {
	to syslogWriter

	mu   sync.Mutex
	line bytes.Buffer
}

func newSyslogHandler(to syslogWriter, level slog.Level) *syslogHandler {
	sink := &syslogSink{to: to}
	text := slog.NewTextHandler(&sink.line, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
				return slog.Attr{}
			}
			return a
		},
	})
	return &syslogHandler{sink: sink, text: text}
}

func (h *syslogHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.text.Enabled(ctx, level)
}

func (h *syslogHandler) Handle(ctx context.Context, record slog.Record) error {
	h.sink.mu.Lock()
	defer h.sink.mu.Unlock()
	h.sink.line.Reset()
	if err := h.text.Handle(ctx, record); err != nil {
		return err
	}
	line := strings.TrimSuffix(h.sink.line.String(), "\n")
	switch {
	case record.Level >= slog.LevelError:
		return h.sink.to.Err(line)
	case record.Level >= slog.LevelWarn:
		return h.sink.to.Warning(line)
	case record.Level >= slog.LevelInfo:
		return h.sink.to.Info(line)
	default:
		return h.sink.to.Debug(line)
	}
}

func (h *syslogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &syslogHandler{sink: h.sink, text: h.text.WithAttrs(attrs)}
}

func (h *syslogHandler) WithGroup(name string) slog.Handler {
	return &syslogHandler{sink: h.sink, text: h.text.WithGroup(name)}
}
