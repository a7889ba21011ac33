package guard

import (
	"strings"
	"time"
)

// Names are, in a set of each Cluster slot, those of the keys with one prefix that were
// leased since the set was made: a sweep that finds its keys there need not look at all
// of Redis. Who makes the sets is the sweep of an entry; who reads through the cache
// knows them by the key alone.
//
// A member that begins with a zero byte is no name: no key does.

const (
	// NamesMax is how many members a set has at most, and NamesTTL how long it stays.
	// Beyond that it is gone, and the next sweep looks at all of Redis: names of keys
	// that have expired, or that changes have dropped, do not gather for ever.
	NamesMax = 100_000
	NamesTTL = 24 * time.Hour
)

// NamesKey names the set of a slot's keys that begin with the prefix and a ':'.
func NamesKey(slot uint16, prefix string) string { return WatermarkKey(slot, "names:"+prefix) }

// Names names the set that has the name of key; ok is false if there is none: a key
// without a ':'.
func Names(key string) (names string, ok bool) {
	prefix, _, ok := strings.Cut(key, ":")
	if !ok {
		return "", false
	}
	return NamesKey(Slot(key), prefix), true
}

// BeginKeys are the KEYS of Begin for a key and its side key.
func BeginKeys(key, side string) []string {
	if names, ok := Names(key); ok {
		return []string{key, side, names}
	}
	return []string{key, side}
}

// Prefix is what stands before the first ':' in each key of the template; ok is false
// where that differs.
func (t *Template) Prefix() (prefix string, ok bool) {
	prefix, _, ok = strings.Cut(t.literals[0], ":")
	return prefix, ok
}

// Seal is the member that says of a set of names that it has every key of the template
// that is cached or leased.
func (t *Template) Seal() string { return "\x00" + t.text }

// Draft is the member that a sweep puts there when it begins to look at all keys of
// the template, or has ended: token is its own.
func (t *Template) Draft(token string) string { return t.Seal() + "\x00" + token }

// IsName reports whether a member of a set of names is one.
func IsName(member string) bool { return !strings.HasPrefix(member, "\x00") }
