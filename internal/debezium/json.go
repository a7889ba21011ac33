package debezium

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/unstale/unstale/internal/change"
)

// A jsonSchema is what messages with one schema block have in common, or those
// without a schema that have rows of one table with the same members.
type jsonSchema struct {
	block []byte // the schema as it stands before the payload; without, what tells these apart
	bad   string
	other bool
	// tellsNulls: see keptNulls.
	tellsNulls bool

	fields []field
	names  map[string]int
	tables []*reader
	last   *reader

	key *keySchema // if it is the schema of a key
}

// A connectSchema is a schema as Kafka Connect's JSON converter writes it.
type connectSchema struct {
	Type       string            `json:"type"`
	Optional   bool              `json:"optional"`
	Name       string            `json:"name"`
	Field      string            `json:"field"`
	Default    json.RawMessage   `json:"default"`
	Parameters map[string]string `json:"parameters"`
	Fields     []connectSchema   `json:"fields"`
	Items      *connectSchema    `json:"items"`
	Keys       *connectSchema    `json:"keys"`
	Values     *connectSchema    `json:"values"`
}

var connectForms = map[string]struct {
	form form
	bits int
}{
	"boolean": {formBoolean, 0}, "int8": {formInteger, 8}, "int16": {formInteger, 16}, "int32": {formInteger, 32}, "int64": {formInteger, 64},
	"float": {formFloat, 0}, "double": {formDouble, 0}, "string": {formText, 0}, "bytes": {formBytes, 0}, "array": {formArray, 0},
}

func (c *connectSchema) describe() field {
	f := field{name: c.Field, json: true, logical: c.Name, parameters: c.Parameters, nullable: c.Optional, fallback: c.Default, form: formOther}
	if known, ok := connectForms[c.Type]; ok {
		f.form, f.bits = known.form, known.bits
	}
	switch {
	case f.form == formArray && c.Items != nil:
		element := c.Items.describe()
		f.element = &element
	case f.form == formArray:
		f.form = formOther
	case c.Type == "map" && c.Keys != nil && c.Keys.Type == "string" && c.Values != nil && c.Values.Type == "string":
		f.form = formMap
	}
	return f
}

func (c *connectSchema) fields() (fields []field) {
	for i := range c.Fields {
		fields = append(fields, c.Fields[i].describe())
	}
	return fields
}

func (c *connectSchema) member(name string) *connectSchema {
	for i := range c.Fields {
		if c.Fields[i].Field == name {
			return &c.Fields[i]
		}
	}
	return nil
}

// newJSONSchema compiles a schema block.
func newJSONSchema(block []byte) *jsonSchema {
	s := &jsonSchema{key: &keySchema{}}
	var root connectSchema
	if len(block) > schemaBytes {
		s.bad = "its schema is too long"
		return s
	}
	if err := json.Unmarshal(block, &root); err != nil {
		s.bad = "its schema is not understood: " + err.Error()
		return s
	}
	s.key.fields = root.fields()
	after, source, op := root.member("after"), root.member("source"), root.member("op")
	switch {
	case nothingToApply(root.Name) || op != nil && source != nil && after == nil:
		s.other = true
	case op == nil && source == nil && strings.HasSuffix(root.Name, ".Value"):
		s.bad = reasonUnwrapped
	case root.Type != "struct" || after == nil || source == nil || op == nil:
		s.bad = reasonEnvelope
	default:
		s.setFields(after.fields())
		if snapshot := source.member("snapshot"); snapshot != nil {
			field := snapshot.describe()
			s.tellsNulls = hasFallback(&field)
		}
	}
	return s
}

func (s *jsonSchema) setFields(fields []field) {
	s.fields, s.names = fields, make(map[string]int, len(fields))
	for i := range fields {
		s.names[fields[i].name] = i
	}
}

// looksLikeJSON reports whether a message may be an object.
func looksLikeJSON(message []byte) bool {
	s := scanner{b: message}
	s.space()
	return s.i < len(message) && message[s.i] == '{'
}

const schemaPrefix, payloadPrefix = `{"schema":`, `,"payload":`

