package integration

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestMetricsAddr asks a daemon for its metrics by HTTP.
func TestMetricsAddr(t *testing.T) {
	// A free port; nobody else is likely to take it before the daemon does.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	m := mountWith(t, subDir(t, tempDir(t), "data"), mountConfig{args: []string{"--metrics-addr", addr}})
	dd(t, "of="+m.path("f"), "count=3")

	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := `mapfs_writes_total{mountpoint="` + m.dir + `"} 3`
	if response.StatusCode != http.StatusOK || !strings.Contains(string(body), want+"\n") {
		t.Errorf("got %s without %q:\n%s", response.Status, want, body)
	}
	m.unmount()
	if _, err := client.Get("http://" + addr + "/metrics"); err == nil {
		t.Error("still answers after the unmount")
	}
}
