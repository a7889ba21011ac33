package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// demoTally is what reads have come to, as the help of `demo --json` says.
type demoTally struct {
	Reads   int     `json:"reads"`
	Hits    int     `json:"hits"`
	Loads   int     `json:"loads"`
	HitRate float64 `json:"hit_rate"`
	Stale   int     `json:"stale"`
}

// demoCache is one cache of `demo --json`.
type demoCache struct {
	demoTally
	KeysSet int `json:"keys_set"`
	Latency *struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
	} `json:"latency_ms"`
	Entries map[string]struct {
		demoTally
		OnChange string `json:"on_change"`
	} `json:"entries"`
}

// The same reads, loads and changes: the caches without a lease serve stale
// hits of every entry, which proves that there were some to be had, and Unstale
// serves none. What it only drops is loaded as often as after a DEL; what it
// sets or loads itself is loaded less often by readers.
func TestTheDemoShowsNoStaleHitsOfUnstale(t *testing.T) {
	// Longer loads than by default: more of them lose the race.
	cmd, dir := demoCommand(t, "--for", "10s", "--load-time", "40ms", "--json")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, stderr.Bytes(), stdout.Bytes())
	}
	var report struct {
		Seconds          float64 `json:"seconds"`
		Changes          int     `json:"changes"`
		ChangesPerSecond float64 `json:"changes_per_second"`
		Caches           struct {
			TTLOnly       demoCache `json:"ttl_only"`
			DELAfterEvent demoCache `json:"del_after_event"`
			Unstale       demoCache `json:"unstale"`
		} `json:"caches"`
	}
	decoder := json.NewDecoder(&stdout)
	if err := decoder.Decode(&report); err != nil {
		t.Fatal(err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		t.Errorf("something follows the object: %v", err)
	}
	ttl, del, ours := report.Caches.TTLOnly, report.Caches.DELAfterEvent, report.Caches.Unstale
	if del.Latency == nil || ours.Latency == nil {
		t.Fatal("no latency was measured")
	}
	t.Logf("%.0f changes/s, %d reads of each cache, hit rates %.3f %.3f %.3f, stale hits %d %d %d, %d keys set, latency %+v %+v",
		report.ChangesPerSecond, ours.Reads, ttl.HitRate, del.HitRate, ours.HitRate, ttl.Stale, del.Stale, ours.Stale, ours.KeysSet, *del.Latency, *ours.Latency)
	if report.Seconds < 10 || report.Changes == 0 {
		t.Errorf("got %d changes in %.1f s, want some in 10 s", report.Changes, report.Seconds)
	}
	if ours.Stale != 0 || ours.Hits == 0 || ours.Loads != ours.Reads-ours.Hits {
		t.Errorf("Unstale: got %+v, want many hits and none stale", ours.demoTally)
	}
	if del.Stale == 0 {
		t.Error("no stale hits of DEL after event: nothing raced")
	}
	if ours.KeysSet == 0 || ttl.KeysSet+del.KeysSet != 0 {
		t.Errorf("keys set by changes: got %d %d %d, want none but in Unstale's cache", ttl.KeysSet, del.KeysSet, ours.KeysSet)
	}
	modes := map[string]string{}
	for name, kept := range ours.Entries {
		plain, dropped := ttl.Entries[name], del.Entries[name]
		modes[name] = kept.OnChange
		t.Logf("%-8s %-10s hit rates %.3f %.3f %.3f, loads %d %d %d, stale hits %d %d %d", name, kept.OnChange,
			plain.HitRate, dropped.HitRate, kept.HitRate, plain.Loads, dropped.Loads, kept.Loads, plain.Stale, dropped.Stale, kept.Stale)
		if kept.Stale != 0 || kept.Hits == 0 {
			t.Errorf("%s, %s: got %d stale hits of %d, want 0 of many", name, kept.OnChange, kept.Stale, kept.Hits)
		}
		if plain.Stale+dropped.Stale == 0 {
			t.Errorf("%s: no stale hits of the others: the load proves nothing", name)
		}
		if name == "product_page" && dropped.Stale == 0 {
			t.Errorf("%s: no stale hits where a category's new name is on no page: no page was looked up", name)
		}
		if kept.OnChange != "invalidate" && 10*kept.Loads > 9*dropped.Loads {
			t.Errorf("%s, %s: readers loaded %d times, want at least a tenth less than the %d of DEL after event", name, kept.OnChange, kept.Loads, dropped.Loads)
		}
		if kept.OnChange == "invalidate" && math.Abs(kept.HitRate-dropped.HitRate) > 0.1 {
			t.Errorf("%s, invalidate: hit rate %.3f, want within 0.1 of the %.3f of DEL after event", name, kept.HitRate, dropped.HitRate)
		}
	}
	want := map[string]string{"category": "warm", "product": "update", "customer": "refresh", "order": "invalidate",
		"product_page": "refresh", "category_list": "refresh", "open_orders": "invalidate"}
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Errorf("on_change (-want +got):\n%s", diff)
	}
	if ttl.Latency != nil {
		t.Errorf("latency of a cache that is told nothing: got %v, want null", ttl.Latency)
	}
	if ours.Latency.P50 <= 0 || ours.Latency.P99 < ours.Latency.P50 {
		t.Errorf("latency: got %+v", ours.Latency)
	}
	wantEmpty(t, dir)
}

