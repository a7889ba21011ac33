package guard

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Template is the name of an entry's keys: literal text with a {column} where
// a value goes, and {{ and }} for literal braces (Cluster hash tags).
//
// Two rows never share a key and no value can change a key's slot: in a value,
// '{', '}', '%' and control characters are percent-encoded, and ':' too where
// the template has several placeholders. Ordinary ids look as one expects:
// product:101.
type Template struct {
	text string
	// literals[i] stands before placeholder i; the last stands behind all.
	literals []string
	columns  []string
	pattern  *regexp.Regexp
	letters  string // of the values that Matches knows; see Letters
}

// A TemplateError says what is wrong with a template, and at which byte.
type TemplateError struct {
	Offset int
	Text   string
	Mend   string
}

func (e *TemplateError) Error() string { return e.Text + "; " + e.Mend }

// ParseTemplate reads a key template. Its error is always a *TemplateError.
func ParseTemplate(text string) (*Template, error) {
	t := &Template{text: text}
	if !utf8.ValidString(text) {
		at := strings.IndexFunc(text, func(r rune) bool { return r == utf8.RuneError })
		return nil, &TemplateError{at, "a key that is not UTF-8", "write it in UTF-8"}
	}
	var literal strings.Builder
	var starts []int // offset of each placeholder's '{'
	var closes []int // offset of each literal '}'
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case strings.HasPrefix(text[i:], "{{"), strings.HasPrefix(text[i:], "}}"):
			if c == '}' {
				closes = append(closes, i)
			}
			literal.WriteByte(c)
			i += 2
		case c == '{':
			length := strings.IndexByte(text[i+1:], '}')
			if length < 0 {
				return nil, &TemplateError{i, "a placeholder that does not end", "close it with }, or write {{ for a literal brace"}
			}
			column := text[i+1 : i+1+length]
			if column == "" {
				return nil, &TemplateError{i, "an empty placeholder", "name a column between { and }"}
			}
			if at := strings.IndexByte(column, '{'); at >= 0 {
				return nil, &TemplateError{i + 1 + at, "a { inside a placeholder", "write {{ for a literal brace"}
			}
			if slices.Contains(t.columns, column) {
				return nil, &TemplateError{i, fmt.Sprintf("column %q twice", column), "once is enough to tell two rows apart"}
			}
			t.literals = append(t.literals, literal.String())
			t.columns = append(t.columns, column)
			starts = append(starts, i)
			literal.Reset()
			i += length + 2
		case c == '}':
			return nil, &TemplateError{i, "a } that closes nothing", "write }} for a literal brace"}
		case c < ' ' || c == 0x7f:
			return nil, &TemplateError{i, "a control character in a key", "leave it out"}
		default:
			literal.WriteByte(c)
			i++
		}
	}
	t.literals = append(t.literals, literal.String())

	if text == "" {
		return nil, &TemplateError{0, "an empty key", "write a template such as product:{id}"}
	}
	for i := 1; i < len(t.columns); i++ {
		if !strings.ContainsAny(t.literals[i], ":{}") {
			return nil, &TemplateError{starts[i], fmt.Sprintf("nothing divides {%s} from {%s}: two rows could share a key", t.columns[i-1], t.columns[i]), "put a : between them"}
		}
	}
	if strings.HasPrefix(t.literals[0], "unstale:") {
		return nil, &TemplateError{0, "keys that begin with unstale: are the service's own", "choose another beginning"}
	}
	if meet(t.elements(anyText), watermarks()) {
		return nil, &TemplateError{0, "a value could make this a key of the service's own (unstale:{...)", "begin with a literal text, such as x:"}
	}
	sample := t.Key(slices.Repeat([]string{"x"}, len(t.columns))...)
	if _, side := DataKey(sample); side {
		return nil, &TemplateError{0, "keys of this form are the service's own side keys", "choose another ending than :l"}
	}
	if _, ok := SideKey(sample); !ok {
		return nil, &TemplateError{closes[0], "a key with a } but no hash tag: its slot can hold no side key", "write {{tag}} for a hash tag, or leave the braces out"}
	}
	t.pattern = t.compile()
	return t, nil
}

// String returns the template as it was written.
func (t *Template) String() string { return t.text }

// Columns returns the names of the placeholders, in their order.
func (t *Template) Columns() []string { return t.columns }

// AppendLiteral appends the literal text before placeholder i; i = len(Columns())
// is the text behind the last. Together with AppendValue it renders a key
// without gathering the values first.
func (t *Template) AppendLiteral(dst []byte, i int) []byte {
	return append(dst, t.literals[i]...)
}

