//go:build linux

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"mapfs/cmd/mapfs/cli"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/net/netutil"
)

// metricsReaders is how many connections are served at a time, out of the daemon's
// own descriptors; more wait. metricsTimeout ends one that is slow, or says nothing.
const (
	metricsReaders = 16
	metricsTimeout = 10 * time.Second
)

// checkMetricsAddr refuses an address for --metrics-addr that others than this
// machine could reach: the metrics tell the paths of mounts, and nothing asks
// who wants to know.
func checkMetricsAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return cli.Usagef("--metrics-addr %s: not of the form HOST:PORT, like 127.0.0.1:9100", addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return cli.Usagef("--metrics-addr %s: %q is no number of a port", addr, port)
	}
	if host == "localhost" {
		return nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() {
		return cli.Usagef("--metrics-addr %s: not an address of this machine alone; choose 127.0.0.1:%s, [::1]:%s or localhost:%s",
			addr, port, port, port)
	}
	return nil
}

// listenMetrics listens before anything is mounted, so that an address which is
// taken is an error of the mount command. Without an address there is no
// listener.
func listenMetrics(addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--metrics-addr %s: %w", addr, err)
	}
	// What localhost means is up to the machine's configuration.
	if tcp, ok := listener.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		listener.Close()
		return nil, fmt.Errorf("--metrics-addr %s: leads to %v, which is not of this machine alone", addr, listener.Addr())
	}
	return listener, nil
}

// serveMetrics answers at /metrics until the listener is closed, which the
// returned function does.
func serveMetrics(listener net.Listener, handler http.Handler, log *slog.Logger) (stop func()) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", handler)
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: metricsTimeout,
		ReadTimeout:       metricsTimeout,
		WriteTimeout:      metricsTimeout,
		IdleTimeout:       metricsTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	go func() {
		if err := server.Serve(netutil.LimitListener(listener, metricsReaders)); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the metrics are no longer served", "err", err)
		}
	}()
	log.Info("serves metrics", "url", "http://"+listener.Addr().String()+"/metrics")
	return func() { server.Close() }
}
