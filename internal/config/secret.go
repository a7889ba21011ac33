package config

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"regexp"
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

// MarshalJSON does the same without HTML escaping in the way.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

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

// MarshalJSON does the same without HTML escaping in the way.
func (u URL) MarshalJSON() ([]byte, error) { return json.Marshal(u.String()) }

// LogValue hides the passwords from logs.
func (u URL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// passwordAssignment is password=... of a connection string or of a URL's
// query, and "password: ..." of a YAML line.
var passwordAssignment = regexp.MustCompile(`(?i)(password["']?\s*[=:]\s*)('(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|[^&\s]+)`)

// hidePasswords replaces the passwords in text that holds a connection string
// by ***. It does not parse: a URL that is too broken to be parsed has a
// password to hide as well.
func hidePasswords(text string) string {
	head, rest, isURL := strings.Cut(text, "://")
	if isURL {
		rest = hideUserinfo(rest)
		text = head + "://" + rest
	}
	return passwordAssignment.ReplaceAllString(text, "${1}"+hidden)
}

// hideUserinfo hides the password in what follows "://".
func hideUserinfo(rest string) string {
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	at := strings.LastIndexByte(rest[:end], '@')
	if at < 0 && !hostsOnly(rest[:end]) {
		// A password with a bare /, ? or # in it: everything up to the last @,
		// or to the end, may be part of it.
		at = strings.LastIndexByte(rest, '@')
		if at < 0 {
			at = len(rest)
		}
	}
	if at < 0 {
		return rest
	}
	user, _, found := strings.Cut(rest[:at], ":")
	if !found {
		return rest
	}
	return user + ":" + hidden + rest[at:]
}

var hostList = regexp.MustCompile(`^(\[[0-9A-Fa-f:.%]*\]|[^:\[\]]*)(:[0-9]*)?(,(\[[0-9A-Fa-f:.%]*\]|[^:\[\]]*)(:[0-9]*)?)*$`)

// hostsOnly reports whether text is host[:port] or several of them.
func hostsOnly(text string) bool { return hostList.MatchString(text) }
