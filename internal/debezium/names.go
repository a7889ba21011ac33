package debezium

import (
	"strconv"
	"strings"
	"unicode/utf16"
)

// adjusted reports whether Debezium's field.name.adjustment.mode, avro or
// avro_unicode, makes name of the column's name.
func adjusted(column, name string) bool {
	return name == adjustLossy(column) || name == adjustUnicode(column)
}

// adjustLossy puts an underscore for what no name in Avro may have.
func adjustLossy(column string) string {
	var b strings.Builder
	for i, unit := range utf16.Encode([]rune(column)) {
		switch {
		case isLetter(unit) || unit == '_' || isDigit(unit) && i > 0:
			b.WriteByte(byte(unit))
		case isDigit(unit):
			b.WriteByte('_')
			b.WriteByte(byte(unit))
		default:
			b.WriteByte('_')
		}
	}
	return b.String()
}

// adjustUnicode writes it, and each underscore too, as _u and its code in hex:
// four digits, but three for a code of one digit or of three.
func adjustUnicode(column string) string {
	var b strings.Builder
	for i, unit := range utf16.Encode([]rune(column)) {
		if isLetter(unit) || isDigit(unit) && i > 0 {
			b.WriteByte(byte(unit))
			continue
		}
		b.WriteString("_u")
		code := strconv.FormatUint(uint64(unit), 16)
		if len(code) <= 2 {
			b.WriteString("00")
		}
		b.WriteString(code)
	}
	return b.String()
}

func isLetter(unit uint16) bool { return 'a' <= unit && unit <= 'z' || 'A' <= unit && unit <= 'Z' }

func isDigit[T byte | uint16](unit T) bool { return '0' <= unit && unit <= '9' }

// columnNames returns for each field the name of its column, among those that
// the catalog has. A field is its column where the names are equal or one of the
// adjustments makes them so, and no other column can be meant. known says
// whether that is so; where it is not, the field's own name stands.
func columnNames(fields []field, columns []string) (names []string, known []bool) {
	names, known = make([]string, len(fields)), make([]bool, len(fields))
	fieldNames := make(map[string]bool, len(fields))
	for i := range fields {
		fieldNames[fields[i].name] = true
	}
	taken := make(map[string]int, len(fields)) // how many fields mean a column
	for i := range fields {
		f := &fields[i]
		names[i] = f.name
		if name, ok := f.parameters[parameterName]; ok {
			names[i], known[i] = name, true
			taken[name]++
			continue
		}
		found := 0
		for _, column := range columns {
			// A column that another field is named after is not this one.
			if column == f.name || adjusted(column, f.name) && !fieldNames[column] {
				names[i] = column
				found++
			}
		}
		if known[i] = found == 1; !known[i] {
			names[i] = f.name
			continue
		}
		taken[names[i]]++
	}
	for i := range fields {
		if known[i] && taken[names[i]] > 1 {
			names[i], known[i] = fields[i].name, false
		}
	}
	return names, known
}
