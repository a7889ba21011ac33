package debezium

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"math"
	"math/big"
	"strconv"

	"github.com/unstale/unstale/internal/change"
)

// raw is a value as a message has it: b of what is text or bytes; n of all else,
// the bits of a floating-point number.
type raw struct {
	n int64
	b []byte
}

// set delivers a value that is not null, made by c's rule.
func (d *Decoder) set(v *change.Value, c *column, r raw) {
	v.State, v.Text = change.Missing, nil
	from, ok := len(d.text), true
	switch c.rule {
	case ruleText:
		v.State, v.Text = change.Text, r.b
	case ruleAnyText:
		_, special := numericNames[string(r.b)]
		v.State, v.Text, ok = change.Text, r.b, !special
	case ruleInteger:
		d.text = appendInteger(d.text, r.n)
	case ruleBoolean:
		d.text = append(d.text, "ft"[r.n&1])
	case ruleBit:
		d.text = append(d.text, "01"[r.n&1])
	case ruleBytes:
		d.text = append(d.text, `\x`...)
		d.text = hex.AppendEncode(d.text, r.b)
	case ruleZonedText:
		if ok = zonedInUTC(r.b); ok {
			v.State, v.Text = change.Text, r.b
		}
	case ruleNumeric:
		v.Text, ok = numericText(r.b)
		v.State = change.Text
	case ruleShownNumeric:
		v.Text, ok = numericText(r.b)
		v.State = change.Text
		if ok {
			d.decimals.met(v, r.b)
		}
	case ruleDecimal:
		if ok = len(r.b) <= decimalBytesMax; ok {
			d.text = appendDecimal(d.text, r.b, c.n)
		}
	case ruleFloat4:
		d.text = appendFloat(d.text, float64(math.Float32frombits(uint32(r.n))), 32)
	case ruleFloat8:
		d.text = appendFloat(d.text, math.Float64frombits(uint64(r.n)), 64)
	case ruleDate:
		d.text, ok = appendDays(d.text, r.n)
	case ruleTimeMilli:
		d.text, ok = appendTime(d.text, r.n, 1000)
	case ruleTimeMicro:
		d.text, ok = appendTime(d.text, r.n, 1)
	case ruleTimeNano:
		if ok = r.n%1000 == 0; ok {
			d.text, ok = appendTime(d.text, r.n/1000, 1)
		}
	case ruleMilli:
		d.text, ok = appendTimestamp(d.text, r.n, 1000)
	case ruleMicro:
		d.text, ok = appendTimestamp(d.text, r.n, 1)
	case ruleNano:
		// Beyond the years that fit, the value is another one.
		if ok = r.n%1000 == 0 && r.n > math.MinInt64+1000 && r.n < math.MaxInt64-1000; ok {
			d.text, ok = appendTimestamp(d.text, r.n/1000, 1)
		}
	case ruleTimestamptz:
		d.text, ok = appendZoned(d.text, r.b)
	case ruleInterval:
		d.text, ok = appendInterval(d.text, r.b)
	case ruleBits:
		d.text, ok = appendBits(d.text, r.b, c.n)
	case ruleHstore:
		if ok = d.readPairs(r.b); ok {
			d.setPairs(v, c)
			return
		}
	case ruleShownBytes:
		if string(r.b) == d.placeholder.text {
			break
		}
		if r.b, ok = d.shownBytes(r.b); ok {
			d.text = append(d.text, `\x`...)
			d.text = hex.AppendEncode(d.text, r.b)
		}
	default:
		ok = false
	}
	switch {
	case string(r.b) == d.placeholder.text:
		v.State, v.Text = change.Unchanged, nil
		d.text = d.text[:from]
		return
	case !ok:
		v.State, v.Text = change.Missing, nil
		d.text = d.text[:from]
		return
	case v.State == change.Missing:
		v.State, v.Text = change.Text, d.text[from:]
	}
	d.doubt(v, c)
}

// doubt notes a value that may stand for a NULL.
func (d *Decoder) doubt(v *change.Value, c *column) {
	if c.doubtful && (c.fallback == nil || bytes.Equal(v.Text, c.fallback)) {
		d.doubted = append(d.doubted, v)
	}
}

// begin forgets what was noted of the values of another message.
func (d *Decoder) begin() {
	d.text, d.doubted = d.text[:0], d.doubted[:0]
	d.decimals.assumed, d.decimals.shown = d.decimals.assumed[:0], false
}

