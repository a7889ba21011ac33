package value

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/unstale/unstale/internal/change"
)

// A node renders the text of one type.
type node struct {
	kind      kind
	delimiter byte    // of an array
	element   *node   // of an array
	fields    []field // of a composite
	height    int     // of the tree below, this node included
}

type field struct {
	prefix []byte // what stands before the value: "a": or ,"b":
	node   *node
}

// kind is how the JSON of a type is made of its text.
type kind uint8

const (
	asString kind = iota
	asNumber
	asBoolean
	asTimestamp
	asTimestamptz
	asJSON // as it is
	asArray
	asVector // an array too: of int2vector, oidvector
	asObject
	asHstore
)

// typeHeightMax bounds the recursion of rendering: that many arrays and
// composites may be inside each other.
const typeHeightMax = 32

// firstUserOID: types below it are PostgreSQL's own (FirstNormalObjectId).
const firstUserOID = 16384

const oidInt2vector, oidOidvector = 22, 30

// builtIn are the base types whose JSON is known, by oid. A type that is not
// here is refused: a coming version may print it otherwise.
var builtIn = map[uint32]kind{
	16: asBoolean,
	20: asNumber, 21: asNumber, 23: asNumber, 700: asNumber, 701: asNumber, 1700: asNumber, // int8 int2 int4 float4 float8 numeric
	1114: asTimestamp, 1184: asTimestamptz,
	114: asJSON, 3802: asJSON, // jsonb
	17: asString, 18: asString, 19: asString, 25: asString, 1042: asString, 1043: asString, // bytea "char" name text bpchar varchar
	26: asString, 27: asString, 28: asString, 29: asString, 5069: asString, // oid tid xid cid xid8
	600: asString, 601: asString, 602: asString, 603: asString, 604: asString, 628: asString, 718: asString, // point lseg path box polygon line circle
	650: asString, 869: asString, 774: asString, 829: asString, // cidr inet macaddr8 macaddr
	1082: asString, 1083: asString, 1266: asString, 1186: asString, // date time timetz interval
	1560: asString, 1562: asString, 2950: asString, 1790: asString, // bit varbit uuid refcursor
	142: asString, 4072: asString, 3614: asString, 3615: asString, // xml jsonpath tsvector tsquery
	3220: asString, 2970: asString, 5038: asString, // pg_lsn txid_snapshot pg_snapshot
}

// Why the text of a type of PostgreSQL's own is not the same in every session.
const (
	resolved = "is printed as the session's search_path and the catalog have it"
	monetary = "is printed as the session's lc_monetary has it"
)

var unsteady = map[uint32]string{
	24: resolved, 2202: resolved, 2203: resolved, 2204: resolved, 2205: resolved, 2206: resolved, // regproc regprocedure regoper regoperator regclass regtype
	3734: resolved, 3769: resolved, 4089: resolved, 4096: resolved, 4191: resolved, // regconfig regdictionary regnamespace regrole regcollation
	1033: resolved, // aclitem
	790:  monetary, // money
}

// compiler keeps the nodes by type, so that a type that many fields share is
// compiled once, however often it is reached. A nil node is being compiled.
type compiler map[*Type]*node

