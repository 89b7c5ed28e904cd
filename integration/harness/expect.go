package harness

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

func Expect(t *testing.T, got, want, what string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %.200q, want %.200q", what, got, want)
	}
}

func MakeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// FreeAddr returns an address on loopback with a free port. Nobody else is likely to
// take it before the daemon does.
func FreeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

var MetricsClient = http.Client{Timeout: 10 * time.Second}

// GetMetrics asks the daemon at addr for its metrics.
func GetMetrics(t *testing.T, addr string) (response *http.Response, body string) {
	t.Helper()
	response, err := MetricsClient.Get("http://" + addr + "/metrics")
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

// Metric asks the daemon at addr for one of its metrics.
func Metric(t *testing.T, addr, name string) float64 {
	t.Helper()
	_, body := GetMetrics(t, addr)
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

func Dd(t *testing.T, args ...string) {
	t.Helper()
	Run(t, "dd", append([]string{"if=/dev/zero", "bs=4096", "conv=notrunc", "status=none"}, args...)...)
}

// SettleLimit is how long the daemon may take to let go of what is removed: the
// kernel says that it has forgotten a file when it pleases.
const SettleLimit = 10 * time.Second

// ProgramLimit bounds one run of a program that has much to do.
const ProgramLimit = 4 * time.Minute

// InDir runs a shell script in a directory, stops at the first command that
// fails, and returns the output.
func InDir(t testing.TB, dir, script string, env ...string) string {
	t.Helper()
	// Not cmd.Dir: the child that Go forks would enter the mount before it is a
	// process of its own, and hang the test with it.
	cmd := exec.Command("sh", "-ec", `cd "$IN"`+"\n"+script)
	cmd.Env = append(append(os.Environ(), env...), "IN="+dir)
	out, err := RunCmd(cmd, ProgramLimit)
	if err != nil {
		t.Fatalf("%s\nin %s: %v", script, dir, err)
	}
	return out
}

// Pattern is n bytes in which every 8 differ from every other 8 nearby.
func Pattern(seed, n int) []byte {
	b := make([]byte, n)
	x := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return b
}

// StartHold starts `mapfs hold` and reads its first line.
func StartHold(t *testing.T, args ...string) *Process {
	t.Helper()
	p := StartProc(t, exec.Command(Binary, append([]string{"hold"}, args...)...))
	if first := p.Line(); !strings.HasSuffix(first, " "+args[len(args)-1]) {
		t.Fatalf("hold %q: the first line is %q", args, first)
	}
	return p
}
