package value_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/value"
)

func base(oid uint32) *value.Type { return &value.Type{OID: oid, Name: fmt.Sprintf("type %d", oid)} }

func arrayOf(element *value.Type) *value.Type {
	return &value.Type{OID: 20000 + element.OID, Name: element.Name + "[]", Kind: value.Array, Element: element, Delimiter: ','}
}

func compositeOf(fields ...value.Field) *value.Type {
	return &value.Type{OID: 30000, Name: "pair", Kind: value.Composite, Fields: fields}
}

var (
	boolean, int8, float8, numeric = base(16), base(20), base(701), base(1700)
	text, date, oid                = base(25), base(1082), base(26)
	timestamp, timestamptz         = base(1114), base(1184)
	jsonType                       = base(114)
	box                            = base(603)
	pair                           = compositeOf(value.Field{Name: "a", Type: int8}, value.Field{Name: `b "x`, Type: text})
	hstore                         = &value.Type{OID: 40000, Name: "hstore", Cast: "hstore.hstore_to_json"}
	boxes                          = &value.Type{OID: 1020, Name: "box[]", Kind: value.Array, Element: box, Delimiter: ';'}
	int2vector                     = &value.Type{OID: 22, Name: "int2vector", Kind: value.Array, Element: base(21), Delimiter: ','}
	oidvector                      = &value.Type{OID: 30, Name: "oidvector", Kind: value.Array, Element: oid, Delimiter: ','}
	lonely                         = compositeOf(value.Field{Name: "x", Type: text})
	nested                         = compositeOf(value.Field{Name: "p", Type: pair}, value.Field{Name: "ps", Type: arrayOf(pair)})
)

// table is a shape and the relation that fits it, with a column c0, c1, ... of
// each type.
func table(types ...*value.Type) (*value.Shape, *change.Relation) {
	s, r := &value.Shape{}, &change.Relation{Name: "t"}
	for i, t := range types {
		name := fmt.Sprintf("c%d", i)
		s.Columns = append(s.Columns, value.Column{Name: name, TypeOID: t.OID, TypeMod: -1, Type: t})
		r.Columns = append(r.Columns, change.Column{Name: name, TypeOID: t.OID, TypeMod: -1})
	}
	return s, r
}

func compile(t testing.TB, types ...*value.Type) *value.Program {
	t.Helper()
	s, r := table(types...)
	p, reason := s.Compile(r, nil)
	if reason != "" {
		t.Fatal(reason)
	}
	return p
}

func whole(texts ...string) *change.Row {
	row := &change.Row{Kind: change.Whole}
	for _, s := range texts {
		row.Values = append(row.Values, change.Value{State: change.Text, Text: []byte(s)})
	}
	return row
}

// fields writes the fields of a row as one reads them.
func fields(encoded []byte) []string {
	var got []string
	for name, v := range value.Fields(encoded) {
		got = append(got, string(name)+"="+string(v))
	}
	return got
}

