package integration

import (
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMetricsAddr asks a daemon for its metrics by HTTP.
func TestMetricsAddr(t *testing.T) {
	addr := freeAddr(t)
	m := mountWith(t, subDir(t, tempDir(t), "data"), mountConfig{args: []string{"--metrics-addr", addr}})
	dd(t, "of="+m.path("f"), "count=3")

	response, body := getMetrics(t, addr)
	want := `mapfs_writes_total{mountpoint="` + m.dir + `"} 3`
	if response.StatusCode != http.StatusOK || !strings.Contains(body, want+"\n") {
		t.Errorf("got %s without %q:\n%s", response.Status, want, body)
	}
	m.unmount()
	if _, err := metricsClient.Get("http://" + addr + "/metrics"); err == nil {
		t.Error("still answers after the unmount")
	}
}

// freeAddr returns an address on loopback with a free port. Nobody else is likely to
// take it before the daemon does.
func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

var metricsClient = http.Client{Timeout: 10 * time.Second}

// getMetrics asks the daemon at addr for its metrics.
func getMetrics(t *testing.T, addr string) (response *http.Response, body string) {
	t.Helper()
	response, err := metricsClient.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

// metric asks the daemon at addr for one of its metrics.
func metric(t *testing.T, addr, name string) float64 {
	t.Helper()
	_, body := getMetrics(t, addr)
	match := regexp.MustCompile(`(?m)^` + name + `\{.*\} (.*)$`).FindStringSubmatch(body)
	if match == nil {
		t.Fatalf("no %s in\n%s", name, body)
	}
	value, err := strconv.ParseFloat(match[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}
