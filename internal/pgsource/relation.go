package pgsource

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/unstale/unstale/internal/change"
)

// A relation is what the stream knows of a table: as the log described it, and
// compiled for reading its rows.
type relation struct {
	*change.Relation
	message []byte // as it came, to see whether another one says the same
	// slots[i] is 1 + the place of column i among the wanted values, 0 if it is
	// not wanted. lastWanted is the index of the last wanted column, -1 if
	// there is none.
	slots      []uint16
	lastWanted int
}

// relations finds a relation by its oid.
//
// It outlives a connection, so that a table which did not change keeps its
// number, and with it what a planner compiled for it. The server describes
// each table again in each session before its first row.
//
// What is kept is bounded, in two generations. Where the young one is full it
// becomes the old one, and what was left of the old one is forgotten: what is
// used moves to the young one, so half of the limit is never forgotten while
// it is in use. A transaction may therefore touch any number of tables, one
// after another; one that keeps coming back to more than are kept cannot be
// read.
type relations struct {
	compile      func(*change.Relation) []int
	relationsMax int
	bytesMax     int

	young, old map[uint32]*relation // by oid; none is in both
	bytes      int                  // of the messages of the young ones
	forgot     bool                 // in this session
	count      int                  // of all numbers ever given
	near       [256]*relation       // the last young one for each low byte of the oid
}

// errRelations: the row is of a table that was forgotten, and the server
// describes none twice in a session. The owner of the source must attach again.
var errRelations = errors.New("a row of a table that was forgotten, more being in use than are kept: the stream must be attached again")

func newRelations(compile func(*change.Relation) []int, relationsMax, bytesMax int) *relations {
	return &relations{
		compile:      compile,
		relationsMax: relationsMax,
		bytesMax:     bytesMax,
		young:        make(map[uint32]*relation),
	}
}

func (r *relations) find(oid uint32) *relation {
	if near := r.near[oid&0xff]; near != nil && near.OID == oid {
		return near
	}
	found := r.young[oid]
	if found == nil {
		if found = r.old[oid]; found == nil {
			return nil
		}
		delete(r.old, oid)
		r.keep(found)
	}
	r.near[oid&0xff] = found
	return found
}

// keep adds a relation, which is not among them, to the young ones.
func (r *relations) keep(added *relation) {
	if len(r.young) >= (r.relationsMax+1)/2 || len(r.young) > 0 && r.bytes+len(added.message) > r.bytesMax/2 {
		r.forgot = r.forgot || len(r.old) > 0
		r.old, r.young, r.bytes = r.young, make(map[uint32]*relation), 0
		clear(r.near[:])
	}
	r.young[added.OID] = added
	r.bytes += len(added.message)
}

// beginSession says that the server will describe every table again.
func (r *relations) beginSession() { r.forgot = false }

// learn reads a Relation message, without its type byte.
func (r *relations) learn(message []byte) error {
	if len(message) < 4 {
		return errors.New("relation message is cut short")
	}
	oid := binary.BigEndian.Uint32(message)
	known := r.find(oid)
	if known != nil && bytes.Equal(known.message, message) {
		return nil
	}
	described, err := parseRelation(message)
	if err != nil {
		return fmt.Errorf("relation message of oid %d: %w", oid, err)
	}
	r.count++
	described.Number = r.count
	compiled := &relation{Relation: described, message: bytes.Clone(message)}
	compiled.want(r.compile(described))
	if known != nil {
		delete(r.young, oid) // where find has put it
		r.bytes -= len(known.message)
	}
	r.keep(compiled)
	r.near[oid&0xff] = compiled
	return nil
}

// want compiles the relation for reading the columns wanted.
func (r *relation) want(wanted []int) {
	if !slices.IsSorted(wanted) || len(wanted) > 0 && (wanted[0] < 0 || wanted[len(wanted)-1] >= len(r.Columns)) {
		panic(fmt.Sprintf("compile wants the columns %v of %d of %s.%s", wanted, len(r.Columns), r.Schema, r.Name))
	}
	r.Wanted = slices.Clone(wanted)
	r.slots = make([]uint16, len(r.Columns))
	r.lastWanted = -1
	for i, column := range wanted {
		if column == r.lastWanted {
			panic(fmt.Sprintf("compile wants column %d of %s.%s twice", column, r.Schema, r.Name))
		}
		r.slots[column] = uint16(i + 1)
		r.lastWanted = column
	}
}

// columnBytesMin is the least that a column takes in a Relation message: flags,
// an empty name, type and modifier.
const columnBytesMin = 1 + 1 + 4 + 4

func parseRelation(b []byte) (*change.Relation, error) {
	p := parser{rest: b}
	r := &change.Relation{OID: p.uint32()}
	r.Schema, r.Name = p.text(), p.text()
	r.Identity = change.Identity(p.byte())
	columns := int(p.uint16())
	if p.short || columns > len(p.rest)/columnBytesMin {
		return nil, errors.New("it is cut short")
	}
	if r.Schema == "" {
		r.Schema = "pg_catalog" // as the protocol abbreviates it
	}
	r.Columns = make([]change.Column, columns)
	for i := range r.Columns {
		r.Columns[i] = change.Column{
			Identifies: p.byte()&1 != 0,
			Name:       p.text(),
			TypeOID:    p.uint32(),
			TypeMod:    int32(p.uint32()),
		}
	}
	switch {
	case p.short:
		return nil, errors.New("it is cut short")
	case len(p.rest) > 0:
		return nil, fmt.Errorf("%d bytes behind its end", len(p.rest))
	}
	return r, nil
}

// A parser reads the parts of a rare message. Reading past the end gives zeros
// and sets short.
type parser struct {
	rest  []byte
	short bool
}

func (p *parser) take(n int) []byte {
	if len(p.rest) < n {
		p.rest, p.short = nil, true
		return nil
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) byte() byte {
	if b := p.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (p *parser) uint16() uint16 {
	if b := p.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (p *parser) uint32() uint32 {
	if b := p.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (p *parser) uint64() uint64 {
	if b := p.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// text reads up to a zero byte.
func (p *parser) text() string {
	end := bytes.IndexByte(p.rest, 0)
	if end < 0 {
		p.rest, p.short = nil, true
		return ""
	}
	s := string(p.rest[:end])
	p.rest = p.rest[end+1:]
	return s
}