// What PostgreSQL 15 and 18 print for these texts, as JSON and as
// json_each_text has it.
func TestATextOfTheLogBecomesTheJSONOfItsType(t *testing.T) {
	for _, c := range []struct {
		of             *value.Type
		text           string
		asJSON, asText string
	}{
		{int8, "-9223372036854775808", `-9223372036854775808`, "-9223372036854775808"},
		{float8, "-0", `-0`, "-0"},
		{float8, "1e-300", `1e-300`, "1e-300"},
		{float8, "1.5e+300", `1.5e+300`, "1.5e+300"},
		{float8, "NaN", `"NaN"`, "NaN"},
		{numeric, "-Infinity", `"-Infinity"`, "-Infinity"},
		{numeric, "1.10", `1.10`, "1.10"},
		{oid, "26", `"26"`, "26"},
		{boolean, "t", `true`, "true"},
		{boolean, "f", `false`, "false"},
		{text, "", `""`, ""},
		{text, "plain / é 😀 \x7f", "\"plain / é 😀 \x7f\"", "plain / é 😀 \x7f"},
		{text, "\"\\\b\f\n\r\t\x01\x1f", `"\"\\\b\f\n\r\t\u0001\u001f"`, "\"\\\b\f\n\r\t\x01\x1f"},
		{date, "0044-03-15 BC", `"0044-03-15 BC"`, "0044-03-15 BC"},
		{timestamp, "2024-02-29 12:00:00.5", `"2024-02-29T12:00:00.5"`, "2024-02-29T12:00:00.5"},
		{timestamp, "294276-12-31 23:59:59.999999", `"294276-12-31T23:59:59.999999"`, "294276-12-31T23:59:59.999999"},
		{timestamptz, "2024-02-29 12:00:00+00", `"2024-02-29T12:00:00+00:00"`, "2024-02-29T12:00:00+00:00"},
		{timestamptz, "0044-03-15 12:00:00.25+00 BC", `"0044-03-15T12:00:00.25+00:00 BC"`, "0044-03-15T12:00:00.25+00:00 BC"},
		{timestamptz, "-infinity", `"-infinity"`, "-infinity"},
		{jsonType, ` {"a" : [1, 2]} `, ` {"a" : [1, 2]} `, `{"a" : [1, 2]}`},
		{jsonType, ` "a\"b\/\u00e9\ud83d\ude00\n" `, ` "a\"b\/\u00e9\ud83d\ude00\n" `, "a\"b/é😀\n"},
		{hstore, ``, `{}`, `{}`},
		{hstore, `"a"=>"1", "b\"\\"=>NULL, ""=>"NULL"`, `{"a": "1", "b\"\\": null, "": "NULL"}`, `{"a": "1", "b\"\\": null, "": "NULL"}`},
		{arrayOf(int8), `{}`, `[]`, `[]`},
		{arrayOf(int8), `{1,NULL,-3}`, `[1,null,-3]`, `[1,null,-3]`},
		{arrayOf(int8), `[0:1][-2:-1]={{1,2},{3,4}}`, `[[1,2],[3,4]]`, `[[1,2],[3,4]]`},
		{arrayOf(text), `{"NULL",NULL,null,"","a\"b\\c","{}","x,y"}`, `["NULL",null,"null","","a\"b\\c","{}","x,y"]`, `["NULL",null,"null","","a\"b\\c","{}","x,y"]`},
		{arrayOf(float8), `{NaN,-0}`, `["NaN",-0]`, `["NaN",-0]`},
		{arrayOf(timestamptz), `{"2024-02-29 12:00:00+00",infinity}`, `["2024-02-29T12:00:00+00:00","infinity"]`, `["2024-02-29T12:00:00+00:00","infinity"]`},
		{arrayOf(arrayOf(int8)), `{"{1,2}","{}"}`, `[[1,2],[]]`, `[[1,2],[]]`}, // of a domain over an array
		{arrayOf(jsonType), `{"{\"a\": \"\\\\\"}",[1]}`, `[{"a": "\\"},[1]]`, `[{"a": "\\"},[1]]`},
		{arrayOf(hstore), `{"\"a\"=>\"1\""}`, `[{"a": "1"}]`, `[{"a": "1"}]`},
		{boxes, `{(1,1),(0,0);(2,2),(1,1)}`, `["(1,1),(0,0)","(2,2),(1,1)"]`, `["(1,1),(0,0)","(2,2),(1,1)"]`},
		{int2vector, ``, `[]`, `[]`},
		{int2vector, `1 -2`, `[1,-2]`, `[1,-2]`},
		{oidvector, `1 2`, `["1","2"]`, `["1","2"]`},
		{arrayOf(int2vector), `{"1 2",""}`, `[[1,2],[]]`, `[[1,2],[]]`},
		{pair, `(,)`, `{"a":null,"b \"x":null}`, `{"a":null,"b \"x":null}`},
		{pair, `(1,"")`, `{"a":1,"b \"x":""}`, `{"a":1,"b \"x":""}`},
		{pair, `(1,"""\\ ,()")`, `{"a":1,"b \"x":"\"\\ ,()"}`, `{"a":1,"b \"x":"\"\\ ,()"}`},
		{lonely, `()`, `{"x":null}`, `{"x":null}`},
		{lonely, `(NULL)`, `{"x":"NULL"}`, `{"x":"NULL"}`},
		{arrayOf(lonely), `{(a),()}`, `[{"x":"a"},{"x":null}]`, `[{"x":"a"},{"x":null}]`},
		{compositeOf(), `()`, `{}`, `{}`},
		{nested, `("(1,""a b"")","{""(2,\\""c,d\\"")"",NULL}")`, `{"p":{"a":1,"b \"x":"a b"},"ps":[{"a":2,"b \"x":"c,d"},null]}`, `{"p":{"a":1,"b \"x":"a b"},"ps":[{"a":2,"b \"x":"c,d"},null]}`},
	} {
		p := compile(t, c.of)
		got, reason := p.AppendJSON(nil, whole(c.text))
		if want := `{"c0":` + c.asJSON + `}`; string(got) != want {
			t.Errorf("%s %q: got %s %s, want %s", c.of.Name, c.text, got, reason, want)
		}
		encoded, reason := p.AppendFields(nil, whole(c.text))
		if diff := cmp.Diff([]string{"c0=" + c.asText}, fields(encoded)); diff != "" {
			t.Errorf("%s %q: fields %s (-want +got):\n%s", c.of.Name, c.text, reason, diff)
		}
	}
}

