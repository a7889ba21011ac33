package debezium

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/value"
)

// A column says how the text of a column is made of what a message has.
type column struct {
	rule rule
	// scale of ruleDecimal, length of ruleBits.
	n       int
	element *column // of ruleArray
	// null is what a null in the message means: change.Missing where it may
	// stand for something else.
	null change.ValueState
	// doubtful: a NULL may show as the default, whose text is fallback, nil if
	// it is not known.
	doubtful bool
	fallback []byte
}

// rule is one way to make a text.
type rule uint8

const (
	// ruleNone: the text cannot be known.
	ruleNone rule = iota
	ruleInteger
	ruleBoolean
	ruleText         // as it is
	ruleAnyText      // as it is, of a type that is not known
	ruleZonedText    // a range of timestamptz: as it is, if its times are in UTC
	ruleBytes        // as \x and hex digits
	ruleShownBytes   // bytes that the connector wrote as text, if that shows how
	ruleNumeric      // text, with names of its own for what is no number
	ruleShownNumeric // the same, if the message shows that it is text
	ruleDecimal      // the bytes of an integer, with a scale
	ruleFloat4
	ruleFloat8
	ruleDate        // days
	ruleTimeMilli   // milliseconds of the day
	ruleTimeMicro   // microseconds
	ruleTimeNano    // nanoseconds
	ruleMilli       // timestamp: milliseconds since 1970
	ruleMicro       // microseconds
	ruleNano        // nanoseconds
	ruleTimestamptz // ISO 8601 in UTC
	ruleInterval    // ISO 8601
	ruleHstore      // JSON
	ruleMap         // hstore too
	ruleBits        // little-endian bytes
	ruleBit         // a boolean
	ruleArray
)

// OIDs of PostgreSQL's own types that Debezium converts without loss.
const (
	oidBool        = 16
	oidBytea       = 17
	oidChar        = 18
	oidInt8        = 20
	oidInt2        = 21
	oidInt2vector  = 22
	oidInt4        = 23
	oidText        = 25
	oidOid         = 26
	oidOidvector   = 30
	oidJSON        = 114
	oidXML         = 142
	oidCidr        = 650
	oidFloat4      = 700
	oidFloat8      = 701
	oidMacaddr8    = 774
	oidMacaddr     = 829
	oidInet        = 869
	oidBpchar      = 1042
	oidVarchar     = 1043
	oidDate        = 1082
	oidTime        = 1083
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidInterval    = 1186
	oidBit         = 1560
	oidNumeric     = 1700
	oidUUID        = 2950
	oidTsvector    = 3614
	oidJSONB       = 3802
	oidInt4Range   = 3904
	oidNumRange    = 3906
	oidTsRange     = 3908
	oidTstzRange   = 3910
	oidDateRange   = 3912
	oidInt8Range   = 3926
)

// textual are types of which Debezium sends PostgreSQL's text. The type name is
// not one of them: the log's texts of it are sent as null.
var textual = map[uint32]bool{
	oidChar: true, oidText: true, oidBpchar: true, oidVarchar: true,
	oidUUID: true, oidJSON: true, oidJSONB: true, oidXML: true, oidTsvector: true,
	oidInet: true, oidCidr: true, oidMacaddr: true, oidMacaddr8: true,
	oidInt4Range: true, oidInt8Range: true, oidNumRange: true, oidTsRange: true, oidDateRange: true,
}

// markedInArrays are the types of whose arrays Debezium marks one that an update
// did not touch. Others are sent as null then.
var markedInArrays = map[uint32]bool{
	oidInt4: true, oidInt8: true, oidText: true, oidVarchar: true, oidBpchar: true,
	oidUUID: true, oidBytea: true, oidJSON: true, oidJSONB: true,
}

// exactInArray reports whether Debezium converts elements by that rule without
// loss. It cuts times to milliseconds, takes the era off dates and timestamps,
// and reckons those by the Julian calendar before 1582.
func exactInArray(r rule) bool {
	switch r {
	case ruleInteger, ruleBoolean, ruleText, ruleZonedText, ruleBytes, ruleShownBytes,
		ruleNumeric, ruleShownNumeric, ruleFloat4, ruleFloat8, ruleHstore, ruleMap:
		return true
	}
	return false
}

// bitsInline is how many bits are never so long that PostgreSQL stores them
// elsewhere.
const bitsInline = 64

