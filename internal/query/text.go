package query

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// untextual says what in a computed value, which is compared with one of that type, may
// make texts equal that differ; empty: nothing does. A domain may have a collation of its
// own.
func (s *scalar) untextual(of Type) (why string) {
	walk(s.node, func(n *pg.Node) bool {
		if n.GetCollateClause() != nil {
			why = "with COLLATE it is not known whether texts that differ are equal"
		}
		if cast := n.GetTypeCast(); cast != nil && namedType(cast.TypeName).Base == "" && (of.Base != "enum" || typeName(cast.TypeName) != of.bareName()) {
			why = fmt.Sprintf("it is cast to %s, of which it is not known whether texts that differ are equal", typeName(cast.TypeName))
		}
		return why == ""
	})
	for _, ref := range s.inOrder() {
		if to := s.references[ref]; why == "" && to.value != nil {
			why = to.value.untextual(of)
		}
	}
	for _, read := range s.reads {
		if of := (column{read.item, read.name}).typ(); why == "" && (of.Nondeterministic || of.Base == "bpchar" || of.Base == "") {
			why = read.name + " " + of.untextual()
		}
	}
	return why
}

// untextual says what a type is whose values are not those of a parameter's family.
func (t Type) untextual() string {
	name := cmp.Or(t.Name, "of an unknown type")
	switch {
	case t.Nondeterministic:
		return "has a collation for which texts that differ may be equal"
	case t.Base == "bpchar":
		return "is char(n), whose blanks at the end count in a text and not in a comparison"
	case t.Base == "name":
		return "is name, which cuts longer texts off: several lead to one value"
	case t.family() == "" && t.Element == "":
		return "is " + name + ", of which values that differ as texts are equal"
	}
	return "is " + name
}

// ofZone reports whether values of the type are written, read, and taken apart in the
// time zone of the session.
func (t Type) ofZone() bool {
	return slices.ContainsFunc([]string{t.Base, t.Element}, func(base string) bool {
		return base == "timestamptz" || base == "timetz" || base == "tstzrange" || base == "tstzmultirange"
	})
}

// ofTime reports whether a literal that stands beside a value of the type may be read in
// another way with other settings.
func (t Type) ofTime() bool {
	return t.ofZone() || slices.ContainsFunc([]string{t.Base, t.Element}, func(base string) bool {
		switch base {
		case "date", "time", "timestamp", "interval", "daterange", "datemultirange", "tsrange", "tsmultirange":
			return true
		}
		return false
	})
}

// ofSettings reports whether how values of the type are written, or are read from a
// text, depends on settings of the session.
func (t Type) ofSettings() bool {
	switch t.Base {
	case "bool", "int2", "int4", "int8", "oid", "numeric", "text", "varchar", "bpchar", "name", "uuid", "enum", "macaddr", "inet", "cidr":
		return false
	}
	return true
}

// ofZone reports whether it reads something that depends on the time zone.
func (s *scalar) ofZone() bool {
	found := slices.ContainsFunc(s.reads, func(read reference) bool { return column{read.item, read.name}.typ().ofZone() })
	walk(s.node, func(n *pg.Node) bool {
		found = found || n.GetTypeCast() != nil && namedType(n.GetTypeCast().TypeName).ofZone()
		return !found
	})
	return found
}

// namedType is the built-in type that a cast names. It has no Base if that is none: a
// domain over whatever it be, an enum, a type of an extension.
func namedType(of *pg.TypeName) Type {
	name := typeName(of)
	if schema := of.Names[0].GetString_().GetSval(); len(of.Names) > 1 && schema != "pg_catalog" || !slices.Contains(builtIn, name) {
		return Type{}
	}
	return Type{Base: name}
}

func typeName(of *pg.TypeName) string { return of.Names[len(of.Names)-1].GetString_().GetSval() }

// builtIn are PostgreSQL's own types.
var builtIn = strings.Fields(`bool int2 int4 int8 float4 float8 numeric money text varchar bpchar char name bytea uuid json jsonb jsonpath xml
	date time timetz timestamp timestamptz interval inet cidr macaddr macaddr8 bit varbit oid regclass regtype regproc regprocedure
	regoper regoperator regrole regnamespace regcollation regconfig regdictionary pg_lsn point line lseg box path polygon circle
	tsvector tsquery int4range int8range numrange daterange tsrange tstzrange
	int4multirange int8multirange nummultirange datemultirange tsmultirange tstzmultirange`)

