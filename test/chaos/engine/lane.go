package engine

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// A lane is one way to keep rows, or results of a query, in Redis, under keys of its
// own. All lanes see the same load and are judged by the same rules.
type lane struct {
	name   string
	kind   kind   // of its values
	prefix string // of its keys: "item:" for item:7
	// entry is what the configuration says of it beside key and lease.
	entry string
	// control: a way that is known to be wrong. It must show old rows, or the
	// run proves nothing; a lane that is no control must show none.
	control bool
	// keeps: a change writes the new row, where others only drop the old one.
	keeps bool
	// clock says who keeps the keys: Unstale, or the controls' own consumer.
	clock int
	// beside names the control that caches the same keys, only carelessly. A lane
	// whose cache is much emptier than that one's is right for nothing.
	beside string
	// fetch reads through the cache.
	fetch fetch
	// hash: its values are hashes, not strings.
	hash bool

	*family        // of its kind
	bit     uint32 // in version.seenBy
	cells   []cell
	tally
}

// A fetch returns what is cached under key, and calls load where nothing is.
type fetch func(t *Traffic, ctx context.Context, key string, load load) ([]byte, error)

// A load reads a row, and how far the log had been written then.
type load func(context.Context) (text []byte, lsn int64, err error)

// A cell is what is known of one key.
type cell struct {
	seen   atomic.Int64 // no later hit may be older
	events ring
}

// A tally counts what a lane did and what it showed.
type tally struct {
	// asked counts the keys that readers asked for, there those that were there.
	asked, there atomic.Int64
	loads        atomic.Int64
	// probes counts changed rows at which somebody looked behind a barrier, kept
	// those that were cached then.
	probes, kept atomic.Int64
	// hits were judged. misses were seen behind a barrier. Of those that were
	// compared after quiet, wrong ones differ from their row.
	hits, stale, backward, excused, phantoms, misses, compared, wrong atomic.Int64
	behind                                                            histogram

	mu   sync.Mutex
	told string // of the first fault, with its history
}

// Names of the controls.
const (
	gateOnly  = "gate, no lease"
	leaseOnly = "lease, no gate"
	lsnOnly   = "LSN compare"
	setDel    = "SET and DEL"
	ownOnly   = "page, no lookup"
	loOnly    = "fan-out, not settled"
)

// basicLanes are one mode and the control that needs nobody but Unstale.
func basicLanes() []*lane {
	return []*lane{
		{name: "invalidate", prefix: "item:", entry: overItems, beside: gateOnly, fetch: fetchLeased},
		{name: gateOnly, prefix: "plain:", entry: overItems, control: true, fetch: fetchPlain},
	}
}

// keepLanes are modes whose changes write values.
func keepLanes() (lanes []*lane) {
	for _, l := range allLanes() {
		if l.name == "update" || l.name == "warm" {
			lanes = append(lanes, l)
		}
	}
	return lanes
}

// allLanes are every mode and every control.
func allLanes() []*lane {
	return append(basicLanes(), []*lane{
		{name: "refresh", prefix: "refresh:", entry: overItems + ", on_change: refresh", beside: gateOnly, fetch: fetchLeased},
		{name: "update", prefix: "update:", entry: overItems + ", on_change: update", keeps: true, beside: gateOnly, fetch: fetchKept},
		{name: "update, hash", prefix: "hash:", entry: overItems + ", on_change: update, format: hash", keeps: true, beside: gateOnly, fetch: fetchHash, hash: true},
		{name: "warm", prefix: "warm:", entry: overItems + ", on_change: warm", keeps: true, beside: setDel, fetch: fetchKept},
		{name: setDel, prefix: setPrefix, control: true, keeps: true, clock: consumerClock, fetch: fetchPlain},
		{name: lsnOnly, prefix: lsnPrefix, control: true, keeps: true, clock: consumerClock, fetch: fetchLSN},
		{name: leaseOnly, prefix: leasePrefix, control: true, clock: consumerClock, fetch: fetchLeased},

		{name: "page", kind: memberPage, prefix: "page:", entry: over(pageQuery), beside: ownOnly, fetch: fetchLeased},
		{name: "page, refresh", kind: memberPage, prefix: "loaded:", entry: over(pageQuery) + ", on_change: refresh, cache_absent: true", beside: ownOnly, fetch: fetchLeased},
		{name: "list, refresh", kind: memberList, prefix: "list:", entry: over(listQuery) + ", rows: many, on_change: refresh", fetch: fetchLeased},
		{name: "setting, sweeps", kind: settingPage, prefix: "setting:", entry: over(settingQuery) + ", allow_sweep: true", beside: ownOnly, fetch: fetchLeased},
		{name: "fan-out", kind: fanPage, prefix: "fan:", entry: over(fanQuery), beside: loOnly, fetch: fetchLeased},
		{name: ownOnly, kind: memberPage, prefix: "own:", entry: "depends_on: {members: id}", control: true, fetch: fetchLeased},
		{name: loOnly, kind: fanPage, prefix: "early:", entry: over(fanQuery), control: true, clock: appliedClock, fetch: fetchLeased},
	}...)
}

const overItems = "table: items"

func over(query string) string { return "query: '" + query + "'" }

// Entries is what belongs under `entries:` in the configuration for a Traffic
// without controls of its own.
var Entries = entries(basicLanes())

// KeepEntries is what belongs there with Keeps.
var KeepEntries = entries(append(basicLanes(), keepLanes()...))

func entries(lanes []*lane) string {
	var b strings.Builder
	for _, l := range lanes {
		if l.clock != consumerClock {
			name := strings.TrimSuffix(l.prefix, ":")
			b.WriteString("  " + name + ": {key: '" + l.prefix + "{id}', " + l.entry + ", lease: 500ms}\n")
		}
	}
	return b.String()
}

func (l *lane) key(row int) string { return l.prefix + strconv.Itoa(l.number(row)) }