// bitsMax is how long a bit string may be: its length is not seen in a message.
const bitsMax = 64 << 10

// columnOf says how the text of a column of type t is made of field f. typeMod
// is that of the column, -1 if there is none or it is not known.
func (d *Decoder) columnOf(t *value.Type, typeMod int32, f *field) *column {
	if t == nil {
		return d.columnBy(ruleNone, 0, f)
	}
	r, n := d.ruleOf(t, typeMod, f)
	if r != ruleArray {
		return d.columnBy(r, n, f)
	}
	element := f.element
	if element == nil {
		element = &field{json: true} // without a schema
	}
	c := d.columnOf(t.Element, typeMod, element)
	if !exactInArray(c.rule) || t.Element.OID == oidTsvector {
		return d.columnBy(ruleNone, 0, f)
	}
	array := d.columnBy(ruleArray, 0, f)
	array.element = c
	if !markedInArrays[t.Element.OID] || t.Element.OID == oidBytea && c.rule != ruleBytes {
		array.null = change.Missing
	}
	return array
}

// columnBy says the same of a rule.
func (d *Decoder) columnBy(r rule, n int, f *field) *column {
	c := &column{rule: r, n: n, null: change.Null}
	switch {
	case r == ruleNone: // what Debezium cannot convert is null
		return &column{null: change.Missing}
	case r == ruleDecimal: // NaN is null
		c.null = change.Missing
	case r == ruleShownBytes, r == ruleBits && n > bitsInline: // what an update did not touch is null
		c.null = change.Missing
	}
	if hasFallback(f) {
		c.doubtful = true
		c.fallback = d.fallbackText(c, f)
	}
	return c
}

// ruleOf is a matrix of what a type is and how it is written. Where it is not
// written as Debezium writes the type, nothing is known: the catalog is of
// another day than the message.
func (d *Decoder) ruleOf(t *value.Type, typeMod int32, f *field) (r rule, n int) {
	switch t.Kind {
	case value.Enum:
		return f.when(ruleText, formText, "", logicalEnum), 0
	case value.Array:
		if t.OID == oidInt2vector || t.OID == oidOidvector {
			return ruleNone, 0
		}
		if f.form == formArray && t.Element != nil && t.Delimiter == ',' || f.form == formUnknown {
			return ruleArray, 0
		}
		return ruleNone, 0
	case value.Composite:
		return ruleNone, 0
	}
	switch t.OID {
	case oidInt2, oidInt4, oidInt8, oidOid:
		return f.when(ruleInteger, formInteger, ""), 0
	case oidBool:
		return f.when(ruleBoolean, formBoolean, ""), 0
	case oidFloat4:
		return f.when(ruleFloat4, formFloat, ""), 0
	case oidFloat8:
		return f.when(ruleFloat8, formDouble, ""), 0
	case oidNumeric:
		return f.numeric(typeMod)
	case oidBytea:
		return f.bytea(), 0
	case oidDate:
		// A number is days, whatever the mode: only isostring writes texts.
		return f.when(ruleDate, formInteger, logicalDate), 0
	case oidTime:
		return f.time(typeMod), 0
	case oidTimestamp:
		return f.timestamp(typeMod), 0
	case oidTimestamptz:
		return f.when(ruleTimestamptz, formText, logicalZonedTimestamp), 0
	case oidInterval:
		return f.when(ruleInterval, formText, logicalInterval), 0
	case oidBit:
		return f.bit(typeMod)
	case oidTstzRange:
		return f.when(ruleZonedText, formText, ""), 0
	}
	if textual[t.OID] {
		return f.when(ruleText, formText, "", logicalJSON, logicalUUID, logicalXML, logicalTsvector), 0
	}
	_, name, qualified := strings.Cut(t.Name, ".")
	if !qualified {
		name = t.Name
	}
	switch {
	case t.Kind != value.Base:
	case t.Cast == "hstore.hstore_to_json":
		if f.form == formMap {
			return ruleMap, 0
		}
		return f.when(ruleHstore, formText, logicalJSON), 0
	case name == "citext":
		return f.when(ruleText, formText, ""), 0
	case name == "ltree":
		return f.when(ruleText, formText, logicalLtree), 0
	}
	return ruleNone, 0
}

