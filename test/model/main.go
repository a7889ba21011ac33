// Command model explores the protocol: every order of events in small worlds
// that run the guard's own scripts. It prints what was explored, and fails when
// a promise breaks with every rule in place, or none breaks without a rule, or a
// world is too large for the limits, unless they were set.
//
//	go run ./test/model
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/unstale/unstale/test/model/explore"
	"github.com/unstale/unstale/test/model/world"
)

// statesMax is twice what the largest world has.
const statesMax = 40_000_000

func main() {
	limits := explore.Limits{}
	flag.IntVar(&limits.States, "states", statesMax, "of one world, at most")
	flag.DurationVar(&limits.Time, "time", 0, "for one world, at most; 0: no limit")
	only := flag.String("only", "", "the worlds whose name has this in it")
	flag.Parse()
	if err := model(limits, *only); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// atOnce is how many worlds are explored side by side.
const atOnce = 2

func model(limits explore.Limits, only string) error {
	var group errgroup.Group
	group.SetLimit(atOnce)
	var names []string
	chosen := 0
	// Who sets a limit wants to see a part.
	whole := limits == explore.Limits{States: statesMax}
	for _, part := range world.Worlds() {
		names = append(names, part.Part+" "+part.Name)
		if !strings.Contains(part.Part+" "+part.Name, only) {
			continue
		}
		chosen++
		group.Go(func() error {
			result := part.Full(limits)
			fmt.Printf("%-8s %-60s %s\n", part.Part, part.Name, result.Summary())
			if result.Broken != "" {
				return fmt.Errorf("%s: %s\n  %s", part.Name, result.Broken, strings.Join(result.Story, "\n  "))
			}
			if whole && !result.Exhausted {
				return fmt.Errorf("%s: not every order of events was seen in %d states: make the world smaller, or raise statesMax", part.Name, result.States)
			}
			return nil
		})
	}
	for _, c := range world.Ablations() {
		names = append(names, "without "+c.Name)
		if !strings.Contains("without "+c.Name, only) {
			continue
		}
		chosen++
		group.Go(func() error {
			result := c.Run(limits)
			found := result.Broken
			if found == "" {
				found = "nothing breaks: " + c.Unneeded
			}
			fmt.Printf("without  %-60s %s\n", c.Name, found)
			if (result.Broken == "") != (c.Unneeded != "") {
				return fmt.Errorf("without %s (%s): %q, against what is said of it", c.Name, c.Says, found)
			}
			if whole && result.Broken == "" && !result.Exhausted {
				return fmt.Errorf("without %s: not every order of events was seen in %d states", c.Name, result.States)
			}
			return nil
		})
	}
	if chosen == 0 {
		return fmt.Errorf("-only %s: no world has this in its name; there are\n  %s", only, strings.Join(names, "\n  "))
	}
	return group.Wait()
}