// Ctrl-C leaves nothing behind: no server, no service, no file. The process is
// interrupted under load, and while it starts.
func TestAnInterruptedDemoLeavesNothingBehind(t *testing.T) {
	for _, moment := range []string{"started PostgreSQL", "changes/s"} {
		t.Run(moment, func(t *testing.T) {
			cmd, dir := demoCommand(t)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			stderr := &logBuffer{}
			cmd.Stderr = stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var said strings.Builder
			lines := bufio.NewScanner(stdout)
			for lines.Scan() && !strings.Contains(said.String(), moment) {
				fmt.Fprintln(&said, lines.Text())
			}
			family := descendants(t, cmd.Process.Pid)
			if len(family) < 3 {
				t.Errorf("%d processes, want a server at least\n%s%s", len(family), &said, stderr)
			}
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			for lines.Scan() {
				fmt.Fprintln(&said, lines.Text())
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("after SIGINT: %v\n%s%s", err, &said, stderr)
			}
			// A server's children end a moment behind it.
			ctx := within(t, 30*time.Second)
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for pid, began := range family {
				for processBegan(pid) == began && ctx.Err() == nil {
					<-tick.C
				}
				if processBegan(pid) == began {
					status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
					t.Errorf("process %d is still there:\n%s", pid, status)
				}
			}
			wantEmpty(t, dir)
		})
	}
}

// demoCommand is `unstale demo` with a directory of its own for temporary files.
func demoCommand(t *testing.T, arguments ...string) (cmd *exec.Cmd, dir string) {
	t.Helper()
	// Not t.TempDir, whose parent is closed to the account of PostgreSQL.
	dir, err := os.MkdirTemp("", "unstale-demo-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(within(t, 2*time.Minute), binary, append([]string{"demo"}, arguments...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, dir
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		t.Errorf("left behind: %s", filepath.Join(dir, entry.Name()))
	}
}

// descendants returns a process and all that it has begotten, each with the
// moment at which it began: a number may be used again.
func descendants(t *testing.T, pid int) map[int]string {
	t.Helper()
	found := map[int]string{}
	for open := []int{pid}; len(open) > 0; open = open[1:] {
		if began := processBegan(open[0]); began != "" {
			found[open[0]] = began
		}
		lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", open[0]))
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range lists {
			text, err := os.ReadFile(list)
			if err != nil {
				continue // the thread has ended
			}
			for _, field := range strings.Fields(string(text)) {
				child, err := strconv.Atoi(field)
				if err != nil {
					t.Fatal(err)
				}
				open = append(open, child)
			}
		}
	}
	return found
}

// processBegan is the start time that proc(5) gives a process, empty if there
// is no such process. One that has ended and waits only for a parent to ask how
// (an orphan's is whatever runs as process 1) holds nothing and counts as gone.
func processBegan(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name, the second field, may hold spaces; the start time is the 22nd.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if state := fields[0]; state == "Z" || state == "X" {
		return ""
	}
	return fields[19]
}