// split takes the schema block and the payload of a message apart. Without a
// schema the payload is the whole message.
func (d *Decoder) split(message []byte, last *jsonSchema) (block, payload []byte, ok bool) {
	// The block of the last message is the block of this one, most times.
	if last != nil && last.block != nil {
		if n := len(schemaPrefix) + len(last.block); len(message) > n+len(payloadPrefix) &&
			string(message[:len(schemaPrefix)]) == schemaPrefix && string(message[n:n+len(payloadPrefix)]) == payloadPrefix &&
			string(message[len(schemaPrefix):n]) == string(last.block) {
			payload, ok = closed(message[n+len(payloadPrefix):])
			if ok {
				return last.block, payload, true
			}
		}
	}
	s := scanner{b: message}
	some, ok := s.open('{', '}')
	var schema, found token
	members := 0
	for some && ok {
		name := s.name()
		if name.kind == tokenNone {
			return nil, nil, false
		}
		isSchema := string(name.text) == "schema"
		if !isSchema && string(name.text) != "payload" {
			// It has no schema, and whoever reads the payload reads all of it.
			return nil, message, true
		}
		value := s.value()
		if value.kind == tokenNone {
			return nil, nil, false
		}
		members++
		if isSchema {
			schema = value
		} else {
			found = value
		}
		some, ok = s.more('}')
	}
	if !ok || !s.end() {
		return nil, nil, false
	}
	if members != 2 || schema.kind == tokenNone || found.kind == tokenNone {
		return nil, message, true
	}
	if found.kind == tokenNull {
		return schema.text, nil, true
	}
	return schema.text, found.text, true
}

// closed takes the brace off that closes a message behind its payload.
func closed(rest []byte) (payload []byte, ok bool) {
	n := len(rest) - 1
	for n > 0 && (rest[n] == '\n' || rest[n] == ' ') {
		n--
	}
	if n < 1 || rest[n] != '}' || rest[n-1] != '}' {
		return nil, false
	}
	return rest[:n], true
}

// jsonSchema returns what is compiled of a block.
func (d *Decoder) jsonSchema(block []byte, last **jsonSchema) *jsonSchema {
	if s := *last; s != nil && string(s.block) == string(block) {
		return s
	}
	s, ok := d.blocks.get(block)
	if !ok {
		s = newJSONSchema(block)
		s.block = bytes.Clone(block)
		d.blocks.put(s.block, s)
	}
	*last = s
	return s
}

// plainSchema returns what is compiled for rows of the table that was captured,
// and of the members that row has.
func (d *Decoder) plainSchema(row []byte) *jsonSchema {
	d.signature = append(append(d.signature[:0], d.capturedText(captureSchema)...), 0)
	d.signature = append(append(d.signature, d.capturedText(captureTable)...), 0)
	if !d.sign(row) {
		return nil
	}
	if s := d.lastPlain; s != nil && string(s.block) == string(d.signature) {
		return s
	}
	s, ok := d.plain.get(d.signature)
	if !ok {
		s = &jsonSchema{block: bytes.Clone(d.signature)}
		s.setFields(d.members(row))
		d.plain.put(s.block, s)
	}
	d.lastPlain = s
	return s
}

// sign adds the names of an object's members to the signature.
func (d *Decoder) sign(object []byte) bool {
	s := scanner{b: object}
	some, ok := s.open('{', '}')
	for some && ok {
		name := s.name()
		if name.kind == tokenNone || s.value().kind == tokenNone {
			return false
		}
		d.signature = append(append(d.signature, name.text...), 0)
		some, ok = s.more('}')
	}
	return ok && s.end()
}

// members are the members of an object, of which no more is known.
func (d *Decoder) members(object []byte) (fields []field) {
	s := scanner{b: object}
	some, ok := s.open('{', '}')
	for some && ok {
		name, known := d.meaning(s.name())
		if s.value().kind == tokenNone || !known {
			break
		}
		fields = append(fields, field{name: string(name), json: true})
		some, ok = s.more('}')
	}
	return fields
}

