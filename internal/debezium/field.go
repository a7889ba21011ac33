package debezium

import (
	"encoding/json"
	"strconv"
)

// A field is one column of a row, or a part of a key, as a message describes it.
type field struct {
	name       string // adjusted to Avro's rules, maybe
	json       bool   // of a message in JSON
	form       form
	bits       int    // of formInteger
	logical    string // what Connect calls the type: io.debezium.time.Date
	parameters map[string]string
	// nullable: a NULL can be told from a value.
	nullable bool
	fallback json.RawMessage // the default, nil if there is none
	element  *field          // of formArray
}

// form is how a value is written.
type form uint8

const (
	// formUnknown: JSON without a schema.
	formUnknown form = iota
	formBoolean
	formInteger
	formFloat
	formDouble
	formText
	formBytes
	formArray
	formMap // of texts
	formOther
)

// What Connect, Debezium and its PostgreSQL connector call their types.
const (
	logicalDecimal = "org.apache.kafka.connect.data.Decimal"

	logicalDate           = "io.debezium.time.Date"
	logicalTime           = "io.debezium.time.Time"
	logicalMicroTime      = "io.debezium.time.MicroTime"
	logicalNanoTime       = "io.debezium.time.NanoTime"
	logicalTimestamp      = "io.debezium.time.Timestamp"
	logicalMicroTimestamp = "io.debezium.time.MicroTimestamp"
	logicalNanoTimestamp  = "io.debezium.time.NanoTimestamp"
	logicalZonedTimestamp = "io.debezium.time.ZonedTimestamp"
	logicalInterval       = "io.debezium.time.Interval"

	logicalBits     = "io.debezium.data.Bits"
	logicalEnum     = "io.debezium.data.Enum"
	logicalJSON     = "io.debezium.data.Json"
	logicalUUID     = "io.debezium.data.Uuid"
	logicalXML      = "io.debezium.data.Xml"
	logicalLtree    = "io.debezium.data.Ltree"
	logicalTsvector = "io.debezium.data.Tsvector"
)

// What column.propagate.source.type adds to a field's parameters.
const (
	parameterName   = "__debezium.source.column.name"
	parameterType   = "__debezium.source.column.type"
	parameterScale  = "scale"  // of a Decimal
	parameterLength = "length" // of Bits
)

// number is a parameter that is a number.
func (f *field) number(parameter string) (n int, ok bool) {
	n, err := strconv.Atoi(f.parameters[parameter])
	return n, err == nil
}

// fieldOf describes a field of an Avro record.
func fieldOf(a *avroField) field {
	f := describe(a.of)
	f.name = a.name
	if f.nullable && f.fallback == nil && a.fallback != nil && string(a.fallback) != "null" {
		f.fallback = a.fallback
	}
	return f
}

func describe(t *avroType) (f field) {
	if of, null := nullable(t); null != nullNever {
		f = describe(of)
		f.nullable = true
		return f
	}
	f = field{logical: t.logical, parameters: t.parameters, fallback: t.fallback}
	switch t.kind {
	case avroBoolean:
		f.form = formBoolean
	case avroInt:
		f.form, f.bits = formInteger, 32
		switch t.connect {
		case "int8":
			f.bits = 8
		case "int16":
			f.bits = 16
		}
	case avroLong:
		f.form, f.bits = formInteger, 64
	case avroFloat:
		f.form = formFloat
	case avroDouble:
		f.form = formDouble
	case avroString, avroEnum:
		f.form = formText
	case avroBytes, avroFixed:
		f.form = formBytes
	case avroArray:
		element := describe(t.element)
		f.form, f.element = formArray, &element
	case avroMap:
		if value := describe(t.element); value.form == formText {
			f.form = formMap
			break
		}
		f.form = formOther
	default:
		f.form = formOther
	}
	return f
}