// NULL is null in JSON and no field of a hash; and so is the null of json, which
// json_each_text cannot tell from it.
func TestNullIsNoField(t *testing.T) {
	p := compile(t, text, jsonType, text)
	row := whole("", " null\n", "x")
	row.Values[0] = change.Value{State: change.Null}
	if got, _ := p.AppendJSON(nil, row); string(got) != "{\"c0\":null,\"c1\": null\n,\"c2\":\"x\"}" {
		t.Errorf("got %s", got)
	}
	encoded, _ := p.AppendFields(nil, row)
	if diff := cmp.Diff([]string{"c2=x"}, fields(encoded)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

// A length takes one byte to 127 and two to 16383: values on both sides of that
// come back as they were.
func TestFieldsOfAnyLengthComeBack(t *testing.T) {
	p := compile(t, text, text, text)
	for _, n := range []int{0, 1, 127, 128, 16383, 16384, 1 << 20} {
		long := strings.Repeat("x", n)
		encoded, reason := p.AppendFields([]byte("before"), whole("a", long, "b"))
		if diff := cmp.Diff([]string{"c0=a", "c1=" + long, "c2=b"}, fields(encoded[len("before"):])); diff != "" {
			t.Errorf("%d bytes: %s", n, reason)
		}
	}
}

// A part of a row, a value that the log left out, and a text that is not of its
// type: nothing is written, and what was in the buffer stays.
func TestWhatIsNotWhollyKnownIsIncomplete(t *testing.T) {
	p := compile(t, int8, arrayOf(pair))
	incomplete := func(what string, row *change.Row) {
		t.Helper()
		for name, render := range map[string]func([]byte, *change.Row) ([]byte, string){"json": p.AppendJSON, "fields": p.AppendFields} {
			if got, reason := render([]byte("kept"), row); string(got) != "kept" || reason == "" {
				t.Errorf("%s, %s: got %q, %q", what, name, got, reason)
			}
		}
	}
	if _, reason := p.AppendJSON(nil, whole("1", "{}")); reason != "" {
		t.Fatal(reason)
	}
	part := whole("1", "{}")
	part.Kind = change.IdentityOnly
	incomplete("identity only", part)
	incomplete("no row", &change.Row{})
	incomplete("too few values", whole("1"))
	for _, state := range []change.ValueState{change.Missing, change.Unchanged, 99} {
		row := whole("1", "{}")
		row.Values[1] = change.Value{State: state}
		incomplete(fmt.Sprint("state ", state), row)
	}
	for _, c := range []struct {
		of    *value.Type
		texts []string
	}{
		{int8, []string{"", "-", "1a", "NULL", "nan", "1.", "1e", "+1", ".5", "01", "-00"}},
		{boolean, []string{"", "true", "T"}},
		{timestamp, []string{"", "2024-02-29", "29.02.2024 12:00:00", "2024-02-29T12:00:00", "2024-02-29 12:00:00+00", "2024-02-29 12:00:00 AD", "02/29/2024 12:00:00"}},
		{timestamptz, []string{"2024-02-29 12:00:00", "2024-02-29 12:00:00+01", "2024-02-29 12:00:00+00:30", "2024-02-29 12:00:00 UTC"}},
		{arrayOf(text), []string{"", "{", "}", "{a", "{a}}", "{{a}", "{a,}", "{,a}", "{a}b", `{"a}`, `{"a"b}`, `{"a\`, "{a;b}x", "[1:2]", "[1:2]={", "{{{{{{{a}}}}}}}", `{a"b}`, "{{}}"}},
		{pair, []string{"", "()", "(1)", "(1,2,3)", "1,2", "(1,2", "(1,2)x", `(1,"a)`, `(1,"a"b)`, "(1,a(b)", `(x,)`, "(", ")"}},
		{hstore, []string{"a", `"a"`, `"a"=>`, `"a"=>b`, `"a"=>"b",`, `"a"=>"b","c"=>"d"`, `"a"=>"b"x`, `"a"=>NUL`, `"a\`}},
		{int2vector, []string{" ", "1  2", "a"}},
	} {
		p = compile(t, c.of)
		for _, s := range c.texts {
			incomplete(fmt.Sprintf("%s %q", c.of.Name, s), whole(s))
		}
	}
}

// PostgreSQL stores escapes in json that are no characters, prints them, and
// fails when it is asked for text.
func TestJSONThatIsNoTextIsNoField(t *testing.T) {
	for _, c := range []struct {
		of   *value.Type
		text string
	}{
		{jsonType, `"\u0000"`}, {jsonType, `{"a":"\ud800"}`}, {jsonType, `["\udc00\ud800"]`}, {jsonType, `"\ud800\u0041"`},
		{arrayOf(jsonType), `{"\"\\u0000\""}`},
	} {
		p := compile(t, c.of)
		if got, reason := p.AppendJSON(nil, whole(c.text)); reason != "" {
			t.Errorf("%q: got %s %s", c.text, got, reason)
		}
		if got, reason := p.AppendFields(nil, whole(c.text)); reason == "" {
			t.Errorf("%q: got %q", c.text, fields(got))
		}
	}
}

// A person who asks for some columns gets them in the order of the table, from
// wherever they stand among the columns that are read.
func TestSomeColumnsComeInTheOrderOfTheTable(t *testing.T) {
	s, r := table(text, int8, base(2205), text) // c2 cannot be rendered
	p, reason := s.Compile(r, []string{"c3", "c1"})
	if reason != "" {
		t.Fatal(reason)
	}
	if got, _ := p.AppendJSON(nil, whole("1", "x")); string(got) != `{"c1":1,"c3":"x"}` {
		t.Errorf("got %s", got)
	}
	p.Bind([]int{0, 1, 3})
	if got, _ := p.AppendJSON(nil, whole("key", "1", "x")); string(got) != `{"c1":1,"c3":"x"}` {
		t.Errorf("got %s", got)
	}
}

// Two descriptions that differ are of two times, and nobody knows of which the
// row is. What both know may be asked for where the log only lacks columns.
func TestTheLogAndTheCatalogMustAgree(t *testing.T) {
	s, r := table(int8, text, text)
	s.Columns[2].Generated = true
	for _, c := range []struct {
		what    string
		change  func(r *change.Relation)
		columns []string
		want    string
	}{
		{"the same", func(r *change.Relation) {}, nil, ""},
		{"generated", func(r *change.Relation) { r.Columns = r.Columns[:2] }, nil, `column "c2" is generated, and the log does not have it`},
		{"generated, not asked for", func(r *change.Relation) { r.Columns = r.Columns[:2] }, []string{"c0", "c1"}, ""},
		{"column list", func(r *change.Relation) { r.Columns = r.Columns[1:] }, nil, `the log does not have column "c0"`},
		{"column list, not asked for", func(r *change.Relation) { r.Columns = r.Columns[1:] }, []string{"c1"}, ""},
		{"another type", func(r *change.Relation) { r.Columns[0].TypeOID = 23 }, []string{"c1"}, `column "c0" has another type in the log than in the catalog`},
		{"another precision", func(r *change.Relation) { r.Columns[1].TypeMod = 14 }, nil, `column "c1" has another type in the log than in the catalog`},
		{"another name", func(r *change.Relation) { r.Columns[1].Name = "d" }, nil, `the catalog does not have column "d" where the log has it`},
		{"another order", func(r *change.Relation) { r.Columns[0], r.Columns[1] = r.Columns[1], r.Columns[0] }, nil, `the catalog does not have column "c0" where the log has it`},
		{"no such column", func(r *change.Relation) {}, []string{"c9"}, `there is no column "c9"`},
	} {
		other := *r
		other.Columns = append([]change.Column(nil), r.Columns...)
		c.change(&other)
		p, got := s.Compile(&other, c.columns)
		if got != c.want || (p == nil) != (c.want != "") {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

// A type whose JSON or whose text could be another in the session of a reader
// is refused, wherever it is.
func TestATypeThatIsNotKnownForCertainIsRefused(t *testing.T) {
	regclass := &value.Type{OID: 2205, Name: "regclass"}
	own := &value.Type{OID: 50000, Name: "own", Cast: ".to_json"}
	mood := &value.Type{OID: 50001, Name: "mood", Kind: value.Enum, Volatile: true}
	circle := &value.Type{OID: 50002, Name: "circle", Kind: value.Composite}
	circle.Fields = []value.Field{{Name: "x", Type: arrayOf(circle)}}
	tower := text
	for range 40 {
		tower = compositeOf(value.Field{Name: "x", Type: tower})
	}
	wide := text
	for range 30 { // 2^30 nodes, were they not shared
		wide = compositeOf(value.Field{Name: "x", Type: wide}, value.Field{Name: "y", Type: wide})
	}
	for _, c := range []struct {
		of   *value.Type
		want string
	}{
		{regclass, "regclass is printed as the session's search_path and the catalog have it"},
		{arrayOf(regclass), "regclass is printed as the session's search_path and the catalog have it"},
		{compositeOf(value.Field{Name: "x", Type: regclass}), "regclass is printed as the session's search_path and the catalog have it"},
		{&value.Type{OID: 50003, Name: "range", Kind: value.Range, Element: &value.Type{OID: 790, Name: "money"}}, "money is printed as the session's lc_monetary has it"},
		{own, "own has a cast to json of its own"},
		{&value.Type{OID: 50004, Name: "hstore", Cast: ".hstore_to_json"}, "hstore has a cast to json of its own"},
		{&value.Type{OID: 50005, Name: "x", Volatile: true}, "the text of x may depend on the session"},
		{&value.Type{OID: 9999, Name: "future"}, "the JSON of future is not known"},
		{&value.Type{OID: 50006, Name: "odd[]", Kind: value.Array, Element: text, Delimiter: 'N'}, `elements of odd[] are delimited by 'N'`},
		{circle, "circle contains itself"},
		{tower, "pair is nested too deeply"},
		{mood, ""}, // how an enum is printed is stable, and the same for all
		{wide, ""},
	} {
		want := c.want
		if want != "" {
			want = `column "c0": ` + want
		}
		s, r := table(c.of)
		if _, got := s.Compile(r, nil); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	s, r := table(text)
	s.Columns[0].Type = nil
	if _, got := s.Compile(r, nil); got != `column "c0": its type is not in the catalog` {
		t.Errorf("got %q", got)
	}
}

// Whatever the log holds: no panic, and what is accepted is JSON, of which the
// fields are the strings.
func FuzzAnyTextIsRefusedOrRendered(f *testing.F) {
	for _, s := range []string{"1", "-1.5e-300", "t", "2024-02-29 12:00:00.5+00 BC", `[0:1]={{"a\"b",NULL},{c,d}}`, `(1,"a ""b\\")`, `("(1,a)","{""(2,b)""}")`, `"a"=>"b", "c"=>NULL`, "1 2", `{"{1,2}"}`} {
		f.Add([]byte(s))
	}
	types := []*value.Type{
		int8, boolean, text, timestamp, timestamptz, arrayOf(text), arrayOf(arrayOf(int8)), pair, nested, arrayOf(nested), hstore, arrayOf(hstore),
		boxes, int2vector, arrayOf(oidvector),
	}
	var programs []*value.Program
	for _, of := range types {
		programs = append(programs, compile(f, of))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		for i, p := range programs {
			row := whole(string(s))
			got, reason := p.AppendJSON(nil, row)
			encoded, whyFields := p.AppendFields(nil, row)
			if reason != whyFields {
				t.Fatalf("%s %q: %s, fields %s", types[i].Name, s, reason, whyFields)
			}
			if reason != "" {
				continue
			}
			var object map[string]json.RawMessage
			if err := json.Unmarshal(got, &object); err != nil {
				t.Fatalf("%s %q: %s: %v", types[i].Name, s, got, err)
			}
			want := string(object["c0"])
			if strings.HasPrefix(want, `"`) && utf8.Valid(s) {
				if err := json.Unmarshal(object["c0"], &want); err != nil {
					t.Fatal(err)
				}
			}
			if fields := fields(encoded); utf8.Valid(s) && fields[0] != "c0="+want {
				t.Fatalf("%s %q: %s, fields %q", types[i].Name, s, got, fields)
			}
		}
	})
}

// What is cut short or was never written by AppendFields ends the iteration.
func FuzzFieldsOfAnyBytes(f *testing.F) {
	f.Add([]byte("\x01a\x01b"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, encoded []byte) {
		n := 0
		for name, v := range value.Fields(encoded) {
			n += len(name) + len(v)
		}
		if n > len(encoded) {
			t.Errorf("%d bytes of %d", n, len(encoded))
		}
	})
}

// product is a row as a shop has it.
func product(t testing.TB) (*value.Program, *change.Row) {
	p := compile(t, int8, text, text, text, numeric, base(23), boolean, int8, arrayOf(text), timestamptz)
	return p, whole("4711", "SKU-0000-4711", "Café chair, oak", strings.Repeat("A chair that one can sit on, \"really\". ", 4),
		"129.90", "42", "t", "17", `{furniture,"living room",oak}`, "2024-02-29 12:00:00.123456+00")
}

// The change's way allocates nothing.
func TestRenderingAllocatesNothing(t *testing.T) {
	p, row := product(t)
	row.Values[8].Text = []byte(`{"a \"quoted\" tag",b}`)
	var buffer []byte
	for name, render := range map[string]func([]byte, *change.Row) ([]byte, string){"json": p.AppendJSON, "fields": p.AppendFields} {
		if got := testing.AllocsPerRun(100, func() { buffer, _ = render(buffer[:0], row) }); got != 0 {
			t.Errorf("%s: %v allocations a row", name, got)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	p, row := product(b)
	benchmark(b, row, p.AppendJSON)
}

func BenchmarkAppendFields(b *testing.B) {
	p, row := product(b)
	benchmark(b, row, p.AppendFields)
}

func benchmark(b *testing.B, row *change.Row, render func([]byte, *change.Row) ([]byte, string)) {
	var buffer []byte
	var reason string
	b.ReportAllocs()
	for b.Loop() {
		if buffer, reason = render(buffer[:0], row); reason != "" {
			b.Fatal(reason)
		}
	}
	b.SetBytes(int64(len(buffer)))
}

// Whoever reads why a row is dropped is to find the column.
func TestAReasonNamesTheColumn(t *testing.T) {
	text := &value.Type{OID: 25, Name: "text"}
	s := value.Shape{Columns: []value.Column{
		{Name: "a", TypeOID: 25, TypeMod: -1, Type: text},
		{Name: "b", TypeOID: 1009, TypeMod: -1, Type: &value.Type{OID: 1009, Name: "text[]", Kind: value.Array, Element: text, Delimiter: ','}},
	}}
	r := &change.Relation{Columns: []change.Column{{Name: "a", TypeOID: 25, TypeMod: -1}, {Name: "b", TypeOID: 1009, TypeMod: -1}}}
	p, reason := s.Compile(r, nil)
	if reason != "" {
		t.Fatal(reason)
	}
	missing := whole("a", "{}")
	missing.Values[1] = change.Value{}
	for _, row := range []*change.Row{whole("a", "x"), missing} {
		for _, render := range []func([]byte, *change.Row) ([]byte, string){p.AppendJSON, p.AppendFields} {
			if _, reason := render(nil, row); !strings.HasSuffix(reason, `: "b"`) {
				t.Errorf("got %q, want column b", reason)
			}
		}
	}
}