// AppendValue appends the encoded value of one placeholder.
func (t *Template) AppendValue(dst, value []byte) []byte {
	return appendEncoded(dst, value, len(t.columns) > 1)
}

// appendEncoded appends a value; several: it is one of several in a name.
func appendEncoded(dst, value []byte, several bool) []byte {
	for i := range value {
		if !encoded(value[i], several) {
			continue
		}
		const hex = "0123456789ABCDEF"
		dst = append(dst, value[:i]...)
		for _, c := range value[i:] {
			if encoded(c, several) {
				dst = append(dst, '%', hex[c>>4], hex[c&15])
			} else {
				dst = append(dst, c)
			}
		}
		return dst
	}
	return append(dst, value...)
}

func encoded(c byte, several bool) bool {
	return c < ' ' || c == '{' || c == '}' || c == '%' || c == 0x7f || several && c == ':'
}

// Around returns the text of the template around those of its placeholders that are
// known: with their values, as AppendValue has them, in between it is the template of
// the keys that have these values. Other texts may be too, where a single placeholder
// is left: it takes a ':'.
func (t *Template) Around(known func(placeholder int) bool) []string {
	var around []string
	var text strings.Builder
	for i, literal := range t.literals {
		text.WriteString(braces.Replace(literal))
		switch {
		case i == len(t.columns):
		case known(i):
			around = append(around, text.String())
			text.Reset()
		default:
			text.WriteString("{" + t.columns[i] + "}")
		}
	}
	return append(around, text.String())
}

var braces = strings.NewReplacer("{", "{{", "}", "}}")

// Key renders the key of one row: one value for each column, as PostgreSQL
// prints it. It panics if the number of values is not that of Columns.
func (t *Template) Key(values ...string) string {
	if len(values) != len(t.columns) {
		panic(fmt.Sprintf("key template %q has %d columns, got %d values", t.text, len(t.columns), len(values)))
	}
	var key []byte
	for i, value := range values {
		key = t.AppendLiteral(key, i)
		key = t.AppendValue(key, []byte(value))
	}
	return string(t.AppendLiteral(key, len(values)))
}

// Matches reports whether key could be a key of this template.
func (t *Template) Matches(key string) bool {
	return strings.HasPrefix(key, t.literals[0]) && t.pattern.MatchString(key)
}

// Values returns the values that Key rendered as key; ok is false if key is not
// one of this template. What divides two placeholders holds a character that no
// value does, so there is one way to read a key.
func (t *Template) Values(key string) (values []string, ok bool) {
	found := t.pattern.FindStringSubmatch(key)
	if found == nil {
		return nil, false
	}
	for _, text := range found[1:] {
		values = append(values, decode(text))
	}
	return values, true
}

func decode(text string) string {
	at := strings.IndexByte(text, '%')
	if at < 0 {
		return text
	}
	decoded := []byte(text[:at])
	for i := at; i < len(text); i++ {
		c := text[i]
		if c == '%' {
			n, err := strconv.ParseUint(text[i+1:i+3], 16, 8)
			if err != nil {
				panic(fmt.Sprintf("key template: %q matches and cannot be decoded", text))
			}
			c, i = byte(n), i+2
		}
		decoded = append(decoded, c)
	}
	return string(decoded)
}

// Narrow returns the template with a Matches that knows the letters of the values:
// of customer:{id} with whole numbers customer:cart:77 is no key. Letters that are
// not those of a key like this one leave it as it is.
func (t *Template) Narrow(letters string) *Template {
	if len(letters) != len(t.columns) {
		return t
	}
	narrow := *t
	narrow.letters = letters
	narrow.pattern = narrow.compile()
	return &narrow
}

func (t *Template) compile() *regexp.Regexp {
	text := `((?:[^\x00-\x1f\x7f{}%]|%[0-9A-F]{2})*)`
	if len(t.columns) > 1 {
		text = `((?:[^\x00-\x1f\x7f{}%:]|%[0-9A-F]{2})*)`
	}
	var pattern strings.Builder
	pattern.WriteString(`\A(?s:`)
	for i, literal := range t.literals {
		if i > 0 {
			value := text
			if t.letters != "" {
				value = cmp.Or(valuePatterns[t.letters[i-1]], text)
			}
			pattern.WriteString(value)
		}
		pattern.WriteString(regexp.QuoteMeta(literal))
	}
	pattern.WriteString(`)\z`)
	return regexp.MustCompile(pattern.String())
}

// Alphabet says which characters the text of a column can hold, as far as two
// templates can be told apart by it.
type Alphabet uint8

const (
	// AnyText: every character.
	AnyText Alphabet = iota
	// Word: every character but ':'. What can be assumed at best of a column
	// whose type is not known.
	Word
	// Integer: digits and '-'.
	Integer
	// UUID: hexadecimal digits and '-'.
	UUID
	// Boolean: t and f.
	Boolean
)

