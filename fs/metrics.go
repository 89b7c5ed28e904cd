package fs

import (
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

// metrics are the counters of a session in the form of Prometheus.
type metrics struct {
	registry *prometheus.Registry
}

// newMetrics registers what can be counted of a session. The values are read
// when somebody asks.
func newMetrics(s *Session) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	labels := prometheus.Labels{"mountpoint": s.opts.Mountpoint}
	counter := func(name, help string, value func() uint64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Namespace: "mapfs", Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(value()) }))
	}
	gauge := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Namespace: "mapfs", Name: name, Help: help, ConstLabels: labels}, value))
	}
	counter("requests_total", "Requests of the kernel.", s.workers.begun.Load)
	c := s.files.Counters()
	counter("reads_total", "read(2)s that reached the engine.", c.Reads.Load)
	counter("writes_total", "write(2)s.", c.Writes.Load)
	counter("stores_total", "Arrivals of bytes that clients stored through their own mappings.", c.Stores.Load)
	counter("faults_total", "Faults (SIGBUS, SIGSEGV) of the engine's own loads and stores.", c.Faults.Load)
	counter("msyncs_total", "Write-backs by msync(2).", c.Msyncs.Load)
	gauge("files", "Backing files held open.", func() float64 { return float64(s.files.Count()) })
	gauge("nodes", "Inodes the kernel knows.", func() float64 { return float64(s.nodes.len()) })
	gauge("mappings", "Live mappings.", func() float64 { n, _ := s.files.Mappings(); return float64(n) })
	gauge("mapped_bytes", "Address space of the live mappings.", func() float64 { _, n := s.files.Mappings(); return float64(n) })
	gauge("handles", "Files and directories that clients have open.", func() float64 { return float64(s.admission.handles.Taken()) })
	gauge("handles_limit", "How many of them there can be.", func() float64 { return float64(s.admission.handles.Limit()) })
	gauge("idle_files", "Backing files held open though no client has them open.", func() float64 { return float64(s.files.Idle()) })
	gauge("parked_files", "Changed private files that are closed.", func() float64 { return float64(s.files.Parked()) })
	gauge("copied_bytes", "Memory of copied pages.", func() float64 { return float64(s.files.CopiedBytes()) })
	gauge("unsynced_bytes", "Bytes that a power cut would take.", func() float64 { return float64(s.files.UnsyncedBytes()) })
	return m
}

// write writes the metrics in Prometheus' text format.
func (m *metrics) write(b *strings.Builder) error {
	families, err := m.registry.Gather()
	if err != nil {
		return err
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(b, f); err != nil {
			return err
		}
	}
	return nil
}

// MetricsHandler serves the session's metrics over HTTP.
func (s *Session) MetricsHandler() http.Handler {
	return promhttp.HandlerFor(s.control.metrics.registry, promhttp.HandlerOpts{})
}