// floats reports whether it reads or makes floats, of which one is equal to many whole
// numbers.
func (s *scalar) floats() bool {
	float := func(of Type) bool { return of.Base == "float4" || of.Base == "float8" }
	found := false
	walk(s.node, func(n *pg.Node) bool {
		found = found || n.GetTypeCast() != nil && float(namedType(n.GetTypeCast().TypeName))
		return !found
	})
	for _, to := range s.references {
		found = found || to.value != nil && to.value.floats()
	}
	return found || slices.ContainsFunc(s.reads, func(read reference) bool { return float(column{read.item, read.name}.typ()) })
}

// steady reports whether it is the same in every session, so that a lookup finds what
// the application's session had: nothing in it depends on TimeZone, DateStyle or
// another setting. Columns that depend on those are steady by themselves, and compared
// with others of their type.
func (s *scalar) steady() bool { return s.column() != nil || s.steadyIn(s.node, s.ofTimes()) }

// ofTimes reports whether it reads or makes something beside which a literal may be a time.
func (s *scalar) ofTimes() bool {
	found := slices.ContainsFunc(s.reads, func(read reference) bool {
		return read.item != nil && read.name != "" && column{read.item, read.name}.typ().ofTime()
	})
	walk(s.node, func(n *pg.Node) bool {
		if cast := n.GetTypeCast(); cast != nil {
			of := namedType(cast.TypeName)
			found = found || of.ofTime() || of.Base == ""
		}
		return !found
	})
	for _, to := range s.references {
		found = found || to.value != nil && to.value.ofTimes()
	}
	return found
}

// clearText are literals that are the same time, or none, whatever DateStyle and
// IntervalStyle are: 01/02/2026 is a day of January or of February.
var clearText = regexp.MustCompile(`^([^0-9]*|[0-9]{4}-[0-9]{2}-[0-9]{2}([ T]([0-9]{2}:){1,2}[0-9]{2}(\.[0-9]+)?)?|([0-9]{2}:){1,2}[0-9]{2}(\.[0-9]+)?|[0-9]+ [a-z]+( [0-9]{2}:[0-9]{2}:[0-9]{2})?)$`)

func (s *scalar) steadyIn(root *pg.Node, times bool) bool {
	fine := true
	walk(root, func(n *pg.Node) bool {
		if !fine {
			return false
		}
		switch n := n.Node.(type) {
		case *pg.Node_ColumnRef:
			to := s.references[n.ColumnRef]
			switch {
			case to == nil:
			case to.value != nil:
				fine = to.value.steadyIn(to.value.node, times)
			case to.item != nil && to.item.kind == itemTable && to.name != "":
				fine = !column{to.item, to.name}.typ().ofZone()
			}
			return false
		case *pg.Node_AConst:
			fine = !times || clearText.MatchString(n.AConst.GetSval().GetSval())
		case *pg.Node_AIndirection:
			// Of what type the field of a row is nobody knows.
			fine = !slices.ContainsFunc(n.AIndirection.Indirection, func(part *pg.Node) bool { return part.GetString_() != nil })
		case *pg.Node_NullTest:
			return s.bareType(n.NullTest.Arg) == nil
		case *pg.Node_AExpr:
			if n.AExpr.Kind != pg.A_Expr_Kind_AEXPR_OP || n.AExpr.Lexpr == nil {
				return true
			}
			switch operator(n.AExpr) {
			case "=", "<>", "!=", "<", "<=", ">", ">=":
				left, right := s.bareType(n.AExpr.Lexpr), s.bareType(n.AExpr.Rexpr)
				return left == nil || right == nil || left.Base != right.Base
			case "||":
				fine = !s.written(n.AExpr.Lexpr) && !s.written(n.AExpr.Rexpr)
			}
		case *pg.Node_TypeCast:
			to := namedType(n.TypeCast.TypeName)
			switch to.Base {
			case "":
				fine = n.TypeCast.Arg.GetAConst() != nil
			case "timestamptz", "timetz":
				fine = false
			case "text", "varchar", "bpchar", "name", "json", "jsonb":
				fine = !s.written(n.TypeCast.Arg)
			case "date", "time", "timestamp", "interval":
				// Of a text, and of what a function returns, it may depend on settings.
				of := s.bareType(n.TypeCast.Arg)
				fine = n.TypeCast.Arg.GetAConst() != nil || of != nil && (of.Base == "date" || of.Base == "timestamp" || of.Base == "time" || of.Base == "interval") || s.ofTime(n.TypeCast.Arg)
			}
		case *pg.Node_FuncCall:
			call := n.FuncCall
			name := call.Funcname[len(call.Funcname)-1].GetString_().GetSval()
			switch name {
			case "timezone":
				fine = s.ofTime(&pg.Node{Node: n})
				return false
			case "date_trunc", "date_part", "extract":
				fine = false
				if len(call.Args) == 2 {
					of := s.bareType(call.Args[1])
					fine = s.ofTime(call.Args[1]) || of != nil && (of.Base == "timestamp" || of.Base == "interval" || name != "date_trunc" && (of.Base == "date" || of.Base == "time"))
				}
				return false
			case "concat", "concat_ws", "format", "quote_literal", "quote_nullable", "array_to_string", "string_to_array":
				fine = !slices.ContainsFunc(call.Args, s.written)
			default:
				fine = !slices.Contains(ofArgumentsOnly, name)
			}
		}
		return fine
	})
	return fine
}

