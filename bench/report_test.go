package main

import (
	"encoding/xml"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReplaceMarked(t *testing.T) {
	first, err := replaceMarked("# Title\n\nBy hand.\n", "bench", "one")
	if err != nil {
		t.Fatal(err)
	}
	first += "\nBelow, by hand.\n"
	second, err := replaceMarked(first, "bench", "two")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# Title\n\nBy hand.\n", "\ntwo\n", "\nBelow, by hand.\n"} {
		if !strings.Contains(second, want) {
			t.Errorf("%q is missing in %q", want, second)
		}
	}
	if strings.Contains(second, "one") {
		t.Errorf("the old text is still in %q", second)
	}
	again, err := replaceMarked(second, "bench", "two")
	if err != nil || again != second {
		t.Errorf("the same text changes the file: %q, %v", again, err)
	}
	if _, err := replaceMarked(strings.Replace(second, "bench: end", "", 1), "bench", "x"); err == nil {
		t.Error("a missing mark passes")
	}
}

// Every job's cells have names of their own, and goals name peers that there are.
func TestJobs(t *testing.T) {
	known := append([]string{native, mapfs, writeback, exclusive, passthrough, bestPeer}, realPeers...)
	for _, size := range []*sizes{&fullSizes, &quickSizes} {
		seen := make(map[string]bool)
		for _, j := range jobs(size) {
			if j.name == "" || j.per == "" || j.run == nil {
				t.Errorf("job %q lacks something", j.name)
			}
			for _, name := range j.peers {
				if !slices.Contains(known, name) {
					t.Errorf("job %q: no peer %q", j.name, name)
				}
			}
			for _, c := range j.cells {
				if seen[c.id] {
					t.Errorf("two cells %q", c.id)
				}
				seen[c.id] = true
				for _, g := range c.goals {
					if !slices.Contains(known, g.subject) || !slices.Contains(known, g.base) || g.factor <= 0 {
						t.Errorf("cell %q: goal %+v", c.id, g)
					}
				}
			}
		}
		for _, p := range pairs(size) {
			if !seen[p.little] || !seen[p.lot] {
				t.Errorf("pair %+v names cells that there are not", p)
			}
		}
	}
}

func sampleReport() *report {
	c := &cast{peers: []*peer{{name: native}, {name: mapfs}, {name: bindfs}}}
	r := &report{cast: c, size: &quickSizes, command: "make bench", jobs: jobs(&quickSizes), res: newResults(), took: time.Minute}
	set := func(id, peer string, values ...float64) { r.res.cells[key{onTmpfs, id, peer}] = values }
	set("read-cold", native, 4000*mib, 4100*mib)
	set("read-cold", mapfs, 3000*mib, 3000*mib)
	set("read-cold", bindfs, 1000*mib, 1000*mib)
	set("cp -r", native, 0.010)
	set("cp -r", mapfs, 0.020)
	set("cp -r", bindfs, 0.040)
	return r
}

func TestMarkdown(t *testing.T) {
	text := sampleReport().markdown("performance.svg")
	for _, want := range []string{
		"| read 1 MiB, cold kernel cache | 1 | 0.74 | 0.25 | 1.25 x bindfs | 3.00 | met |",
		"| cp -r | 1 | 0.50 | 0.25 | 1 x best peer, bindfs | 2.00 | met |",
		"2 of 2 goals are met.",
		"](performance.svg)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}

func TestSVG(t *testing.T) {
	text := sampleReport().svg()
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("not well-formed: %v\n%s", err, text)
		}
	}
	// A background, a legend of two, and two bars in each of two groups.
	if got, want := strings.Count(text, "<rect"), 1+2+4; got != want {
		t.Errorf("%d rectangles, want %d", got, want)
	}
}
