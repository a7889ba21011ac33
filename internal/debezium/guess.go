package debezium

import (
	"strings"

	"github.com/unstale/unstale/internal/value"
)

// builtIn are PostgreSQL's own types that Debezium converts, by the name that
// column.propagate.source.type gives them; array is the oid of the array.
var builtIn = map[string]struct{ oid, array uint32 }{
	"BOOL": {oidBool, 1000}, "BYTEA": {oidBytea, 1001}, "CHAR": {oidChar, 1002},
	"INT2": {oidInt2, 1005}, "INT4": {oidInt4, 1007}, "INT8": {oidInt8, 1016}, "OID": {oidOid, 1028},
	"SMALLSERIAL": {oidInt2, 0}, "SERIAL": {oidInt4, 0}, "BIGSERIAL": {oidInt8, 0},
	"FLOAT4": {oidFloat4, 1021}, "FLOAT8": {oidFloat8, 1022}, "NUMERIC": {oidNumeric, 1231},
	"TEXT": {oidText, 1009}, "VARCHAR": {oidVarchar, 1015}, "BPCHAR": {oidBpchar, 1014}, "UUID": {oidUUID, 2951},
	"JSON": {oidJSON, 199}, "JSONB": {oidJSONB, 3807}, "XML": {oidXML, 0}, "TSVECTOR": {oidTsvector, 0},
	"INET": {oidInet, 1041}, "CIDR": {oidCidr, 651}, "MACADDR": {oidMacaddr, 1040}, "MACADDR8": {oidMacaddr8, 775},
	"DATE": {oidDate, 0}, "TIME": {oidTime, 0}, "TIMESTAMP": {oidTimestamp, 0}, "TIMESTAMPTZ": {oidTimestamptz, 0}, "INTERVAL": {oidInterval, 0},
	"INT4RANGE": {oidInt4Range, 3905}, "INT8RANGE": {oidInt8Range, 3927}, "NUMRANGE": {oidNumRange, 3907},
	"TSRANGE": {oidTsRange, 3909}, "TSTZRANGE": {oidTstzRange, 3911}, "DATERANGE": {oidDateRange, 3913},
}

// builtInTypes are the same by oid, with arrays.
var builtInTypes = func() map[uint32]*value.Type {
	types := map[uint32]*value.Type{}
	for name, b := range builtIn {
		if strings.HasSuffix(name, "SERIAL") {
			continue
		}
		t := &value.Type{OID: b.oid, Name: strings.ToLower(name)}
		types[b.oid] = t
		if b.array != 0 {
			types[b.array] = &value.Type{OID: b.array, Name: t.Name + "[]", Kind: value.Array, Element: t, Delimiter: ','}
		}
	}
	return types
}()

// guess says what type a column has of a table that nobody described, 0 if that is
// in doubt, and how its text is made. The text may be known where the type is not:
// a key can be made of it, and no value.
func (d *Decoder) guess(f *field) (oid uint32, how *column) {
	name, named := f.parameters[parameterType]
	if named {
		if element, array := strings.CutPrefix(name, "_"); array {
			oid = builtIn[element].array
		} else {
			oid = builtIn[name].oid
		}
		if t := builtInTypes[oid]; t != nil {
			return oid, d.columnOf(t, f.precision(), f)
		}
	}
	// By the form alone. A boolean may be a bit, a double a numeric, bytes may be
	// the text of anything; a text of a type that is named and not known may be
	// money.
	switch {
	case f.form == formInteger && f.logical == "":
		// A long may be an oid, whose JSON is another.
		if f.bits < 64 {
			oid = oidInt4
		}
		return oid, d.columnBy(ruleInteger, 0, f)
	case f.form == formFloat && f.logical == "":
		return oidFloat4, d.columnBy(ruleFloat4, 0, f)
	case f.form == formText && f.logical == logicalEnum:
		return 0, d.columnBy(ruleAnyText, 0, f)
	case f.form == formText && f.logical == "" && (!named || name == "CITEXT"):
		return 0, d.columnBy(ruleAnyText, 0, f)
	case f.form == formText && f.logical == logicalUUID:
		oid = oidUUID
	case f.logical == logicalDate:
		oid = oidDate
	case f.logical == logicalTime, f.logical == logicalMicroTime, f.logical == logicalNanoTime:
		oid = oidTime
	case f.logical == logicalTimestamp, f.logical == logicalMicroTimestamp, f.logical == logicalNanoTimestamp:
		oid = oidTimestamp
	case f.logical == logicalZonedTimestamp:
		oid = oidTimestamptz
	case f.logical == logicalInterval:
		oid = oidInterval
	}
	return oid, d.columnOf(builtInTypes[oid], f.precision(), f)
}

// precision is what the schema shows of a column's type modifier, -1 if nothing:
// Debezium counts milliseconds where a time or a timestamp has no more.
func (f *field) precision() int32 {
	if f.logical == logicalTime || f.logical == logicalTimestamp {
		return 3
	}
	return -1
}
