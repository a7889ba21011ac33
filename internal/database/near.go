package database

import (
	"slices"
	"strings"
)

// nearest returns the candidates that a person may have meant by name, at most
// three, the likeliest first.
func nearest(name string, candidates []string) []string {
	type scored struct {
		name     string
		distance int
	}
	most := max(1, len(name)/3)
	var near []scored
	for _, candidate := range candidates {
		d := distance(strings.ToLower(name), strings.ToLower(candidate), most)
		if d <= most && !slices.ContainsFunc(near, func(s scored) bool { return s.name == candidate }) {
			near = append(near, scored{candidate, d})
		}
	}
	slices.SortStableFunc(near, func(a, b scored) int { return a.distance - b.distance })
	var names []string
	for _, s := range near[:min(3, len(near))] {
		names = append(names, s.name)
	}
	return names
}

// distance is the number of characters to insert, delete, replace or exchange
// with the next to make b of a, or most+1 if the lengths alone say that it is
// more than most.
func distance(a, b string, most int) int {
	if len(a)-len(b) > most || len(b)-len(a) > most {
		return most + 1
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			row[j+1] = last[j]
			if a[i] != b[j] {
				row[j+1] = 1 + min(last[j], row[j], last[j+1])
			}
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], 1+before[j-1])
			}
		}
	}
	return row[len(b)]
}
