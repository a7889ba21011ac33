package debezium

import (
	"context"
	"slices"

	"github.com/unstale/unstale/internal/change"
)

// tombstone reads the key of a message without a value.
func (d *Decoder) tombstone(ctx context.Context, key []byte, e *Event) error {
	e.Kind = Tombstone
	k, err := d.keyOf(ctx, key)
	if err != nil {
		return err
	}
	if k.ambiguous || k.of == nil {
		return nil
	}
	r := k.of
	e.Source = Source{r.connector, r.database, r.name.Schema, r.name.Table}
	if r.relation == nil {
		return nil
	}
	if k.compiled != r {
		d.compileKey(k, r)
	}
	values := d.values(roleBefore, len(r.relation.Wanted))
	d.begin()
	if _, ok := avroID(key); ok {
		if d.run(&k.program, key, avroHeader, values, 0) != len(key) {
			return &Undecodable{Reason: reasonShort}
		}
	} else if !d.readJSONKey(k, key, values) {
		return &Undecodable{Reason: reasonJSON}
	}
	d.resolve(false)
	for _, slot := range r.unidentified {
		values[slot] = change.Value{}
	}
	e.Relation = r.relation
	e.Old = change.Row{Kind: change.IdentityOnly, Values: values}
	return nil
}

// compileKey prepares for reading keys as rows of r's table.
func (d *Decoder) compileKey(k *keySchema, r *reader) {
	k.compiled, k.program, k.columns, k.slots = r, program{}, nil, nil
	for i := range k.fields {
		slot, how := -1, &column{}
		if at := slices.IndexFunc(r.fields, func(f field) bool { return f.name == k.fields[i].name }); at >= 0 {
			slot = r.slots[at]
			_, how = d.describe(r.table, &k.fields[i], r.relation.Columns[at].Name, r.known[at])
		}
		k.columns, k.slots = append(k.columns, how), append(k.slots, slot)
		if k.types == nil {
			continue
		}
		if slot >= 0 && how.rule != ruleNone {
			k.program.take(k.types[i], slot, how)
		} else {
			k.program.skip(k.types[i])
		}
	}
}

// readJSONKey reads the wanted members of a key.
func (d *Decoder) readJSONKey(k *keySchema, key []byte, values []change.Value) bool {
	_, payload, ok := d.split(key, nil)
	if !ok {
		return false
	}
	s := scanner{b: payload}
	some, ok := s.open('{', '}')
	for some && ok {
		name, known := d.meaning(s.name())
		t := s.value()
		if !known || t.kind == tokenNone {
			return false
		}
		if at := slices.IndexFunc(k.fields, func(f field) bool { return f.name == string(name) }); at >= 0 && k.slots[at] >= 0 {
			d.setJSON(&values[k.slots[at]], k.columns[at], t)
		}
		some, ok = s.more('}')
	}
	return ok && s.end()
}
