package fs

import (
	"os/exec"
	"strings"
	"testing"
)

// TestArrows holds the packages to the one direction of imports that docs/architecture.md
// shows. The clients' verbs know nothing of a mount, nor of more than mapping's page
// arithmetic.
func TestArrows(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "mapfs/...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	const fuse = "bazil.org/fuse"
	mapping := func(below ...string) (paths []string) {
		for _, p := range below {
			paths = append(paths, "mapfs/mapping/"+p)
		}
		return paths
	}
	allowed := map[string][]string{
		"mapfs/mapping/paging":    nil,
		"mapfs/mapping/share":     nil,
		"mapfs/mapping/guard":     mapping("paging"),
		"mapfs/mapping/sys":       mapping("guard", "paging"),
		"mapfs/mapping/pagestate": mapping("paging", "guard", "sys"),
		"mapfs/mapping/dirty":     mapping("paging", "pagestate"),
		"mapfs/mapping":           mapping("paging", "share", "guard", "sys", "pagestate", "dirty"),
		"mapfs/mapping/explicit":  append(mapping("paging", "guard", "sys", "pagestate", "dirty"), "mapfs/mapping"),

		"mapfs/fs/mountpoint":      nil,
		"mapfs/fs/wire":            {"mapfs/fs/mountpoint", "mapfs/mapping/share", "mapfs/mapping/paging", fuse},
		"mapfs/fs/fault":           nil,
		"mapfs/internal/quote":     nil,
		"mapfs/fs/crash":           {"mapfs/internal/quote"},
		"mapfs/fs/crash/image":     nil,
		"mapfs/fs/crash/explore":   {"mapfs/fs/crash", "mapfs/fs/crash/image", "mapfs/internal/quote"},
		"mapfs/fs/crash/crashtest": {"mapfs/fs/crash", "mapfs/fs/crash/explore", "mapfs/internal/quote"},
		"mapfs/fs/crash/oracle":    {"mapfs/fs/crash"},
		"mapfs/fs":                 {"mapfs/mapping/paging", "mapfs/fs/crash", "mapfs/fs/fault", "mapfs/fs/wire", "mapfs/fs/mountpoint", "mapfs/mapping", "mapfs/mapping/share", "mapfs/mapping/sys", fuse},
		"mapfs/fs/control": append(mapping("paging", "pagestate", "dirty", "share", "sys", "explicit"),
			"mapfs/fs", "mapfs/fs/crash", "mapfs/fs/fault", "mapfs/fs/wire", "mapfs/mapping", "mapfs/internal/quote", fuse),

		"mapfs/client":                mapping("paging"),
		"mapfs/docs/lab":              nil,
		"mapfs/cmd/mapfs/display":     nil,
		"mapfs/cmd/mapfs/picture":     {"mapfs/cmd/mapfs/display"},
		"mapfs/cmd/mapfs/ctltree":     {"mapfs/internal/quote"},
		"mapfs/cmd/mapfs/cli":         nil,
		"mapfs/cmd/mapfs/memory":      {"mapfs/client", "mapfs/cmd/mapfs/cli", "mapfs/cmd/mapfs/display", "mapfs/internal/quote", "mapfs/mapping/paging"},
		"mapfs/cmd/mapfs/crashreport": {"mapfs/fs/crash/explore"},
		"mapfs/cmd/mapfs": {"mapfs/cmd/mapfs/crashreport", "mapfs/cmd/mapfs/cli", "mapfs/cmd/mapfs/memory", "mapfs/cmd/mapfs/display", "mapfs/cmd/mapfs/picture", "mapfs/cmd/mapfs/ctltree", "mapfs/fs", "mapfs/fs/crash", "mapfs/fs/crash/explore", "mapfs/fs/crash/image", "mapfs/internal/quote", "mapfs/fs/wire", "mapfs/fs/control", "mapfs/fs/mountpoint",
			"mapfs/mapping", "mapfs/mapping/paging", "mapfs/mapping/sys", "mapfs/client", "mapfs/docs/lab"},
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		may, watched := allowed[fields[0]]
		if !watched {
			continue
		}
		seen++
		for _, imported := range fields[1:] {
			if !strings.HasPrefix(imported, "mapfs/") && !strings.HasPrefix(imported, "bazil.org/") {
				continue
			}
			ok := false
			for _, a := range may {
				ok = ok || imported == a
			}
			if !ok {
				t.Errorf("%s imports %s", fields[0], imported)
			}
		}
	}
	if seen != len(allowed) {
		t.Errorf("%d of %d packages were looked at:\n%s", seen, len(allowed), out)
	}
}
