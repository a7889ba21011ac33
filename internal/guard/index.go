package guard

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"
)

// An index is a family of sets: of each combination of values of some columns, the
// values of others, as far as a stream has come. What a set says of itself stands in
// it as well, so that whatever takes it away takes that too: a member that is values
// ends in NUL, which no value holds, and no other member does.
const (
	// IndexTTL is how long a set stays from when it was begun: what nobody asks for
	// any more goes by itself.
	IndexTTL = 24 * time.Hour

	// Completed stands in a set in which nothing is missing.
	Completed = "complete"
	// indexBuild begins the member that tells one building of a set from every other,
	// indexRead that which stands in a set while it is read bit by bit.
	indexBuild, indexRead = "build:", "read:"
)

// ErrIncomplete says that a set does not have all members, or is not the one that it
// was.
var ErrIncomplete = errors.New("the set is not complete, or another one")

// IndexPrefix begins the names of the sets of one index of a stream. definition tells
// the index from every other of the stream: where what a set holds would be another
// thing, so must the definition be.
func IndexPrefix(slot uint16, stream, definition string) string {
	sum := sha256.Sum256([]byte(stream + "\x00" + definition))
	return WatermarkKey(slot, "index:"+hex.EncodeToString(sum[:8])+":")
}

// AppendIndexed appends value i of those by which a set is named.
func AppendIndexed(dst []byte, i int, value []byte) []byte {
	if i > 0 {
		dst = append(dst, ':')
	}
	return appendEncoded(dst, value, true)
}

// AppendMember appends one of the values that are a member.
func AppendMember(dst, value []byte) []byte { return append(append(dst, value...), 0) }

// MemberValues appends to values those that a member is; it is not ok if the member
// says something of its set.
func MemberValues(values [][]byte, member []byte) (of [][]byte, ok bool) {
	if len(member) == 0 || member[len(member)-1] != 0 {
		return values, false
	}
	start := 0
	for at, c := range member {
		if c == 0 {
			values = append(values, member[start:at])
			start = at + 1
		}
	}
	return values, true
}

// BuildMember is the member of a set that is being built, or was. Whatever is added to it
// has a token of its own, which takes the place of the one before.
func BuildMember(token string) string { return indexBuild + token }

// ReadMember is the member of a set that is being read, under a token.
func ReadMember(token string) string { return indexRead + token }