// bareType is the type of a column that stands there by itself, nil if none does.
func (s *scalar) bareType(node *pg.Node) *Type {
	to := s.references[node.GetColumnRef()]
	if node.GetColumnRef() == nil || to == nil {
		return nil
	}
	if to.value != nil {
		return to.value.bareType(to.value.node)
	}
	if to.item == nil || to.item.kind != itemTable || to.name == "" {
		return nil
	}
	of := column{to.item, to.name}.typ()
	return &of
}

// ofTime reports whether it is a timestamp without time zone in every session: one
// AT TIME ZONE that is written out, or cut off.
func (s *scalar) ofTime(node *pg.Node) bool {
	if to := s.references[node.GetColumnRef()]; node.GetColumnRef() != nil && to != nil && to.value != nil {
		return to.value.ofTime(to.value.node)
	}
	call := node.GetFuncCall()
	if call == nil || len(call.Args) != 2 {
		return false
	}
	of := s.bareType(call.Args[1])
	switch call.Funcname[len(call.Funcname)-1].GetString_().GetSval() {
	case "timezone":
		return call.Args[0].GetAConst().GetSval() != nil && of != nil && of.Base == "timestamptz"
	case "date_trunc":
		return s.ofTime(call.Args[1]) || of != nil && of.Base == "timestamp"
	}
	return false
}

// written reports whether a node's text may depend on settings of the session.
func (s *scalar) written(node *pg.Node) bool {
	found := false
	walk(node, func(n *pg.Node) bool {
		switch {
		case n.GetColumnRef() != nil:
			to := s.references[n.GetColumnRef()]
			if to != nil && to.value != nil {
				found = found || to.value.written(to.value.node)
			} else if of := s.bareType(n); of != nil {
				found = found || of.ofSettings()
			}
		case n.GetTypeCast() != nil:
			switch namedType(n.GetTypeCast().TypeName).Base {
			case "":
				found = found || n.GetTypeCast().Arg.GetAConst() == nil
			case "date", "time", "timestamp", "interval", "timestamptz", "timetz", "money", "bytea", "float4", "float8":
				found = true
			}
		}
		return !found
	})
	return found
}

// equalAsText reports whether values of it that are equal are of equal columns, so
// that each of a group says what all of it do: 1 and 1.0 are one group, and which of
// them it shows is not known.
func (s *scalar) equalAsText() bool {
	return !slices.ContainsFunc(s.reads, func(read reference) bool {
		return read.item == nil || read.name == "" || column{read.item, read.name}.typ().family() == ""
	})
}
