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

// distance is the number of characters to insert, delete or replace to make b
// of a, or most+1 if it is more than most.
func distance(a, b string, most int) int {
	if len(a)-len(b) > most || len(b)-len(a) > most {
		return most + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
