package query

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/query"
)

// A report is what a run has found.
type report struct {
	pairs   int
	indexed int // of them, those of queries of which an index can answer lookups
	// lacking is how often the test has noticed an index that is not complete, trusting a
	// planner that takes old rows for whole.
	lacking, trusting int
	classes           map[string]*class
	misses            []miss
	rules             map[query.Rule]int // how often the test has noticed that one was left out
	invalid           map[string]int
	refused           map[string]string
	swept             []miss
	idle              []miss // drops of results that have not changed
	// listed are the queries whose keys can be listed, listedKeys those that had to be.
	listed, listedKeys int
}

// A class is of queries that have a construct.
type class struct {
	modes               map[string]int
	dropped, unchanged  int // without those that are swept
	sweptAll, sweptIdle int
}

type miss struct {
	length int
	text   string
}

func newReport() *report {
	return &report{classes: map[string]*class{}, rules: map[query.Rule]int{}, invalid: map[string]int{}, refused: map[string]string{}}
}

func (r *report) class(name string) *class {
	if r.classes[name] == nil {
		r.classes[name] = &class{modes: map[string]int{}}
	}
	return r.classes[name]
}

func (r *report) caught(rule query.Rule) bool { return r.rules[rule] > 3 }

// noticed reports whether the test has noticed every rule that was left out.
func (r *report) noticed() bool {
	return !slices.ContainsFunc(query.Rules, func(rule struct {
		query.Rule
		Name string
	}) bool {
		return r.rules[rule.Rule] == 0
	})
}

func (r *report) planned(s *subject, mode string) {
	for _, name := range append([]string{"all"}, s.classes...) {
		r.class(name).modes[mode]++
	}
}

func (r *report) dropped(s *subject, changed bool) {
	for _, name := range append([]string{"all"}, s.classes...) {
		c := r.class(name)
		idle := 0
		if !changed {
			idle = 1
		}
		if s.mode == "sweep" || s.mode == "part" {
			c.sweptAll++
			c.sweptIdle += idle
		} else {
			c.dropped++
			c.unchanged += idle
		}
	}
}

func (r *report) add(one *report) {
	r.pairs += one.pairs
	r.indexed += one.indexed
	r.lacking += one.lacking
	r.trusting += one.trusting
	r.listed += one.listed
	r.listedKeys += one.listedKeys
	for name, c := range one.classes {
		of := r.class(name)
		for mode, n := range c.modes {
			of.modes[mode] += n
		}
		of.dropped += c.dropped
		of.unchanged += c.unchanged
		of.sweptAll += c.sweptAll
		of.sweptIdle += c.sweptIdle
	}
	r.misses = append(r.misses, one.misses...)
	r.swept = append(r.swept, one.swept...)
	r.idle = append(r.idle, one.idle...)
	for rule, n := range one.rules {
		r.rules[rule] += n
	}
	for text, n := range one.invalid {
		r.invalid[text] += n
	}
	maps.Copy(r.refused, one.refused)
}

func (r *report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-22s %7s %7s %7s %7s %7s %7s %7s %14s\n", "class", "queries", "direct", "lookup", "part", "sweep", "one key", "refused", "idle drops")
	for _, name := range slices.Sorted(maps.Keys(r.classes)) {
		c := r.classes[name]
		n := 0
		for _, m := range c.modes {
			n += m
		}
		fmt.Fprintf(&b, "%-22s %7d", name, n)
		for _, mode := range []string{"direct", "lookup", "part", "sweep", "one key", "refused"} {
			fmt.Fprintf(&b, " %6.0f%%", 100*float64(c.modes[mode])/float64(max(1, n)))
		}
		fmt.Fprintf(&b, " %6.0f%% of %d\n", 100*float64(c.unchanged)/float64(max(1, c.dropped)), c.dropped)
	}
	fmt.Fprintf(&b, "the keys of %d queries can be listed, and %d had to be among them\n", r.listed, r.listedKeys)
	for _, rule := range query.Rules {
		fmt.Fprintf(&b, "without %s: %d misses noticed\n", rule.Name, r.rules[rule.Rule])
	}
	fmt.Fprintf(&b, "%d pairs with lookups that an index answers; one that lacks members: %d misses noticed\n", r.indexed, r.lacking)
	fmt.Fprintf(&b, "a planner that takes old rows for whole: %d misses noticed\n", r.trusting)
	for text, sql := range r.refused {
		fmt.Fprintf(&b, "refused: %s\n    %s\n", text, sql)
	}
	fmt.Fprintf(&b, "%d that PostgreSQL does not take\n", len(r.invalid))
	for i, text := range slices.Sorted(maps.Keys(r.invalid)) {
		if i < *sweeps {
			fmt.Fprintf(&b, "    %s\n", text)
		}
	}
	return b.String()
}

