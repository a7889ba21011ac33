package config

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
)

const hidden = "***"

// A Secret prints as *** in every format; string(s) is its text.
type Secret string

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// Format covers every verb: %#v and %x would otherwise show the text.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// MarshalText hides the secret from JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the secret from logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// A URL is a connection string that prints without its passwords; string(u) is
// its text.
type URL string

func (u URL) String() string { return hidePasswords(string(u)) }

// Format covers every verb: %#v and %x would otherwise show the text.
func (u URL) Format(f fmt.State, _ rune) { io.WriteString(f, u.String()) }

// MarshalText hides the passwords from JSON and YAML.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// LogValue hides the passwords from logs.
func (u URL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// passwordAssignment is password=... of a connection string or of a URL's
// query; keyed is password: ... of a YAML line.
var (
	passwordAssignment = regexp.MustCompile(`(?i)password\s*=\s*('(?:[^'\\]|\\.)*'?|[^&\s"']+)`)
	passwordKeyed      = regexp.MustCompile(`(?i)(?:pass|secret|token|pwd)[a-z]*["']?\s*:\s+(.+)$`)
	secretName         = regexp.MustCompile(`(?i)pas?s|pas?w|secret|token|pwd|auth`)
)

// looksSecret reports whether text is a connection string that is too broken to
// find the password in it.
func looksSecret(text string) bool {
	return strings.Contains(text, "\n") ||
		strings.Contains(text, "@") && !strings.Contains(text, "://") && !strings.Contains(text, "=")
}

// hidePasswords replaces the passwords in a connection string by ***.
func hidePasswords(text string) string {
	shown, _ := hideSpans(text, passwordSpans(text), 0)
	return shown
}

// A span is a range of bytes.
type span struct{ from, to int }

// hideSpans replaces each span by *** and tells where the byte at offset has
// moved to.
func hideSpans(text string, spans []span, offset int) (shown string, moved int) {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var b strings.Builder
	done, found := 0, false
	keep := func(to int) {
		if !found && offset < to {
			moved, found = b.Len()+max(0, offset-done), true
		}
		b.WriteString(text[done:to])
		done = to
	}
	for _, s := range spans {
		if s.to <= done {
			continue
		}
		if s.from > done {
			keep(s.from)
		}
		if !found && offset < s.to {
			moved, found = b.Len(), true
		}
		b.WriteString(hidden)
		done = s.to
	}
	keep(len(text))
	if !found {
		moved = b.Len()
	}
	return b.String(), moved
}

// passwordSpans finds passwords in text that holds connection strings. It does
// not parse them: one that is too broken to be parsed has a password to hide
// as well.
func passwordSpans(text string) []span {
	var spans []span
	for start := 0; ; {
		i := strings.Index(text[start:], "://")
		if i < 0 {
			break
		}
		start += i + len("://")
		if from, to := userinfoPassword(text[start:]); from < to {
			spans = append(spans, span{start + from, start + to})
		}
	}
	for _, m := range passwordAssignment.FindAllStringSubmatchIndex(text, -1) {
		spans = append(spans, span{m[2], m[3]})
	}
	return spans
}

// userinfoPassword finds the password in what follows "://".
func userinfoPassword(rest string) (from, to int) {
	end := strings.IndexAny(rest, "/?#\"'{}, \t")
	if end < 0 {
		end = len(rest)
	}
	at := strings.LastIndexByte(rest[:end], '@')
	if at < 0 && !hostAndPort.MatchString(rest[:end]) {
		// A password with a bare / or the like in it: whatever stands before
		// the last @ may be part of it, and without one everything may.
		if at = strings.LastIndexByte(rest, '@'); at < 0 {
			at = len(rest)
		}
	}
	if at < 0 {
		return 0, 0
	}
	colon := strings.IndexByte(rest[:at], ':')
	if colon < 0 {
		return 0, 0
	}
	return colon + 1, at
}

// hostAndPort is what stands between :// and / where there is no user.
var hostAndPort = regexp.MustCompile(`^(\[[0-9A-Fa-f:.%]*\]|[^:\[\]]*)(:[0-9]*)?$`)