// resolve makes what was noted missing: what may stand for a NULL, unless NULLs
// were kept, and numerics that may be something else, unless one of them shows
// how they are written.
func (d *Decoder) resolve(kept bool) {
	if !kept {
		miss(d.doubted)
	}
	if !d.decimals.shown {
		miss(d.decimals.assumed)
	}
}

func miss(values []*change.Value) {
	for _, v := range values {
		v.State, v.Text = change.Missing, nil
	}
}

// decimals are the numerics of a message without a schema. Its
// decimal.handling.mode is string where one of them shows it. Else digits may be
// the base64 of bytes, and a null NaN: precise writes both so.
type decimals struct {
	shown   bool
	assumed []*change.Value // right if it is shown
}

// met notes a numeric that v has of a text.
func (s *decimals) met(v *change.Value, text []byte) {
	// In base64 there is no sign, no point and no underscore, and characters come
	// by fours.
	if len(text)%4 != 0 || bytes.ContainsAny(text, "-._") {
		s.shown = true
		return
	}
	s.assumed = append(s.assumed, v)
}

// within makes of what was noted of the elements of v, behind the first n, one
// note of v itself.
func (s *decimals) within(v *change.Value, n int) {
	if len(s.assumed) > n {
		s.assumed = append(s.assumed[:n], v)
	}
}

// shownBytes reads bytes that were written as a text in base64, for URLs or not,
// or in hex digits, where only one of them can be meant.
func (d *Decoder) shownBytes(text []byte) (decoded []byte, ok bool) {
	encoding := base64.StdEncoding
	if bytes.ContainsAny(text, "-_") {
		encoding = base64.URLEncoding
	}
	var err error
	d.scratch, err = hex.AppendDecode(d.scratch[:0], text)
	digits := err == nil
	if len(text)%4 == 0 && (!digits || len(text) == 0) {
		d.scratch, err = encoding.AppendDecode(d.scratch[:0], text)
		return d.scratch, err == nil
	}
	return d.scratch, digits && len(text)%4 != 0
}

// numericNames are what Debezium calls numerics that are no numbers.
var numericNames = map[string][]byte{
	"NAN": []byte("NaN"), "POSITIVE_INFINITY": []byte("Infinity"), "NEGATIVE_INFINITY": []byte("-Infinity"),
}

// numericText is the text of a numeric that is written as one.
func numericText(s []byte) (text []byte, ok bool) {
	if text, ok = numericNames[string(s)]; ok {
		return text, true
	}
	digits := s
	if len(digits) > 0 && digits[0] == '-' {
		digits = digits[1:]
	}
	whole, fraction, point := bytes.Cut(digits, []byte{'.'})
	return s, allDigits(whole) && (!point || allDigits(fraction))
}

func allDigits(s []byte) bool {
	for _, c := range s {
		if !isDigit(c) {
			return false
		}
	}
	return len(s) > 0
}

// decimalBytesMax is more than the longest numeric has.
const decimalBytesMax = 64 << 10

// appendDecimal appends an integer, big-endian in two's complement, with its
// last digits behind a point.
func appendDecimal(dst, b []byte, scale int) []byte {
	from := len(dst)
	if len(b) <= 8 {
		var n int64
		if len(b) > 0 && b[0]&0x80 != 0 {
			n = -1
		}
		for _, c := range b {
			n = n<<8 | int64(c)
		}
		dst = strconv.AppendInt(dst, n, 10)
	} else {
		n := new(big.Int).SetBytes(b)
		if b[0]&0x80 != 0 {
			n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
		}
		dst = n.Append(dst, 10)
	}
	if scale == 0 {
		return dst
	}
	if dst[from] == '-' {
		from++
	}
	for len(dst)-from <= scale {
		dst = append(dst, 0)
		copy(dst[from+1:], dst[from:])
		dst[from] = '0'
	}
	point := len(dst) - scale
	dst = append(dst, 0)
	copy(dst[point+1:], dst[point:])
	dst[point] = '.'
	return dst
}

// appendBits appends n bits of a number whose lowest byte comes first.
func appendBits(dst, b []byte, n int) (out []byte, ok bool) {
	for i, c := range b {
		if left := n - 8*i; left <= 0 && c != 0 || left > 0 && left < 8 && c>>left != 0 {
			return dst, false
		}
	}
	for i := n - 1; i >= 0; i-- {
		bit := byte(0)
		if i/8 < len(b) {
			bit = b[i/8] >> (i % 8) & 1
		}
		dst = append(dst, '0'+bit)
	}
	return dst, true
}