func (r *report) judge(t *testing.T) {
	slices.SortFunc(r.misses, func(a, b miss) int { return cmp.Compare(a.length, b.length) })
	for i, m := range r.misses {
		if i < *tell {
			t.Errorf("MISSED\n%s", m.text)
		}
	}
	for _, floor := range floors {
		c := r.classes[floor.class]
		if c == nil {
			c = &class{modes: map[string]int{}}
		}
		planned := c.modes["direct"] + c.modes["lookup"]
		n := planned + c.modes["part"] + c.modes["sweep"] + c.modes["refused"]
		// Of a few queries two standard deviations fewer are chance.
		chance := 2 * math.Sqrt(float64(n*floor.planned*(100-floor.planned)))
		if n >= few && float64(100*planned)+chance < float64(floor.planned*n) {
			t.Errorf("%s: %d of %d queries are planned without a sweep, and at least %d%% should be", floor.class, planned, n, floor.planned)
		}
		if floor.idle > 0 && c.dropped >= 4*few && 100*c.unchanged > floor.idle*c.dropped {
			t.Errorf("%s: of %d keys that were dropped %d had not changed, and at most %d%% should be so", floor.class, c.dropped, c.unchanged, floor.idle)
		}
	}
	slices.SortFunc(r.swept, func(a, b miss) int { return cmp.Compare(a.length, b.length) })
	for i, m := range r.swept {
		if i < *sweeps {
			t.Logf("SWEPT %s", m.text)
		}
	}
	for _, rule := range query.Rules {
		if r.rules[rule.Rule] == 0 && r.pairs >= pairsMin {
			t.Errorf("a planner without the rule for %s has missed nothing that this test would notice", rule.Name)
		}
	}
	if r.lacking == 0 && r.pairs >= pairsMin {
		t.Error("an index that lacks members has missed nothing that this test would notice")
	}
	if r.trusting == 0 && r.pairs >= pairsMin {
		t.Error("a planner that takes old rows for whole has missed nothing that this test would notice")
	}
	slices.SortFunc(r.idle, func(a, b miss) int { return cmp.Compare(a.length, b.length) })
	for i, m := range r.idle {
		if i < *sweeps {
			t.Logf("IDLE %s", m.text)
		}
	}
	if len(r.misses) > 0 {
		t.Errorf("%d misses", len(r.misses))
	}
}

// pairsMin is how many pairs it takes to notice every rule that is left out.
const pairsMin = 10_000

// few queries of a class say nothing about the planner.
const few = 40

// floors are what a planner must reach that does not sweep where it need not: of the
// queries of a class the percentage that it plans without a sweep, and of the keys
// that those drop the percentage whose results have not changed; 0: whatever it is.
var floors = []struct {
	class         string
	planned, idle int
}{
	{"join by key", 100, 7}, {"list by reference", 100, 7}, {"count by reference", 100, 10}, {"join and list", 100, 50},
	{"list with predicates", 100, 20}, {"join with predicates", 100, 20}, {"join with predicates on the joined", 100, 0},
	{"plain", 60, 10}, {"inner join", 12, 0}, {"outer join", 12, 0}, {"full join", 3, 0}, {"using", 15, 0}, {"self join", 15, 0},
	{"exists", 10, 0}, {"NOT exists", 8, 0}, {"in", 8, 0}, {"not in", 12, 0}, {"exists in or", 20, 0}, {"scalar subquery", 8, 0},
	{"aggregate", 10, 0}, {"aggregate inside", 25, 0}, {"having", 8, 0}, {"grouping sets", 5, 0}, {"window", 8, 0}, {"window inside", 12, 0},
	{"distinct", 10, 0}, {"distinct on", 6, 0}, {"distinct inside", 20, 0}, {"limit", 8, 0}, {"order by", 10, 0}, {"or", 8, 0},
	{"subquery in from", 3, 0}, {"cte", 5, 0}, {"view", 5, 0}, {"lateral", 2, 0}, {"set operation", 2, 0}, {"set operation inside", 40, 0},
	{"expression = parameter", 15, 0}, {"predicate on null", 60, 0}, {"predicate", 15, 0}, {"missing side", 25, 0},
	{"literal of a type", 50, 0}, {"join of types", 15, 0}, {"element of an array", 12, 0}, {"part of a document", 20, 0}, {"part of a time", 10, 0},
	{"partitioned", 12, 0}, {"inherited", 12, 0}, {"all", 25, 0},
}

// told is a plan for people.
func told(dependencies []plan.Dependency) string {
	var b strings.Builder
	for _, d := range dependencies {
		fmt.Fprintf(&b, "%s %s (%s)", d.Table, d.Alias, strings.Join(d.Columns, " "))
		if d.Where != nil {
			fmt.Fprintf(&b, " where %s", d.Where)
		}
		if d.Sweeps() {
			fmt.Fprintf(&b, " sweep: %s", d.Why)
		}
		b.WriteByte('\n')
		for _, p := range d.Paths {
			if p.Lookup == nil {
				fmt.Fprintf(&b, "  direct: %q\n", p.Key)
			} else {
				fmt.Fprintf(&b, "  lookup: %s\n", p.Lookup.SQL)
			}
		}
	}
	return b.String()
}
