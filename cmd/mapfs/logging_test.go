//go:build linux

package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// fakeSyslog keeps what would go to the system's log.
type fakeSyslog []string

func (s *fakeSyslog) add(severity, message string) error {
	*s = append(*s, severity+": "+message)
	return nil
}

func (s *fakeSyslog) Debug(m string) error   { return s.add("debug", m) }
func (s *fakeSyslog) Info(m string) error    { return s.add("info", m) }
func (s *fakeSyslog) Warning(m string) error { return s.add("warning", m) }
func (s *fakeSyslog) Err(m string) error     { return s.add("err", m) }

func TestSyslogHandler(t *testing.T) {
	var got fakeSyslog
	log := slog.New(newSyslogHandler(&got, slog.LevelDebug))
	log.Debug("a")
	log.Info("b", "path", "/a b")
	log.With("n", 1).Warn("c")
	log.WithGroup("g").Error("d", "level", 2) // only slog's own level is dropped
	want := []string{
		"debug: msg=a",
		`info: msg=b path="/a b"`,
		"warning: msg=c n=1",
		"err: msg=d g.level=2",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", []string(got), want)
	}

	got = nil
	log = slog.New(newSyslogHandler(&got, slog.LevelWarn))
	log.Info("quiet")
	if len(got) > 0 {
		t.Errorf("from level warn on: got %q, want nothing", []string(got))
	}
}

func TestOpenLogFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	for _, message := range []string{"first", "second"} {
		log, err := openLog(name, true, slog.LevelInfo, nil)
		if err != nil {
			t.Fatal(err)
		}
		log.Info(message)
		if log.toStderr {
			t.Error("claims to log to stderr")
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := debug.SetCrashOutput(nil, debug.CrashOptions{}); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if first, second := strings.Index(string(text), "first"), strings.Index(string(text), "second"); first < 0 || second < first {
		t.Errorf("the log has not both messages in order:\n%s", text)
	}

	if _, err := openLog(filepath.Join(name, "x"), true, slog.LevelInfo, nil); err == nil {
		t.Error("a log file that cannot be: got no error")
	}
}

func TestOpenLogStderr(t *testing.T) {
	var stderr bytes.Buffer
	log, err := openLog("", true, slog.LevelWarn, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	log.Info("quiet")
	log.Warn("loud")
	if text := stderr.String(); strings.Contains(text, "quiet") || !strings.Contains(text, "level=WARN msg=loud") || !log.toStderr {
		t.Errorf("got %q, want the warning alone", text)
	}
}
