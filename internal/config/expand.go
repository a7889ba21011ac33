package config

import (
	"fmt"
	"regexp"
	"strings"
)

var variablePattern = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)(?:(:-)(.*))?$`)

// expand replaces ${NAME}, ${NAME:-default} and $$ in a value. It works on
// values, not on the file: whatever a variable holds, it cannot become YAML.
// from has, for each byte of the result and for its end, the offset in text
// that it comes from.
func expand(text string, getenv func(string) (string, bool)) (value string, from []int, faults []*fault) {
	var b strings.Builder
	put := func(s string, offset int, moving bool) {
		for i := range len(s) {
			b.WriteByte(s[i])
			if moving {
				from = append(from, offset+i)
			} else {
				from = append(from, offset)
			}
		}
	}
	for i := 0; i < len(text); {
		switch {
		case strings.HasPrefix(text[i:], "$$"):
			put("$", i, true)
			i += 2
		case strings.HasPrefix(text[i:], "${"):
			inside, _, closed := strings.Cut(text[i+2:], "}")
			if !closed {
				faults = append(faults, &fault{i, "${ is not closed", "write ${NAME}; a literal ${ is $${"})
				i = len(text)
				continue
			}
			replacement, f := lookup(inside, getenv)
			if f != nil {
				f.offset = i
				faults = append(faults, f)
			}
			put(replacement, i, false)
			i += len("${}") + len(inside)
		default:
			put(text[i:i+1], i, true)
			i++
		}
	}
	return b.String(), append(from, len(text)), faults
}

// lookup reads what stands between the braces.
func lookup(inside string, getenv func(string) (string, bool)) (string, *fault) {
	m := variablePattern.FindStringSubmatch(inside)
	if m == nil {
		// What stands inside is not quoted: it may be the default of a password.
		return "", &fault{text: "this ${...} has no name of a variable in it",
			mend: "write ${NAME} or ${NAME:-default}; a literal ${ is $${"}
	}
	name, hasDefault, initial := m[1], m[2] != "", m[3]
	value, set := getenv(name)
	switch {
	case hasDefault && value == "":
		return initial, nil
	case !set:
		return "", &fault{text: fmt.Sprintf("the environment variable %s is not set", name),
			mend: fmt.Sprintf("set %s, or write ${%s:-default}", name, name)}
	}
	return value, nil
}