func (c compiler) compile(t *Type) (n *node, reason string) {
	if t == nil {
		return nil, "its type is not in the catalog"
	}
	if known, ok := c[t]; ok {
		if known == nil {
			return nil, t.Name + " contains itself"
		}
		return known, ""
	}
	c[t] = nil
	n = &node{height: 1}
	switch t.Kind {
	case Array:
		n.kind, n.delimiter = asArray, t.Delimiter
		if t.OID == oidInt2vector || t.OID == oidOidvector {
			n.kind = asVector
		}
		if n.delimiter != ',' && n.delimiter != ';' {
			return nil, fmt.Sprintf("elements of %s are delimited by %q", t.Name, n.delimiter)
		}
		if n.element, reason = c.compile(t.Element); reason != "" {
			return nil, reason
		}
		n.height += n.element.height
	case Composite:
		n.kind = asObject
		for i, f := range t.Fields {
			inner, reason := c.compile(f.Type)
			if reason != "" {
				return nil, reason
			}
			n.fields = append(n.fields, field{prefix: prefix(i, f.Name), node: inner})
			n.height = max(n.height, 1+inner.height)
		}
	case Range:
		// Its text is made of the texts of what it spans.
		if _, reason := c.compile(t.Element); reason != "" {
			return nil, reason
		}
		n.kind, reason = userKind(t)
	case Enum:
		n.kind, reason = userKind(t)
	case Base:
		if t.OID >= firstUserOID {
			n.kind, reason = userKind(t)
			break
		}
		var known bool
		if n.kind, known = builtIn[t.OID]; !known {
			reason = t.Name + " " + unsteady[t.OID]
			if unsteady[t.OID] == "" {
				reason = "the JSON of " + t.Name + " is not known"
			}
		}
	default:
		panic(fmt.Sprintf("kind %d of type %s", t.Kind, t.Name))
	}
	if n.height > typeHeightMax {
		reason = t.Name + " is nested too deeply"
	}
	if reason != "" {
		return nil, reason
	}
	c[t] = n
	return n, ""
}

// userKind is the kind of a type that is neither array nor composite, and that
// may have a cast to json.
func userKind(t *Type) (kind, string) {
	switch {
	case t.Cast == "hstore.hstore_to_json":
		return asHstore, ""
	case t.Cast != "":
		return 0, t.Name + " has a cast to json of its own"
	case t.Volatile && t.Kind == Base:
		return 0, "the text of " + t.Name + " may depend on the session"
	}
	return asString, ""
}

// prefix is what stands before the value of the i-th column or field.
func prefix(i int, name string) []byte {
	var b []byte
	if i > 0 {
		b = append(b, ',')
	}
	return append(appendString(b, []byte(name)), ':')
}

// Compile prepares rendering rows of relation r, as the log describes it now,
// with the given columns; nil means all. If they cannot be rendered exactly,
// the Program is nil and reason says why.
//
// The log must describe the table as the catalog does. It may lack columns that
// are not asked for, as a column list or a generated column makes it; but where
// names, order or types differ, one of the two is older than the other.
func (s *Shape) Compile(r *change.Relation, columns []string) (p *Program, reason string) {
	places, reason := s.places(r)
	if reason != "" {
		return nil, reason
	}
	for _, name := range columns {
		if !slices.ContainsFunc(s.Columns, func(c Column) bool { return c.Name == name }) {
			return nil, fmt.Sprintf("there is no column %q", name)
		}
	}
	types := compiler{}
	p = &Program{}
	for i, c := range s.Columns {
		if columns != nil && !slices.Contains(columns, c.Name) {
			continue
		}
		switch {
		case places[i] < 0 && c.Generated:
			return nil, fmt.Sprintf("column %q is generated, and the log does not have it", c.Name)
		case places[i] < 0:
			return nil, fmt.Sprintf("the log does not have column %q", c.Name)
		}
		n, reason := types.compile(c.Type)
		if reason != "" {
			return nil, fmt.Sprintf("column %q: %s", c.Name, reason)
		}
		p.columns = append(p.columns, places[i])
		p.steps = append(p.steps, step{
			value:  len(p.steps),
			prefix: prefix(len(p.steps), c.Name),
			name:   append(binary.AppendUvarint(nil, uint64(len(c.Name))), c.Name...),
			column: c.Name,
			node:   n,
		})
	}
	return p, ""
}

// places returns for each column where the log has it, or -1.
func (s *Shape) places(r *change.Relation) (places []int, reason string) {
	next := 0
	for i, c := range r.Columns {
		for next < len(s.Columns) && s.Columns[next].Name != c.Name {
			places = append(places, -1)
			next++
		}
		if next == len(s.Columns) {
			return nil, fmt.Sprintf("the catalog does not have column %q where the log has it", c.Name)
		}
		if have := s.Columns[next]; have.TypeOID != c.TypeOID || have.TypeMod != c.TypeMod {
			return nil, fmt.Sprintf("column %q has another type in the log than in the catalog", c.Name)
		}
		places = append(places, i)
		next++
	}
	for ; next < len(s.Columns); next++ {
		places = append(places, -1)
	}
	return places, ""
}