func (d *Decoder) decodeJSON(ctx context.Context, key, message []byte, e *Event) error {
	block, payload, ok := d.split(message, d.lastBlock)
	if !ok {
		return &Undecodable{Reason: reasonJSON}
	}
	var s *jsonSchema
	if block != nil && string(block) != "null" {
		switch s = d.jsonSchema(block, &d.lastBlock); {
		case s.bad != "":
			return &Undecodable{Reason: s.bad}
		case s.other:
			return nil
		}
	}
	if payload == nil {
		return d.tombstone(ctx, key, e)
	}
	// The table is named behind the rows, and without a schema nothing says what
	// members they have: they are read for the last ones, most times that does.
	guess := s
	if s == nil {
		guess = d.lastPlain
	}
	var r *reader
	if guess != nil {
		r = guess.last
	}
	p := d.readPayload(payload, guess, r, e)
	switch {
	case p.reason != "":
		return &Undecodable{Reason: p.reason, Source: d.source(nil)}
	case len(d.capturedText(captureOp)) == 0, d.capturedText(captureOp)[0] == 'm':
		return nil // nothing to apply
	}
	if reason := d.known(); reason != "" {
		return &Undecodable{Reason: reason, Source: d.source(nil)}
	}
	k, err := d.keyOf(ctx, key)
	if err != nil {
		return err
	}
	// Without a schema the default of source.snapshot is the one that it always had.
	kept := (s == nil || s.tellsNulls) && d.keptNulls()
	if r != nil && r.reads(d, k) && (s != nil || p.inOrder) {
		d.resolve(kept)
		return d.finish(r, e)
	}
	if s == nil {
		row := p.after
		if row == nil {
			row = p.before
		}
		if row == nil {
			// A TRUNCATE: of the table as it was last, if it is known.
			if last := d.readers[TableName{string(d.capturedText(captureSchema)), string(d.capturedText(captureTable))}]; last != nil && last.forgets == d.forgets.Load() {
				return d.finish(last, e)
			}
			row = []byte("{}")
		}
		if s = d.plainSchema(row); s == nil {
			return &Undecodable{Reason: reasonJSON, Source: d.source(nil)}
		}
	}
	if r, err = d.jsonTable(ctx, s, k); err != nil {
		return err
	}
	d.begin()
	for _, row := range [...]struct {
		role role
		text []byte
	}{{roleBefore, p.before}, {roleAfter, p.after}} {
		if row.text == nil {
			continue
		}
		if _, ok := d.readRow(&scanner{b: row.text}, s, r, row.role, e); !ok {
			return &Undecodable{Reason: reasonJSON, Source: d.source(r)}
		}
	}
	d.resolve(kept)
	return d.finish(r, e)
}

// A jsonPayload is an envelope as it was read.
type jsonPayload struct {
	before, after []byte // the objects of the rows
	inOrder       bool   // they have the members that were guessed, each in its place
	reason        string // why it is undecodable
}

// readPayload reads an envelope, its rows for table r of schema s; r may be nil.
// If it has no op there is nothing to apply.
func (d *Decoder) readPayload(payload []byte, s *jsonSchema, r *reader, e *Event) (p jsonPayload) {
	d.captured, d.message, d.unescaped = [capturedCount]captured{}, payload, d.unescaped[:0]
	d.begin()
	p.inOrder = true
	in := scanner{b: payload}
	some, ok := in.open('{', '}')
	members, transaction, millis := 0, 0, false
	hasSource, hasOp := false, false
	for some && ok {
		name := in.name()
		if name.kind == tokenNone {
			return jsonPayload{reason: reasonJSON}
		}
		members++
		role := roleOther
		switch string(name.text) {
		case "before":
			role = roleBefore
		case "after":
			role = roleAfter
		case "source":
			if in.space(); in.i < len(payload) && payload[in.i] == '{' {
				if hasSource = d.readSource(&in); !hasSource {
					return jsonPayload{reason: reasonJSON}
				}
				some, ok = in.more('}')
				continue
			}
		case "status", "id", "event_count", "data_collections":
			transaction++
		case "ts_ms":
			millis = true
		}
		in.space()
		from := in.i
		if role != roleOther && r != nil && from < len(payload) && payload[from] == '{' {
			inOrder, ok := d.readRow(&in, s, r, role, e)
			if !ok {
				return jsonPayload{reason: reasonJSON}
			}
			p.inOrder = p.inOrder && inOrder
			p.keep(role, payload[from:in.i])
		} else {
			t := in.value()
			switch {
			case t.kind == tokenNone:
				return jsonPayload{reason: reasonJSON}
			case t.kind == tokenObject:
				p.keep(role, t.text)
			case string(name.text) == "op":
				hasOp = true
				d.captureJSON(captureOp, captureBytes, t)
			}
		}
		some, ok = in.more('}')
	}
	switch {
	case !ok || !in.end():
		return jsonPayload{reason: reasonJSON}
	case hasSource && hasOp:
		if len(d.capturedText(captureOp)) == 0 {
			p.reason = reasonOp
		}
		return p
	case hasSource || hasOp:
		return jsonPayload{reason: reasonEnvelope}
	case millis && (members == 1 || members == 5 && transaction == 4):
		// A heartbeat, or the begin or end of a transaction.
		d.captured[captureOp] = captured{}
		return jsonPayload{}
	}
	return jsonPayload{reason: reasonUnwrapped}
}

