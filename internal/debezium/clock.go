package debezium

import (
	"bytes"
	"math"
	"strconv"
)

// The days and times that PostgreSQL has, since 1970.
const (
	daysMin   = -2440588   // 4714-11-24 BC
	daysMax   = 2145042905 // 5874897-12-31
	microsMin = daysMin * microsOfDay

	microsOfDay = 24 * 60 * 60 * 1e6
)

// What Debezium sends for infinity: days of the log and of a snapshot, and
// microseconds.
const (
	daysInfinity              = -2147472692
	daysMinusInfinity         = -2147472691
	microsInfinity      int64 = 9223372036825200000
	microsMinusInfinity int64 = -9223372036832400000
)

// appendDays appends a date.
func appendDays(dst []byte, days int64) (out []byte, ok bool) {
	switch days {
	case daysInfinity:
		return append(dst, "infinity"...), true
	case daysMinusInfinity:
		return append(dst, "-infinity"...), true
	}
	if days < daysMin || days > daysMax {
		return dst, false
	}
	year, month, day := civil(days)
	return appendEra(appendDate(dst, year, month, day), year), true
}

// civil is the day of the Gregorian calendar; the year before 1 is 0. The
// calendar repeats after 400 years of 146097 days, here from 1 March.
func civil(days int64) (year int64, month, day int) {
	days += 719468 // since 0000-03-01
	era := floor(days, 146097)
	ofEra := days - era*146097
	yearOfEra := (ofEra - ofEra/1460 + ofEra/36524 - ofEra/146096) / 365
	ofYear := ofEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	fromMarch := (5*ofYear + 2) / 153
	day = int(ofYear-(153*fromMarch+2)/5) + 1
	month = int(fromMarch) + 3
	year = yearOfEra + era*400
	if month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}

func floor(n, by int64) int64 {
	q := n / by
	if n%by < 0 {
		q--
	}
	return q
}

// appendDate appends 2024-02-29; the era has its own place.
func appendDate(dst []byte, year int64, month, day int) []byte {
	if year <= 0 {
		year = 1 - year
	}
	for limit := int64(1000); limit > max(year, 1); limit /= 10 {
		dst = append(dst, '0')
	}
	dst = strconv.AppendInt(dst, year, 10)
	dst = append(dst, '-')
	dst = appendTwo(dst, month)
	dst = append(dst, '-')
	return appendTwo(dst, day)
}

func appendEra(dst []byte, year int64) []byte {
	if year <= 0 {
		dst = append(dst, " BC"...)
	}
	return dst
}

func appendTwo(dst []byte, n int) []byte { return append(dst, '0'+byte(n/10), '0'+byte(n%10)) }

// appendTime appends a time of day, given in units of so many microseconds.
func appendTime(dst []byte, n, unit int64) (out []byte, ok bool) {
	if n < 0 || n > microsOfDay/unit {
		return dst, false
	}
	return appendClock(dst, n*unit), true
}

// appendClock appends 12:00:00.5.
func appendClock(dst []byte, micros int64) []byte {
	seconds := int(micros / 1e6)
	dst = appendTwo(dst, seconds/3600)
	dst = append(dst, ':')
	dst = appendTwo(dst, seconds/60%60)
	dst = append(dst, ':')
	dst = appendTwo(dst, seconds%60)
	return appendFraction(dst, int(micros%1e6))
}

// appendFraction appends microseconds without the zeros at their end.
func appendFraction(dst []byte, micros int) []byte {
	if micros == 0 {
		return dst
	}
	dst = append(dst, '.')
	for unit := 100_000; micros > 0; unit /= 10 {
		dst = append(dst, '0'+byte(micros/unit))
		micros %= unit
	}
	return dst
}

// appendTimestamp appends a time since 1970 in units of so many microseconds.
func appendTimestamp(dst []byte, n, unit int64) (out []byte, ok bool) {
	switch {
	case n == microsInfinity/unit:
		return append(dst, "infinity"...), true
	case n == microsMinusInfinity/unit:
		return append(dst, "-infinity"...), true
	case n < microsMin/unit || n > math.MaxInt64/unit:
		return dst, false
	}
	micros := n * unit
	days := floor(micros, microsOfDay)
	year, month, day := civil(days)
	dst = appendDate(dst, year, month, day)
	dst = append(dst, ' ')
	dst = appendClock(dst, micros-days*microsOfDay)
	return appendEra(dst, year), true
}

// appendZoned appends a timestamptz that is written as Java writes it:
// 2024-02-29T12:00:00.5Z, -0043-03-15T12:00:00Z, +20000-01-01T00:00:00Z.
func appendZoned(dst, s []byte) (out []byte, ok bool) {
	if string(s) == "infinity" || string(s) == "-infinity" {
		return append(dst, s...), true
	}
	negative := len(s) > 0 && s[0] == '-'
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		s = s[1:]
	}
	digits := bytes.IndexByte(s, '-')
	if digits < 4 || digits > 6 || !allDigits(s[:digits]) {
		return dst, false
	}
	year, _ := strconv.ParseInt(string(s[:digits]), 10, 64) // digits
	if negative {
		year = -year
	}
	s = s[digits+1:]
	const rest = "00-00T00:00:00"
	if !matches(s, rest) || s[len(s)-1] != 'Z' {
		return dst, false
	}
	fraction := s[len(rest) : len(s)-1]
	if len(fraction) > 0 {
		if fraction[0] != '.' || !allDigits(fraction[1:]) {
			return dst, false
		}
		if fraction = bytes.TrimRight(fraction, "0"); len(fraction) > len(".000000") {
			return dst, false
		}
		fraction = bytes.TrimSuffix(fraction, []byte{'.'})
	}
	dst = appendDate(dst, year, int(two(s)), int(two(s[3:])))
	dst = append(dst, ' ')
	dst = append(dst, s[len("00-00T"):len(rest)]...)
	dst = append(dst, fraction...)
	dst = append(dst, "+00"...)
	return appendEra(dst, year), true
}

