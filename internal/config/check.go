package config

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// nameBytesMax is the longest identifier that PostgreSQL keeps: it cuts the
// rest off with a notice that nobody reads (NAMEDATALEN - 1).
const nameBytesMax = 63

var (
	slotPattern      = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)
	entryNamePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`)
)

func checkSlot(value string) (string, *fault) {
	if !slotPattern.MatchString(value) {
		return "", &fault{text: fmt.Sprintf("%s is no name of a replication slot", quote(value)),
			mend: "write 1 to 63 lower-case letters, digits and underscores"}
	}
	return value, nil
}

func checkPublication(value string) (string, *fault) {
	if value == "" || len(value) > nameBytesMax || strings.ContainsRune(value, 0) {
		return "", &fault{text: fmt.Sprintf("%s is no name of a publication", quote(value)),
			mend: "write 1 to 63 bytes; capitals are kept as they are"}
	}
	return value, nil
}

func checkKey(value string) (string, *fault) {
	if value == "" {
		return "", &fault{text: "is empty", mend: "write a template such as product:{id}"}
	}
	return value, nil
}

func checkListen(value string) (string, *fault) {
	if value == "" || value == "off" {
		return "", nil
	}
	const mend = "write host:port, like 127.0.0.1:9187, or off"
	_, port, err := net.SplitHostPort(value)
	if err != nil {
		return "", &fault{text: fmt.Sprintf("%s is no address", quote(value)), mend: mend}
	}
	// Port 0, one of the system's choice, is for tests.
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", &fault{offset: len(value) - len(port), text: fmt.Sprintf("%s is no port", quote(port)), mend: mend}
	}
	return value, nil
}

func checkDatabaseURL(value string) (string, *fault) {
	const mend = "write postgres://user@host:5432/name or host=... user=... dbname=..."
	switch scheme, _, isURL := strings.Cut(value, "://"); {
	case value == "":
		return "", &fault{text: "is empty", mend: mend}
	case isURL && (scheme == "postgres" || scheme == "postgresql"):
	case isURL && !strings.Contains(scheme, "="):
		return "", &fault{text: "is no URL of PostgreSQL", mend: mend}
	case !strings.Contains(value, "="):
		return "", &fault{text: "is no connection string", mend: mend}
	}
	if isDatabaseURL(value) && !strings.Contains(value, ",") { // several hosts are not of a URL's syntax
		if _, err := url.Parse(value); err != nil {
			return "", mistakenURL
		}
	}
	return value, nil
}

// mistakenURL is a mistake in a URL. What url.Parse says of it is not passed on: it
// quotes the password.
var mistakenURL = &fault{text: "is a URL with a mistake in it",
	mend: "percent-encode what is special in user and password (/ is %2F, @ is %40, # is %23), and look at the port"}

func checkRedisURL(value string) (string, *fault) {
	const mend = "write redis://host:6379, or rediss://host:6379 for TLS"
	scheme, _, isURL := strings.Cut(value, "://")
	switch {
	case value == "":
		return "", &fault{text: "is empty", mend: mend}
	case !isURL:
		return "", &fault{text: "is no URL", mend: mend}
	case scheme != "redis" && scheme != "rediss":
		return "", &fault{text: "is no URL of Redis", mend: mend}
	}
	if _, err := url.Parse(value); err != nil {
		return "", mistakenURL
	}
	return value, nil
}

// parseTable reads a table's name as SQL does: unquoted letters are folded to
// lower case, "" inside quotes is a quote.
func parseTable(text string) (schema, name string, f *fault) {
	var parts []string
	rest := text
	for {
		part, length, f := parseIdentifier(rest)
		if f != nil {
			f.offset += len(text) - len(rest)
			return "", "", f
		}
		parts = append(parts, part)
		rest = rest[length:]
		if rest == "" {
			break
		}
		offset := len(text) - len(rest)
		switch {
		case rest[0] != '.':
			r, _ := utf8.DecodeRuneInString(rest)
			return "", "", &fault{offset, fmt.Sprintf("%q does not belong in a name without quotes", r), quotedMend(text)}
		case len(parts) == 2:
			return "", "", &fault{offset, "has more than two parts", "write schema.table; the database is the one of the connection"}
		}
		rest = rest[1:]
	}
	if len(parts) == 2 {
		schema = parts[0]
	}
	return schema, parts[len(parts)-1], nil
}

// quotedMend shows how to write text as one quoted name.
func quotedMend(text string) string {
	if strings.ContainsAny(text, `"'`) {
		return `write the name in double quotes, as in SQL, and single quotes around the whole for YAML: '"Weird Table"'`
	}
	return fmt.Sprintf(`if that is the table's name, write '"%s"': quotes of YAML around those of SQL`, text)
}

// parseIdentifier reads one name at the start of text, and how many bytes it
// took.
func parseIdentifier(text string) (name string, length int, f *fault) {
	if text == "" {
		return "", 0, &fault{text: "a name is missing", mend: "write table or schema.table"}
	}
	if text[0] == '"' {
		for i := 1; i < len(text); i++ {
			if text[i] != '"' {
				continue
			}
			if i+1 < len(text) && text[i+1] == '"' {
				i++
				continue
			}
			name, length = strings.ReplaceAll(text[1:i], `""`, `"`), i+1
			break
		}
		if length == 0 {
			return "", 0, &fault{text: "the quote is not closed", mend: `write '"Weird Table"'`}
		}
		if name == "" {
			return "", 0, &fault{text: "the name is empty", mend: "write table or schema.table"}
		}
	} else {
		for length < len(text) && identifierByte(text[length], length == 0) {
			length++
		}
		if length == 0 {
			r, _ := utf8.DecodeRuneInString(text)
			return "", 0, &fault{text: fmt.Sprintf("a name without quotes does not begin with %q", r), mend: quotedMend(text)}
		}
		name = strings.Map(func(r rune) rune {
			if 'A' <= r && r <= 'Z' {
				r += 'a' - 'A'
			}
			return r
		}, text[:length])
	}
	if len(name) > nameBytesMax {
		return "", 0, &fault{text: fmt.Sprintf("the name has %d bytes", len(name)),
			mend: fmt.Sprintf("write at most %d: PostgreSQL cuts the rest off", nameBytesMax)}
	}
	return name, length, nil
}

// identifierByte follows PostgreSQL's scan.l: ident_start and ident_cont.
func identifierByte(b byte, first bool) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', b == '_', b >= 0x80:
		return true
	case '0' <= b && b <= '9', b == '$':
		return !first
	}
	return false
}

// quote shows a value in a problem. It may have come from an environment
// variable that holds a connection string.
func quote(value string) string {
	const shownMax = 60
	value = hidePasswords(value)
	if utf8.RuneCountInString(value) > shownMax {
		value = string([]rune(value)[:shownMax]) + "…"
	}
	return strconv.Quote(value)
}

// nearest is the word that name was probably meant to be, or "".
func nearest(name string, words []string) string {
	best, bestDistance := "", max(1, utf8.RuneCountInString(name)/3)+1
	for _, w := range words {
		if d := distance([]rune(strings.ToLower(name)), []rune(w), bestDistance); d < bestDistance {
			best, bestDistance = w, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to turn a into b. Above limit it need not be exact.
func distance(a, b []rune, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i + 1
		for j := range b {
			change := 1
			if a[i] == b[j] {
				change = 0
			}
			row[j+1] = min(last[j]+change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