func (f *field) numeric(typeMod int32) (r rule, n int) {
	scale := int(typeMod-4) & 0x7ff
	if scale >= 0x400 {
		scale -= 0x800
	}
	switch f.form {
	case formUnknown:
		return ruleShownNumeric, 0
	case formText:
		return f.when(ruleNumeric, formText, ""), 0
	case formBytes:
		if written, ok := f.number(parameterScale); ok && written == scale && typeMod >= 4 && scale >= 0 {
			return f.when(ruleDecimal, formBytes, logicalDecimal), scale
		}
	}
	return ruleNone, 0
}

func (f *field) bytea() rule {
	if f.form == formBytes {
		return f.when(ruleBytes, formBytes, "")
	}
	return f.when(ruleShownBytes, formText, "")
}

// milliseconds reports whether a time of that precision has no more than
// milliseconds.
func milliseconds(typeMod int32) bool { return 0 <= typeMod && typeMod <= 3 }

// time and timestamp need a schema: a number alone may count milliseconds,
// microseconds or nanoseconds.
func (f *field) time(typeMod int32) rule {
	switch {
	case f.form == formInteger && f.logical == logicalTime && milliseconds(typeMod):
		return ruleTimeMilli
	case f.form == formInteger && f.logical == logicalMicroTime:
		return ruleTimeMicro
	case f.form == formInteger && f.logical == logicalNanoTime:
		return ruleTimeNano
	}
	return ruleNone
}

func (f *field) timestamp(typeMod int32) rule {
	switch {
	case f.form == formInteger && f.logical == logicalTimestamp && milliseconds(typeMod):
		return ruleMilli
	case f.form == formInteger && f.logical == logicalMicroTimestamp:
		return ruleMicro
	case f.form == formInteger && f.logical == logicalNanoTimestamp:
		return ruleNano
	}
	return ruleNone
}

func (f *field) bit(length int32) (r rule, n int) {
	switch {
	case length == 1:
		return f.when(ruleBit, formBoolean, ""), 0
	case length < 1, length > bitsMax:
		return ruleNone, 0
	case f.form == formUnknown:
		return ruleBits, int(length)
	}
	if written, ok := f.number(parameterLength); !ok || written != int(length) {
		return ruleNone, 0
	}
	return f.when(ruleBits, formBytes, logicalBits), int(length)
}

// when is r if the field is written in the form with one of the logical types;
// in a message without a schema it may be.
func (f *field) when(r rule, written form, logical ...string) rule {
	if f.form == formUnknown {
		return r
	}
	if f.form != written {
		return ruleNone
	}
	for _, l := range logical {
		if f.logical == l {
			return r
		}
	}
	return ruleNone
}

// hasFallback reports whether a NULL may show as a default.
func hasFallback(f *field) bool {
	return f.fallback != nil && f.nullable && !bytes.Equal(bytes.TrimSpace(f.fallback), []byte("null"))
}

// fallbackText is the text of a column's default, nil if it is not known.
func (d *Decoder) fallbackText(c *column, f *field) []byte {
	r, ok := rawFallback(f)
	if !ok {
		return nil
	}
	certain := *c
	certain.doubtful = false
	var v change.Value
	if d.set(&v, &certain, r); v.State != change.Text {
		return nil
	}
	return append([]byte{}, v.Text...)
}

// rawFallback reads a default, which a schema has in JSON.
func rawFallback(f *field) (r raw, ok bool) {
	var err error
	switch f.form {
	case formBoolean:
		var b bool
		if err = json.Unmarshal(f.fallback, &b); b {
			r.n = 1
		}
	case formInteger:
		err = json.Unmarshal(f.fallback, &r.n)
	case formFloat:
		var number float32
		err = json.Unmarshal(f.fallback, &number)
		r.n = int64(math.Float32bits(number))
	case formDouble:
		var number float64
		err = json.Unmarshal(f.fallback, &number)
		r.n = int64(math.Float64bits(number))
	case formText:
		var s string
		err = json.Unmarshal(f.fallback, &s)
		r.b = []byte(s)
	case formBytes:
		if f.json {
			err = json.Unmarshal(f.fallback, &r.b)
			break
		}
		var s string // of a character for each byte
		err = json.Unmarshal(f.fallback, &s)
		for _, c := range s {
			if c > 0xff {
				return raw{}, false
			}
			r.b = append(r.b, byte(c))
		}
	default:
		return raw{}, false
	}
	return r, err == nil
}
