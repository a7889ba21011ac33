package database

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// standbys is synchronous_standby_names, taken apart.
// https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES
type standbys struct {
	method string // FIRST, ANY or nothing
	number int    // zero: only names were given
	names  []string
}

// parseStandbys never refuses: the server has accepted the text, and what it
// reads out of an odd one is only used to write a suggestion.
func parseStandbys(text string) standbys {
	var s standbys
	list := strings.TrimSpace(text)
	if head, inside, ok := strings.Cut(list, "("); ok && !strings.Contains(head, `"`) {
		words := strings.Fields(head)
		if len(words) == 2 {
			s.method = strings.ToUpper(words[0])
			words = words[1:]
		}
		if len(words) == 1 {
			s.number, _ = strconv.Atoi(words[0])
		}
		list = strings.TrimSuffix(strings.TrimSpace(inside), ")")
	}
	for len(list) > 0 {
		list = strings.TrimLeft(list, " \t\n,")
		if strings.HasPrefix(list, `"`) {
			name := ""
			for rest := list[1:]; ; {
				before, after, _ := strings.Cut(rest, `"`)
				name += before
				if !strings.HasPrefix(after, `"`) {
					list = after
					break
				}
				name += `"`
				rest = after[1:]
			}
			s.names = append(s.names, name)
			continue
		}
		end := strings.IndexAny(list, ", \t\n")
		if end < 0 {
			end = len(list)
		}
		if end > 0 {
			s.names = append(s.names, list[:end])
		}
		list = list[end:]
	}
	return s
}

// includes reports whether a standby of that name would be synchronous.
func (s standbys) includes(name string) bool {
	return slices.ContainsFunc(s.names, func(n string) bool { return n == "*" || strings.EqualFold(n, name) })
}

// without returns s so that it no longer includes name: '*' becomes the names
// of the standbys that are known.
func (s standbys) without(name string, known []string) standbys {
	var names []string
	add := func(n string) {
		if !strings.EqualFold(n, name) && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	for _, n := range s.names {
		if n != "*" {
			add(n)
			continue
		}
		for _, k := range known {
			add(k)
		}
	}
	return standbys{method: s.method, number: min(s.number, len(names)), names: names}
}

// String is the text that means s.
func (s standbys) String() string {
	if len(s.names) == 0 {
		return ""
	}
	var names []string
	for _, n := range s.names {
		if n != "*" && quote(n) != n {
			n = `"` + strings.ReplaceAll(n, `"`, `""`) + `"`
		}
		names = append(names, n)
	}
	list := strings.Join(names, ", ")
	if s.number > 0 {
		list = strings.TrimSpace(fmt.Sprintf("%s %d (%s)", s.method, s.number, list))
	}
	return list
}
