package debezium

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/value"
)

// A reader is what it takes to read the rows of one table: what its relation is,
// and how each text is made.
type reader struct {
	name    TableName
	key     *keySchema
	forgets uint64
	table   *Table // as it was described
	// relation is nil if no entry is over the table; then there is nothing else.
	relation *change.Relation
	full     bool
	fields   []field   // of the row
	columns  []*column // by field
	known    []bool    // by field: which column it is
	slots    []int     // by field, -1 if it is not wanted
	// unidentified are the slots of the columns that are not part of the replica
	// identity.
	unidentified []int
	// dates are the slots of dates, which a snapshot sends without their era.
	dates []int

	// As the last message had them.
	connector, database string
}

// A keySchema is what is known of keys of one schema.
type keySchema struct {
	signature []byte // of JSON without a schema: the names of its members
	fields    []field
	types     []*avroType // of the fields, in Avro
	// of is the table whose messages had it. If two tables' messages had it, it
	// names none.
	of        *reader
	ambiguous bool

	// How a tombstone's key is read as a row of that table.
	compiled *reader
	program  program
	columns  []*column // by field
	slots    []int
}

// keyOf returns the schema of a key.
func (d *Decoder) keyOf(ctx context.Context, key []byte) (*keySchema, error) {
	if id, ok := avroID(key); ok {
		if s := d.lastKey; s != nil && s.id == id {
			return s.key, nil
		}
		s, err := d.schema(ctx, key, id, &d.lastKey)
		if err != nil {
			return nil, err
		}
		return s.key, nil
	}
	if !looksLikeJSON(key) {
		return &d.noKey, nil
	}
	block, payload, ok := d.split(key, d.lastKeyBlock)
	if !ok || payload == nil {
		return &d.noKey, nil
	}
	if block != nil && string(block) != "null" {
		return d.jsonSchema(block, &d.lastKeyBlock).key, nil
	}
	d.signature = d.signature[:0]
	if !d.sign(payload) {
		return &d.noKey, nil
	}
	if k := d.lastPlainKey; k != nil && string(k.signature) == string(d.signature) {
		return k, nil
	}
	k, ok := d.plainKeys.get(d.signature)
	if !ok {
		k = &keySchema{signature: bytes.Clone(d.signature), fields: d.members(payload), ambiguous: true}
		d.plainKeys.put(k.signature, k)
	}
	d.lastPlainKey = k
	return k, nil
}

// reads reports whether r reads what was captured, beside keys of schema k.
func (r *reader) reads(d *Decoder, k *keySchema) bool {
	return string(d.capturedText(captureTable)) == r.name.Table && string(d.capturedText(captureSchema)) == r.name.Schema &&
		r.key == k && r.forgets == d.forgets.Load()
}

// keptNulls reports whether a converter has left NULLs alone. A row that no
// snapshot read has none for source.snapshot, which has a default: so it shows
// there what the converter does.
func (d *Decoder) keptNulls() bool { return d.captured[captureSnapshot].n == wasNull }

// known says why what was captured cannot be of a table.
func (d *Decoder) known() (reason string) {
	switch {
	case len(d.capturedText(captureOp)) != 1:
		return reasonOp
	case len(d.capturedText(captureTable)) == 0 || len(d.capturedText(captureSchema)) == 0:
		return reasonTable
	}
	return ""
}