// Letters names alphabets, those of the placeholders of a key in their order, for
// Narrow and to be noted. It is empty where all of them are free text.
func Letters(alphabets ...Alphabet) string {
	letters := make([]byte, len(alphabets))
	known := false
	for i, a := range alphabets {
		switch letters[i] = '*'; a {
		case Integer:
			letters[i] = 'i'
		case UUID:
			letters[i] = 'u'
		case Boolean:
			letters[i] = 'b'
		}
		known = known || letters[i] != '*'
	}
	if !known {
		return ""
	}
	return string(letters)
}

// valuePatterns match all values as PostgreSQL prints them, and few others.
var valuePatterns = map[byte]string{
	'i': `(-?[0-9]+)`,
	'u': `([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})`,
	'b': `([tf])`,
}

func (a Alphabet) holds(c byte) bool {
	switch a {
	case Word:
		return c != ':'
	case Integer:
		return c == '-' || '0' <= c && c <= '9'
	case UUID:
		return c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'f'
	case Boolean:
		return c == 't' || c == 'f'
	}
	return true
}

// Collide reports whether a key of t could be a key of other, or the key of one
// the side key of the other. alphabet gives the alphabet of a column of either.
// It may err towards true.
func (t *Template) Collide(other *Template, alphabet, otherAlphabet func(column string) Alphabet) bool {
	a, b := t.elements(alphabet), other.elements(otherAlphabet)
	return meet(a, b) || meet(sideElements(a), b) || meet(a, sideElements(b))
}

// meet reports whether a and b can spell the same text. No elements are no
// text.
func meet(a, b []element) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	// seen[i][j]: that a[i:] and b[j:] could meet was tried.
	seen := make([][]bool, len(a)+1)
	for i := range seen {
		seen[i] = make([]bool, len(b)+1)
	}
	var from func(i, j int) bool
	from = func(i, j int) bool {
		if seen[i][j] {
			return false
		}
		seen[i][j] = true
		if i == len(a) && j == len(b) {
			return true
		}
		// A placeholder may spell nothing more.
		if i < len(a) && a[i].any != nil && from(i+1, j) || j < len(b) && b[j].any != nil && from(i, j+1) {
			return true
		}
		if i == len(a) || j == len(b) {
			return false
		}
		switch x, y := a[i], b[j]; {
		case x.any == nil && y.any == nil:
			return x.char == y.char && from(i+1, j+1)
		case x.any != nil && y.any == nil:
			return x.any(y.char) && from(i, j+1)
		case x.any == nil && y.any != nil:
			return y.any(x.char) && from(i+1, j)
		}
		return false
	}
	return from(0, 0)
}

// element of a template: one literal character, or any number of characters
// for which any is true.
type element struct {
	char byte
	any  func(byte) bool
}

func (t *Template) elements(alphabet func(string) Alphabet) []element {
	var elements []element
	several := len(t.columns) > 1
	for i, literal := range t.literals {
		if i > 0 {
			letters := alphabet(t.columns[i-1])
			elements = append(elements, element{any: func(c byte) bool {
				// '%' begins an encoded character of a free text.
				return c == '%' && letters <= Word || !encoded(c, several) && letters.holds(c)
			}})
		}
		elements = append(elements, spell(literal)...)
	}
	return elements
}

// sideElements spells the side keys of the keys that elements spells; nil if
// they have none. Values bring no braces into a key, so a tag is where the
// literal braces are.
func sideElements(elements []element) []element {
	is := func(c byte) func(element) bool {
		return func(e element) bool { return e.any == nil && e.char == c }
	}
	open := slices.IndexFunc(elements, is('{'))
	length := -1
	if open >= 0 {
		length = slices.IndexFunc(elements[open+1:], is('}'))
	}
	switch {
	case length > 0:
		tag := elements[open+1 : open+1+length]
		return slices.Concat(spell("{"), tag, spell("}:l:"), elements)
	case slices.ContainsFunc(elements, is('}')):
		return nil
	}
	return slices.Concat(spell("{"), elements, spell("}:l"))
}

// watermarks spells what WatermarkKey names, and more.
func watermarks() []element {
	tag := element{any: func(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' }}
	stream := element{any: func(byte) bool { return true }}
	return slices.Concat(spell("unstale:{"), []element{tag}, spell("}:"), []element{stream})
}

func anyText(string) Alphabet { return AnyText }

func spell(text string) []element {
	var elements []element
	for i := range len(text) {
		elements = append(elements, element{char: text[i]})
	}
	return elements
}