func two(s []byte) byte { return (s[0]-'0')*10 + s[1] - '0' }

// matches reports whether s begins with the pattern, in which 0 is any digit,
// and goes on.
func matches(s []byte, pattern string) bool {
	if len(s) <= len(pattern) {
		return false
	}
	for i := range len(pattern) {
		if pattern[i] == '0' && !isDigit(s[i]) || pattern[i] != '0' && pattern[i] != s[i] {
			return false
		}
	}
	return true
}

// zonedInUTC reports whether a range of timestamptz is written in UTC. The
// connector's session has the time zone of its Java machine.
func zonedInUTC(s []byte) bool {
	if string(s) == "empty" {
		return true
	}
	if len(s) < len("(,)") {
		return false
	}
	lower, upper, ok := bytes.Cut(s[1:len(s)-1], []byte{','})
	return ok && boundInUTC(lower) && boundInUTC(upper)
}

func boundInUTC(s []byte) bool {
	s = bytes.TrimSuffix(bytes.Trim(s, `"`), []byte(" BC"))
	return len(s) == 0 || string(s) == "infinity" || string(s) == "-infinity" || bytes.HasSuffix(s, []byte("+00"))
}

// appendInterval appends an interval that is written as P1Y2M3DT4H5M6.789S, in
// which each number may be negative.
func appendInterval(dst, s []byte) (out []byte, ok bool) {
	var parts [5]int64 // years to minutes
	for i, units := range [...]struct{ before, behind byte }{{'P', 'Y'}, {0, 'M'}, {0, 'D'}, {'T', 'H'}, {0, 'M'}} {
		if units.before != 0 {
			if len(s) == 0 || s[0] != units.before {
				return dst, false
			}
			s = s[1:]
		}
		end := bytes.IndexByte(s, units.behind)
		if end < 1 || end > len("-2147483648") {
			return dst, false
		}
		n, err := strconv.ParseInt(string(s[:end]), 10, 32)
		if err != nil {
			return dst, false
		}
		parts[i], s = n, s[end+1:]
	}
	if len(s) < 2 || s[len(s)-1] != 'S' {
		return dst, false
	}
	seconds, fraction, point := bytes.Cut(s[:len(s)-1], []byte{'.'})
	negative := len(seconds) > 0 && seconds[0] == '-'
	if negative {
		seconds = seconds[1:]
	}
	if len(seconds) == 0 || len(seconds) > 2 || !allDigits(seconds) || point && (!allDigits(fraction) || len(fraction) > 9) {
		return dst, false
	}
	second, nanos := 0, 0
	for _, c := range seconds {
		second = second*10 + int(c-'0')
	}
	for unit, i := 100_000_000, 0; i < len(fraction); unit, i = unit/10, i+1 {
		nanos += unit * int(fraction[i]-'0')
	}
	// Java adds whole seconds and microseconds as doubles: 27.646426 is
	// 27.646425999 then.
	switch nanos % 1000 {
	case 0:
	case 999:
		nanos++
	case 1:
		nanos--
	default:
		return dst, false
	}
	micros := nanos / 1000
	if micros == 1_000_000 {
		return dst, false
	}
	years, months, days, hours, minutes := parts[0], parts[1], parts[2], parts[3], parts[4]
	someTime := hours != 0 || minutes != 0 || second != 0 || micros != 0
	below := hours < 0 || minutes < 0 || negative && (second != 0 || micros != 0)
	if months < -11 || months > 11 || years > 0 && months < 0 || years < 0 && months > 0 ||
		minutes < -59 || minutes > 59 || second > 59 ||
		below && (hours > 0 || minutes > 0 || !negative && (second != 0 || micros != 0)) {
		return dst, false
	}
	from := len(dst)
	before := false // the part before was negative, so a positive one shows its sign
	for _, part := range [...]struct {
		n    int64
		unit string
	}{{years, "year"}, {months, "mon"}, {days, "day"}} {
		if part.n == 0 {
			continue
		}
		if len(dst) > from {
			dst = append(dst, ' ')
		}
		if before && part.n > 0 {
			dst = append(dst, '+')
		}
		dst = strconv.AppendInt(dst, part.n, 10)
		dst = append(append(dst, ' '), part.unit...)
		if part.n != 1 {
			dst = append(dst, 's')
		}
		before = part.n < 0
	}
	if !someTime && len(dst) > from {
		return dst, true
	}
	if len(dst) > from {
		dst = append(dst, ' ')
	}
	switch {
	case below:
		dst = append(dst, '-')
	case before:
		dst = append(dst, '+')
	}
	hours, minutes = max(hours, -hours), max(minutes, -minutes)
	if hours < 10 {
		dst = append(dst, '0')
	}
	dst = strconv.AppendInt(dst, hours, 10)
	dst = append(dst, ':')
	dst = appendTwo(dst, int(minutes))
	dst = append(dst, ':')
	dst = appendTwo(dst, second)
	return appendFraction(dst, micros), true
}