// newReader compiles for the table that was captured, whose rows have fields.
func (d *Decoder) newReader(ctx context.Context, fields []field, k *keySchema) (*reader, error) {
	r := &reader{
		name:    TableName{d.intern(d.capturedText(captureSchema)), d.intern(d.capturedText(captureTable))},
		key:     k,
		fields:  fields,
		forgets: d.forgets.Load(),
	}
	as, wanted := r.name, d.options.Wanted(r.name.Schema, r.name.Table)
	if !wanted && d.options.Root != nil {
		var err error
		if as, wanted, err = d.options.Root(ctx, r.name.Schema, r.name.Table); err != nil {
			return nil, err
		}
	}
	if k.of != nil && k.of.name != r.name {
		k.ambiguous = true
	}
	k.of = r
	if !wanted {
		return r, nil
	}
	t := d.options.Table(r.name.Schema, r.name.Table)
	r.table = t
	relation := &change.Relation{Schema: as.Schema, Name: as.Table, Identity: change.IdentityDefault}
	var catalog []string
	if t != nil {
		if r.full = t.Full; r.full {
			relation.Identity = change.IdentityFull
		}
		for _, c := range t.Shape.Columns {
			catalog = append(catalog, c.Name)
		}
	}
	names, known := columnNames(fields, catalog)
	r.known = known
	for i := range fields {
		c, text := d.describe(t, &fields[i], names[i], known[i])
		c.Identifies = r.full || isKey(k.fields, &fields[i]) && (t == nil || slices.Contains(t.Key, c.Name))
		c.Keyed = isKey(k.fields, &fields[i])
		relation.Columns = append(relation.Columns, c)
		r.columns = append(r.columns, text)
	}
	unkey(relation, len(k.fields))
	if r.relation = d.relation(relation); r.relation == nil {
		k.of, k.ambiguous = nil, true
		return nil, &Undecodable{Reason: reasonRelations, Source: d.source(nil)}
	}
	r.slots = make([]int, len(fields))
	for i := range r.slots {
		r.slots[i] = -1
	}
	for slot, i := range r.relation.Wanted {
		r.slots[i] = slot
		if !r.relation.Columns[i].Identifies {
			r.unidentified = append(r.unidentified, slot)
		}
		if r.columns[i].rule == ruleDate {
			r.dates = append(r.dates, slot)
		}
	}
	if len(d.readers) >= tablesMax {
		clear(d.readers)
	}
	d.readers[r.name] = r
	return r, nil
}

// describe says what column a field is, and how its text is made.
func (d *Decoder) describe(t *Table, f *field, name string, known bool) (change.Column, *column) {
	c := change.Column{Name: name, TypeMod: -1}
	if t == nil {
		var how *column
		c.TypeOID, how = d.guess(f)
		return c, how
	}
	at := slices.IndexFunc(t.Shape.Columns, func(c value.Column) bool { return c.Name == name })
	if !known || at < 0 {
		return c, d.columnOf(nil, -1, f)
	}
	found := &t.Shape.Columns[at]
	c.TypeOID, c.TypeMod = found.TypeOID, found.TypeMod
	of := found.Type
	if found.Generated {
		of = nil // a NULL is sent as something else
	}
	how := d.columnOf(of, found.TypeMod, f)
	if f.form == formUnknown && slices.Contains(t.Defaulted, name) {
		how.doubtful = true
	}
	return c, how
}

func isKey(key []field, f *field) bool {
	return slices.ContainsFunc(key, func(k field) bool { return k.name == f.name })
}

// unkey has no column Keyed, unless the record's key has no other parts, and an old
// row shows all of them. Debezium sends a change of such columns as a delete under
// the old key and an insert under the new one; of others it cannot know.
func unkey(r *change.Relation, parts int) {
	sound := func(c change.Column) bool { return c.Keyed && c.Identifies }
	keyed := 0
	for _, c := range r.Columns {
		if sound(c) {
			keyed++
		}
	}
	if keyed == parts {
		return
	}
	for i := range r.Columns {
		r.Columns[i].Keyed = false
	}
}

// relation returns the relation that is made of the same: it has a number, and
// what is wanted of it. It is nil if there are too many.
func (d *Decoder) relation(described *change.Relation) *change.Relation {
	made := strconv.AppendQuote(nil, described.Schema)
	made = strconv.AppendQuote(made, described.Name)
	made = append(made, byte(described.Identity))
	for _, c := range described.Columns {
		made = strconv.AppendQuote(made, c.Name)
		made = binary.BigEndian.AppendUint32(made, c.TypeOID)
		made = binary.BigEndian.AppendUint32(made, uint32(c.TypeMod))
		made = strconv.AppendBool(strconv.AppendBool(made, c.Identifies), c.Keyed)
	}
	if known := d.relations[string(made)]; known != nil {
		return known
	}
	if len(d.relations) >= relationsMax {
		return nil
	}
	described.Number = len(d.relations) + 1
	described.Wanted = slices.Clone(d.options.Compile(described))
	d.relations[string(made)] = described
	return described
}

