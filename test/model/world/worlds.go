package world

import (
	"fmt"
	"strings"

	"github.com/unstale/unstale/test/model/explore"
)

// A Run explores one world.
type Run func(explore.Limits) explore.Result

// A Part is one configuration of the proof.
type Part struct {
	Part, Name  string
	Small, Full Run
}

// Worlds returns every configuration of every world.
func Worlds() []Part {
	var parts []Part
	for _, c := range CacheConfigurations {
		parts = append(parts, Part{c.Part, c.Bounds.Name, runCache(c.Small, Ablation{}), runCache(c.Bounds, Ablation{})})
	}
	for _, c := range ClusterConfigurations {
		parts = append(parts, Part{"cluster", c.Bounds.Name, runCluster(c.Small, Ablation{}), runCluster(c.Bounds, Ablation{})})
	}
	for _, c := range IndexConfigurations {
		parts = append(parts, Part{"indexes", c.Bounds.Name, runIndex(c.Small, Ablation{}), runIndex(c.Bounds, Ablation{})})
	}
	return parts
}

// A Case is one ablation, in its world.
type Case struct {
	Ablation
	World string
	Run   Run
}

// Ablations returns every ablation of every world.
func Ablations() []Case {
	var cases []Case
	for _, c := range CacheCases {
		cases = append(cases, Case{c.Ablation, c.Bounds.String(), runCache(c.Bounds, c.Ablation)})
	}
	for _, c := range ClusterCases {
		cases = append(cases, Case{c.Ablation, c.Bounds.String(), runCluster(c.Bounds, c.Ablation)})
	}
	for _, c := range IndexCases {
		cases = append(cases, Case{c.Ablation, c.Bounds.String(), runIndex(c.Bounds, c.Ablation)})
	}
	return cases
}

func runCache(b Bounds, a Ablation) Run {
	return func(limits explore.Limits) explore.Result { return explore.Run(NewCache(b, a), limits) }
}

func runIndex(b IndexBounds, a Ablation) Run {
	return func(limits explore.Limits) explore.Result { return explore.Run(NewIndex(b, a), limits) }
}

// Story tells what an ablation has come to.
func (c Case) Story(r explore.Result) string {
	var text strings.Builder
	fmt.Fprintf(&text, "Without the rule %q: %s.\nThe world: %s.\n\n", c.Name, c.Says, c.World)
	for i, line := range r.Story {
		fmt.Fprintf(&text, "%3d  %s\n", i+1, strings.TrimRight(line, " "))
	}
	switch {
	case r.Broken != "":
		fmt.Fprintf(&text, "\nBroken: %s.\n", r.Broken)
	case r.Exhausted:
		fmt.Fprintf(&text, "Nothing breaks in any order of events: %s.\n", c.Unneeded)
	default:
		fmt.Fprintf(&text, "Nothing was found to break.\n")
	}
	return text.String()
}

// String says what may happen.
func (b Bounds) String() string {
	var parts []string
	add := func(when bool, format string, args ...any) {
		if when {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	words := map[Change]string{Complete: "a row", Doubtful: "a delete", Truncate: "a TRUNCATE", OtherPart: "another part", Other: "another row", Lookup: "a row that a lookup leads from", FanOut: "a row that a fan-out leads from", Moved: "a row that moves", Between: "a row that moves between"}
	var changes []string
	for _, c := range b.Changes {
		changes = append(changes, words[Change(c)])
	}
	does := "an entry that never SETs"
	switch {
	case b.Cached:
		does = "an entry that SETs what is cached"
	case b.Sets:
		does = "an entry that SETs"
	}
	add(true, "%s", does)
	add(b.Hash, "hashes")
	add(true, "%s", count(len(b.Changes), "commit")+" ("+strings.Join(changes, ", ")+")")
	add(true, "%s", count(b.Readers, "reader"))
	add(b.Kafka, "over Kafka")
	add(b.Resends > 0, "%s that sends again", count(int(b.Resends), "connector"))
	add(b.Cuts, "transactions that may go on")
	add(b.Snapshot, "an initial snapshot")
	add(b.Names, "sweeps by names, which may be evicted")
	add(b.Keeps, "values that stay")
	add(b.Loader, "the last one is the service")
	add(b.Writer, "writers that drop the key themselves")
	add(true, "%s on the way at most", count(int(b.Window), "batch"))
	add(b.Copies, "lost replies")
	add(b.Clock, "time")
	add(b.Evicts, "evicted side keys")
	add(b.Full, "a full Redis")
	add(b.Takeovers > 0, "%s", count(int(b.Takeovers), "take-over"))
	add(b.Flushes > 0, "%s", count(int(b.Flushes), "FLUSHALL"))
	add(b.Failovers > 0, "%s with loss", count(int(b.Failovers), "failover"))
	add(b.Recreations > 0, "a slot made anew")
	return strings.Join(parts, ", ")
}

func count(n int, what string) string {
	switch {
	case n == Always:
		return what + " after " + what
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "ch"):
		return fmt.Sprint(n, " ", what, "es")
	}
	return fmt.Sprint(n, " ", what, "s")
}
