//go:build linux

package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"mapfs/fs"
	"mapfs/fs/control"
)

func TestCheckMetricsAddr(t *testing.T) {
	for _, good := range []string{"127.0.0.1:9100", "127.9.9.9:0", "[::1]:65535", "localhost:80"} {
		if err := checkMetricsAddr(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	const alone = "not an address of this machine alone; choose 127.0.0.1:9100, [::1]:9100 or localhost:9100"
	tests := []struct{ addr, want string }{
		{"127.0.0.1", "not of the form HOST:PORT, like 127.0.0.1:9100"},
		{"9100", "not of the form HOST:PORT, like 127.0.0.1:9100"},
		{"127.0.0.1:", `"" is no number of a port`},
		{"127.0.0.1:http", `"http" is no number of a port`},
		{"127.0.0.1:65536", `"65536" is no number of a port`},
		{":9100", alone},
		{"0.0.0.0:9100", alone},
		{"[::]:9100", alone},
		{"192.0.2.1:9100", alone},
		{"example.org:9100", alone},
	}
	for _, test := range tests {
		want := outcome{code: exitUsage, stderr: fmt.Sprintf("mapfs: --metrics-addr %s: %s; see 'mapfs --help'\n", test.addr, test.want)}
		f := newFakeSystem()
		if got := f.run("--metrics-addr", test.addr, "/b", "/m"); got != want || len(f.spawned) > 0 {
			t.Errorf("%s:\ngot  %+v, started %q\nwant %+v", test.addr, got, f.spawned, want)
		}
	}
}

// measuredMount is a mount that is asked for its metrics before it ends.
type measuredMount struct {
	endedSession
	serve func()
}

func (m measuredMount) Serve() error { m.serve(); return nil }
func (m measuredMount) MetricsHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "mapfs_reads_total 1\n") })
}

func TestServeMetrics(t *testing.T) {
	listener, err := listenMetrics("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	get := func(path string) (int, string) {
		response, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Error(err)
		}
		return response.StatusCode, string(body)
	}
	f := newFakeSystem()
	f.mount = func(control.Options) (session, error) {
		return measuredMount{serve: func() {
			if code, body := get("/metrics"); code != http.StatusOK || body != "mapfs_reads_total 1\n" {
				t.Errorf("/metrics: got %d %q", code, body)
			}
			if code, _ := get("/"); code != http.StatusNotFound {
				t.Errorf("/: got %d, want %d", code, http.StatusNotFound)
			}
			if _, err := listenMetrics(addr); err == nil || !strings.Contains(err.Error(), "--metrics-addr "+addr) {
				t.Errorf("a second listener: got %v", err)
			}
		}}, nil
	}
	opts := control.Options{Options: fs.Options{Backing: "/b", Mountpoint: "/m", Log: slog.New(slog.DiscardHandler)}}
	if err := mountAndServe(t.Context(), f.system, opts, true, &readiness{}, listener); err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("still listens after the unmount")
	}
	if listener, err := listenMetrics(""); listener != nil || err != nil {
		t.Errorf("without an address: got %v, %v", listener, err)
	}
}

// TestMetricsReadersAreBounded: connections that say nothing take a bounded number of
// descriptors, and let others in after a while.
func TestMetricsReadersAreBounded(t *testing.T) {
	listener, err := listenMetrics("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var first net.Conn
	accepted := make(chan struct{}, 4*metricsReaders)
	counting := countingListener{listener, func() { accepted <- struct{}{} }}
	stop := serveMetrics(counting, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	defer stop()
	for i := range 2 * metricsReaders {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = conn
		}
		defer conn.Close()
	}
	for range metricsReaders {
		<-accepted
	}
	select {
	case <-accepted:
		t.Errorf("more than %d connections are served at a time", metricsReaders)
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	select {
	case <-accepted:
	case <-time.After(10 * time.Second):
		t.Error("nobody is let in after one has gone")
	}
}

// countingListener tells of each connection that is accepted.
type countingListener struct {
	net.Listener
	tell func()
}

func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.tell()
	}
	return conn, err
}
