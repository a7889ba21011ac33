package debezium

import (
	"crypto/md5"
	"encoding/hex"
	"strconv"
)

// placeholders are what a long value looks like that an update did not touch.
type placeholders struct {
	text string
	// As arrays, in PostgreSQL's text: of the text, of its bytes, and of the
	// UUID that Java makes of the text as a name.
	texts, bytes, uuids string
	pair                string // as an hstore
}

func newPlaceholders(text string) placeholders {
	p := placeholders{text: text, bytes: "{"}
	for i := range len(text) {
		if i > 0 {
			p.bytes += ","
		}
		p.bytes += strconv.Itoa(int(int8(text[i])))
	}
	p.bytes += "}"
	p.texts = string(appendElement([]byte("{"), []byte(text))) + "}"
	sum := md5.Sum([]byte(text))
	sum[6] = sum[6]&0x0f | 0x30
	sum[8] = sum[8]&0x3f | 0x80
	s := hex.EncodeToString(sum[:])
	p.uuids = "{" + s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:] + "}"
	p.pair = string(appendPair(nil, []byte(text), []byte(text), false))
	return p
}

// isArray reports whether the text of an array is made of the placeholder.
func (p *placeholders) isArray(text []byte) bool {
	return string(text) == p.texts || string(text) == p.bytes || string(text) == p.uuids
}
