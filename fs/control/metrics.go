package control

import (
	"strings"

	"bazil.org/fuse"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// newMetrics registers what can be counted of a session. The values are read
// when somebody asks.
func newMetrics(t *Tree) *prometheus.Registry {
	s := t.s
	m := prometheus.NewRegistry()
	labels := prometheus.Labels{"mountpoint": s.Options().Mountpoint}
	counter := func(name, help string, value func() uint64) {
		m.MustRegister(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Namespace: "mapfs", Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(value()) }))
	}
	gauge := func(name, help string, value func() float64) {
		m.MustRegister(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Namespace: "mapfs", Name: name, Help: help, ConstLabels: labels}, value))
	}
	counter("requests_total", "Requests of the kernel.", func() uint64 { return s.Conn().Requests() })
	c := s.Files().Counters()
	counter("reads_total", "read(2)s that reached the engine.", c.Reads.Load)
	counter("writes_total", "write(2)s.", c.Writes.Load)
	counter("stores_total", "Arrivals of bytes that clients stored through their own mappings.", c.Stores.Load)
	counter("faults_total", "Faults (SIGBUS, SIGSEGV) of the engine's own loads and stores.", c.Faults.Load)
	counter("msyncs_total", "Write-backs by msync(2).", c.Msyncs.Load)
	gauge("files", "Backing files held open.", func() float64 { return float64(s.Files().Count()) })
	gauge("nodes", "Inodes the kernel knows.", func() float64 { return float64(s.Nodes()) })
	gauge("mappings", "Live mappings.", func() float64 { n, _ := t.mappings(); return float64(n) })
	gauge("mapped_bytes", "Address space of the live mappings.", func() float64 { _, n := t.mappings(); return float64(n) })
	gauge("handles", "Files and directories that clients have open.", func() float64 { open, _ := s.Handles(); return float64(open) })
	gauge("handles_limit", "How many of them there can be.", func() float64 { _, limit := s.Handles(); return float64(limit) })
	gauge("idle_files", "Backing files held open though no client has them open.", func() float64 { return float64(s.Files().Idle()) })
	gauge("parked_files", "Changed private files that are closed.", func() float64 { return float64(s.Files().Parked()) })
	gauge("copied_bytes", "Memory of copied pages.", func() float64 { return float64(s.Files().CopiedBytes()) })
	gauge("unsynced_bytes", "Bytes that a power cut would take.", func() float64 { return float64(s.Files().UnsyncedBytes()) })
	return m
}

// writeMetrics writes the metrics in Prometheus' text format.
func (t *Tree) writeMetrics(b *strings.Builder, _ *node, _ *fuse.Header) error {
	families, err := t.metrics.Gather()
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
