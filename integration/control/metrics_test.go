package control

import (
	"net/http"
	"strings"
	"testing"

	"mapfs/integration/harness"
)

// TestMetricsAddr asks a daemon for its metrics by HTTP.
func TestMetricsAddr(t *testing.T) {
	addr := harness.FreeAddr(t)
	m := harness.MountWith(t, harness.SubDir(t, harness.TempDir(t), "data"), harness.MountConfig{Args: []string{"--metrics-addr", addr}})
	harness.Dd(t, "of="+m.Path("f"), "count=3")

	response, body := harness.GetMetrics(t, addr)
	want := `mapfs_writes_total{mountpoint="` + m.Dir + `"} 3`
	if response.StatusCode != http.StatusOK || !strings.Contains(body, want+"\n") {
		t.Errorf("got %s without %q:\n%s", response.Status, want, body)
	}
	m.Unmount()
	if _, err := harness.MetricsClient.Get("http://" + addr + "/metrics"); err == nil {
		t.Error("still answers after the unmount")
	}
}