// keep says where a row is.
func (p *jsonPayload) keep(r role, row []byte) {
	switch r {
	case roleBefore:
		p.before = row
	case roleAfter:
		p.after = row
	}
}

// A sourceMember is a member of the source block, and what is captured of it; op
// is 0 if nothing is.
type sourceMember struct {
	name string
	slot int
	op   op
}

// sourceMembersMax is how many members are expected.
const sourceMembersMax = 32

// readSource reads the source block. Its members are those of the last one, most
// times.
func (d *Decoder) readSource(in *scanner) bool {
	some, ok := in.open('{', '}')
	for i := 0; some && ok; i++ {
		name := in.name()
		if name.kind == tokenNone {
			return false
		}
		t := in.value()
		if t.kind == tokenNone {
			return false
		}
		var m sourceMember
		if i < len(d.sourceMembers) && d.sourceMembers[i].name == string(name.text) {
			m = d.sourceMembers[i]
		} else {
			c := capturedFields[string(name.text)]
			m = sourceMember{d.intern(name.text), c.slot, c.op}
			if i < len(d.sourceMembers) {
				d.sourceMembers[i] = m
			} else if i < sourceMembersMax {
				d.sourceMembers = append(d.sourceMembers, m)
			}
		}
		if m.op != 0 {
			d.captureJSON(m.slot, m.op, t)
		}
		some, ok = in.more('}')
	}
	return ok
}

func (d *Decoder) captureJSON(slot int, o op, t token) {
	c := &d.captured[slot]
	switch {
	case o == captureBytes && t.kind == tokenString && t.escaped:
		from := len(d.unescaped)
		d.unescaped, _ = unescape(d.unescaped, t.text)
		*c = captured{n: hadEscapes, from: uint32(from), end: uint32(len(d.unescaped))}
	case o == captureBytes && t.kind == tokenString:
		*c = captured{from: uint32(t.from), end: uint32(t.from + len(t.text))}
	case o == captureBytes && t.kind == tokenNull:
		c.n = wasNull
	case o == captureVarint && t.kind == tokenNumber:
		c.n, _ = integer(t.text)
	}
}

// jsonTable returns what reads the table that was captured.
func (d *Decoder) jsonTable(ctx context.Context, s *jsonSchema, k *keySchema) (*reader, error) {
	for _, r := range s.tables {
		if r.reads(d, k) {
			s.last = r
			return r, nil
		}
	}
	r, err := d.newReader(ctx, s.fields, k)
	if err != nil {
		return nil, err
	}
	s.last = r
	for i, old := range s.tables {
		if old.name == r.name {
			s.tables[i] = r
			return r, nil
		}
	}
	if len(s.tables) >= programsKept {
		s.tables = nil
	}
	s.tables = append(s.tables, r)
	return r, nil
}

// readRow reads the wanted members of a row, for table r of schema s. inOrder
// says whether its members are those of s, each in its place.
func (d *Decoder) readRow(in *scanner, s *jsonSchema, r *reader, role role, e *Event) (inOrder, ok bool) {
	row := &e.Old
	if role == roleAfter {
		row = &e.New
	}
	*row = change.Row{Kind: change.Whole}
	if r.relation == nil {
		return true, in.value().kind == tokenObject
	}
	row.Values = d.values(role, len(r.relation.Wanted))
	some, ok := in.open('{', '}')
	inOrder = true
	members := 0
	for next := 0; some && ok; next++ {
		name := in.name()
		if name.kind == tokenNone {
			return false, false
		}
		t := in.value()
		if t.kind == tokenNone {
			return false, false
		}
		some, ok = in.more('}')
		members++
		// Members come in the order of the fields, most times.
		if next >= len(s.fields) || s.fields[next].name != string(name.text) {
			inOrder = false
			meaning, _ := d.meaning(name)
			at, known := s.names[string(meaning)]
			if !known {
				continue
			}
			next = at
		}
		if slot := r.slots[next]; slot >= 0 {
			d.setJSON(&row.Values[slot], r.columns[next], t)
		}
	}
	return inOrder && members == len(s.fields), ok
}