// intern returns a string that is the same for the same bytes.
func (d *Decoder) intern(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if s, ok := d.strings[string(b)]; ok {
		return s
	}
	if len(d.strings) >= stringsMax {
		clear(d.strings)
	}
	s := string(b)
	d.strings[s] = s
	return s
}

// source is the source that was captured; r, which may be nil, reads it.
func (d *Decoder) source(r *reader) Source {
	name, database := d.capturedText(captureName), d.capturedText(captureDatabase)
	if r == nil {
		return Source{d.intern(name), d.intern(database), d.intern(d.capturedText(captureSchema)), d.intern(d.capturedText(captureTable))}
	}
	if string(name) != r.connector {
		r.connector = d.intern(name)
	}
	if string(database) != r.database {
		r.database = d.intern(database)
	}
	return Source{r.connector, r.database, r.name.Schema, r.name.Table}
}

// finish makes an event of what was captured and read.
func (d *Decoder) finish(r *reader, e *Event) error {
	e.Source = d.source(r)
	e.Relation = r.relation
	e.LSN = uint64(d.captured[captureLSN].n)
	e.XID = uint64(d.captured[captureXID].n)
	e.CommittedAt = d.captured[captureMicros].n
	if e.CommittedAt == 0 {
		e.CommittedAt = d.captured[captureMillis].n * 1000
	}
	e.Sequence = sequence(d.capturedText(captureSequence))
	switch b := d.capturedText(captureSnapshot); {
	case len(b) == 0 || string(b) == "false":
	case string(b) == "incremental":
		e.Snapshot = Incremental
	default:
		e.Snapshot = Initial
	}
	if e.Snapshot != None {
		e.XID = 0
	}
	if len(d.capturedText(captureOp)) != 1 {
		return &Undecodable{Reason: reasonOp, Source: e.Source}
	}
	switch e.Op = d.capturedText(captureOp)[0]; e.Op {
	case 'c', 'r', 'u':
		if e.New.Kind == change.Absent {
			return &Undecodable{Reason: reasonRow, Source: e.Source}
		}
		e.Kind = Row
	case 'd':
		e.Kind = Row
	case 't':
		e.Kind = Truncate
	case 'm':
		e.Kind = Other
	default:
		return &Undecodable{Reason: reasonOp, Source: e.Source}
	}
	if r.relation == nil {
		return nil
	}
	if e.Op == 'r' {
		for _, slot := range r.dates {
			if v := &e.New.Values[slot]; v.State == change.Text {
				*v = change.Value{}
			}
		}
	}
	if e.Old.Kind != change.Absent && !r.full {
		e.Old.Kind = change.IdentityOnly
		for _, slot := range r.unidentified {
			e.Old.Values[slot] = change.Value{}
		}
	}
	if e.Old.Kind == change.Whole && e.New.Kind == change.Whole {
		keepUnchanged(e.New.Values, e.Old.Values)
	}
	return nil
}

// keepUnchanged takes the values that the update did not touch from the old row.
func keepUnchanged(updated, old []change.Value) {
	for i := range updated {
		if updated[i].State == change.Unchanged && old[i].State == change.Text {
			updated[i] = old[i]
		}
	}
}

// sequence reads ["24023128","24023192"]; in a snapshot there is null for the
// first.
func sequence(b []byte) (s [2]uint64) {
	const open, between = `["`, `","`
	if len(b) > len(open) && string(b[:len(open)]) == open {
		var i int
		if s[0], i = leadingDigits(b, len(open)); len(b)-i > len(between) && string(b[i:i+len(between)]) == between {
			s[1], _ = leadingDigits(b, i+len(between))
			return s
		}
	}
	i := 0
	for place := range s {
		for i < len(b) && !isDigit(b[i]) && b[i] != ',' {
			i++
		}
		s[place], i = leadingDigits(b, i)
		for i < len(b) && b[i] != ',' {
			i++
		}
		i++
	}
	return s
}
