package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// report is what one run has measured.
type report struct {
	Environment environment `json:"environment"`
	Results     []result    `json:"results"`
	Costs       []cost      `json:"costs"`
}

type environment struct {
	PostgreSQL string `json:"postgresql"`
	Redis      string `json:"redis"`
	Go         string `json:"go"`
	CPUs       int    `json:"cpus"`
	CPU        string `json:"cpu"`
	Sizes      sizes  `json:"sizes"`
}

// result is one number beside its limit. Both are medians; the ratio is the
// median of the ratios of the runs, each of which had both of its sides one
// right after the other.
type result struct {
	What  string  `json:"what"`
	Unit  string  `json:"unit"`
	Ours  float64 `json:"ours"`
	Limit float64 `json:"limit"`
	Of    string  `json:"of"` // whose number the limit is
	Ratio float64 `json:"ratio"`
	Goal  string  `json:"goal,omitempty"`
	Met   *bool   `json:"met,omitempty"`

	OursRuns  []float64 `json:"ours_runs,omitempty"`
	LimitRuns []float64 `json:"limit_runs,omitempty"`
}

// cost is processor time a change, in microseconds, by who spent it.
type cost struct {
	What     string  `json:"what"`
	Reader   float64 `json:"reader"`
	Postgres float64 `json:"postgresql"`
	Redis    float64 `json:"redis"`
	Kafka    float64 `json:"kafka"`
	// Others is the share of the machine that other work took meanwhile: above
	// a few hundredths, rates are lower than they would be.
	Others float64 `json:"others"`
}

// A goal is what the ratio, or where there is none the number, should be.
type goal struct {
	text string
	met  func(r *result) bool
}

func ratioAtLeast(x float64) *goal {
	return &goal{fmt.Sprintf("%gx or more", x), func(r *result) bool { return r.Ratio >= x }}
}

func ratioAtMost(x float64) *goal {
	return &goal{fmt.Sprintf("%gx or less", x), func(r *result) bool { return r.Ratio <= x }}
}

func numberAtLeast(x float64) *goal {
	return &goal{thousands(int64(x)) + " or more", func(r *result) bool { return r.Ours >= x }}
}

func below(x float64, unit string) *goal {
	return &goal{fmt.Sprintf("below %g %s", x, unit), func(r *result) bool { return r.Ours < x }}
}

// add reports ours beside limit: the numbers of the runs, in their order.
func (r *report) add(what, unit string, ours []float64, of string, limit []float64, g *goal) {
	one := result{
		What: what, Unit: unit, Of: of,
		Ours: median(ours), OursRuns: ours, Limit: median(limit), LimitRuns: limit,
	}
	if len(limit) == len(ours) {
		ratios := make([]float64, len(ours))
		for i := range ours {
			ratios[i] = ours[i] / limit[i]
		}
		one.Ratio = median(ratios)
	} else if one.Limit > 0 {
		one.Ratio = one.Ours / one.Limit
	}
	if g != nil {
		met := g.met(&one)
		one.Goal, one.Met = g.text, &met
	}
	r.Results = append(r.Results, one)
}

func (r *report) print(w io.Writer) error {
	e := r.Environment
	fmt.Fprintf(w, "\n%s, %s, %s, %d × %s\n\n", e.PostgreSQL, e.Redis, e.Go, e.CPUs, e.CPU)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "what\tours\tlimit or peer\t\tratio\tgoal\t")
	for _, one := range r.Results {
		limit, ratio, met := "", "", ""
		if one.Limit > 0 {
			limit = number(one.Limit, one.Unit)
		}
		if one.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", one.Ratio)
		}
		if one.Met != nil {
			met = map[bool]string{true: "met", false: "NOT met"}[*one.Met]
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", one.What, number(one.Ours, one.Unit), limit, one.Of, ratio, one.Goal, met)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(r.Costs) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nprocessor time in microseconds a change, by who spent it")
	table = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "what\treader\tPostgreSQL\tRedis\tKafka\tother work took\t")
	for _, c := range r.Costs {
		fmt.Fprintf(table, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f %% of the machine\t\n", c.What, c.Reader, c.Postgres, c.Redis, c.Kafka, 100*c.Others)
	}
	return table.Flush()
}

// number prints a value with its unit.
func number(value float64, unit string) string {
	var text string
	switch {
	case value >= 1000:
		text = thousands(int64(value + 0.5))
	case value >= 100:
		text = fmt.Sprintf("%.0f", value)
	default:
		text = fmt.Sprintf("%.3g", value)
	}
	return strings.TrimSpace(text + " " + unit)
}

// thousands prints n with a comma between each three digits.
func thousands(n int64) string {
	text := fmt.Sprint(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// median of values; 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