// integer reads one.
func integer(text []byte) (n int64, ok bool) {
	const short = 18 // digits that always fit
	if len(text) > 0 && len(text) <= short && isDigit(text[0]) {
		u, end := leadingDigits(text, 0)
		return int64(u), end == len(text)
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	return n, err == nil
}

// setJSON delivers a value of a message in JSON.
func (d *Decoder) setJSON(v *change.Value, c *column, t token) {
	v.State, v.Text = change.Missing, nil
	if t.kind == tokenNull {
		if v.State = c.null; c.rule == ruleShownNumeric {
			d.decimals.assumed = append(d.decimals.assumed, v)
		}
		return
	}
	var r raw
	switch c.rule {
	case ruleNone:
		return
	case ruleArray:
		if t.kind == tokenArray {
			d.setElements(v, c, t.text)
			return
		}
	case ruleMap:
		if t.kind == tokenObject && d.readPairs(t.text) {
			d.setPairs(v, c)
		}
		return
	case ruleHstore:
		if t.kind == tokenObject {
			if d.readPairs(t.text) {
				d.setPairs(v, c)
			}
			return
		}
	case ruleInteger, ruleDate, ruleTimeMilli, ruleTimeMicro, ruleTimeNano, ruleMilli, ruleMicro, ruleNano:
		if t.kind == tokenNumber {
			var ok bool
			if r.n, ok = integer(t.text); ok {
				d.set(v, c, r)
			}
			return
		}
	case ruleBoolean, ruleBit:
		if t.kind == tokenTrue {
			r.n = 1
		}
		if t.kind == tokenTrue || t.kind == tokenFalse {
			d.set(v, c, r)
		}
		return
	case ruleFloat4, ruleFloat8:
		if n, ok := floatBits(t, c.rule); ok {
			d.set(v, c, raw{n: n})
			return
		}
	}
	if t.kind != tokenString {
		return
	}
	r.b = t.text
	if t.escaped {
		from := len(d.text)
		var ok bool
		if d.text, ok = unescape(d.text, t.text); !ok {
			return
		}
		r.b = d.text[from:]
	}
	switch c.rule {
	case ruleBytes, ruleBits, ruleDecimal:
		from := len(d.text)
		decoded, err := base64.StdEncoding.AppendDecode(d.text, r.b)
		if err != nil {
			if string(r.b) == d.placeholder.text {
				v.State = change.Unchanged
			}
			return
		}
		d.text = decoded
		r.b = d.text[from:]
	case ruleInteger, ruleDate, ruleTimeMilli, ruleTimeMicro, ruleTimeNano, ruleMilli, ruleMicro, ruleNano, ruleFloat4, ruleFloat8, ruleArray:
		if string(r.b) == d.placeholder.text {
			v.State = change.Unchanged
		}
		return
	}
	d.set(v, c, r)
}

// floatBits reads a number as Java prints it.
func floatBits(t token, r rule) (n int64, ok bool) {
	size := 64
	if r == ruleFloat4 {
		size = 32
	}
	if t.kind == tokenString {
		switch string(t.text) {
		case "NaN", "Infinity", "-Infinity":
		default:
			return 0, false
		}
	} else if t.kind != tokenNumber {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(t.text), size)
	if err != nil {
		return 0, false
	}
	if size == 32 {
		return int64(math.Float32bits(float32(f))), true
	}
	return int64(math.Float64bits(f)), true
}

// setElements delivers an array.
func (d *Decoder) setElements(v *change.Value, c *column, text []byte) {
	d.array.begin()
	assumed := len(d.decimals.assumed)
	s := scanner{b: text}
	some, ok := s.open('[', ']')
	for some && ok {
		t := s.value()
		if t.kind == tokenNone {
			return
		}
		mark := len(d.text)
		d.setJSON(&d.element[0], c.element, t)
		d.add(&d.element[0])
		d.text = d.text[:mark]
		some, ok = s.more(']')
	}
	d.decimals.within(v, assumed)
	if ok {
		d.setArray(v, c)
	}
}

// readPairs reads an object of texts.
func (d *Decoder) readPairs(text []byte) bool {
	d.pairs = d.pairs[:0]
	s := scanner{b: text}
	some, ok := s.open('{', '}')
	for some && ok {
		name := s.name()
		if name.kind == tokenNone {
			return false
		}
		t := s.value()
		if t.kind != tokenString && t.kind != tokenNull {
			return false
		}
		p := pair{null: t.kind == tokenNull}
		var okName, okValue bool
		p.key, okName = d.meaning(name)
		p.value, okValue = d.meaning(t)
		if !okName || !okValue {
			return false
		}
		d.pairs = append(d.pairs, p)
		some, ok = s.more('}')
	}
	return ok && s.end()
}

// meaning is what a string means, without its escapes.
func (d *Decoder) meaning(t token) (text []byte, ok bool) {
	if !t.escaped {
		return t.text, true
	}
	from := len(d.scratch)
	d.scratch, ok = unescape(d.scratch, t.text)
	return d.scratch[from:], ok
}
