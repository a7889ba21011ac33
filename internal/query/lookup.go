package query

import (
	"fmt"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/unstale/unstale/internal/plan"
)

// Lookup runs a query that finds the values of a key for one changed row, for many rows
// at once. The query's parameters are columns of the row; its result has a column for
// each placeholder of the key. columns and key are their types.
func (q *Query) Lookup(columns, key []Type) *plan.Lookup {
	rows := "changed"
	for strings.Contains(strings.ToLower(q.SQL), rows) {
		rows += "_" // a name that the query does not have
	}
	w := &writer{}
	for i, name := range q.Parameters {
		w.arguments = append(w.arguments, plan.Argument{Column: name, Type: columns[i].argument()})
		w.collations = append(w.collations, columns[i].Collation)
	}
	keys, names := make([]string, len(key)), make([]string, len(key))
	for i := range key {
		names[i] = fmt.Sprintf("k%d", i+1)
		keys[i] = asKey("found."+names[i], key[i])
	}
	one := q.With(func(i int) string {
		value := rows + "." + quote(q.Parameters[i])
		if columns[i].array() {
			value = "(" + value + "::" + columns[i].Name + ")"
		}
		return value
	})
	tables, _ := q.Reads() // whether it locks is judged by who takes it
	return &plan.Lookup{
		SQL:       fmt.Sprintf("SELECT DISTINCT %s\nFROM %s, LATERAL (\n%s\n) AS found(%s)", strings.Join(keys, ", "), w.rows(rows), one, strings.Join(names, ", ")),
		Arguments: w.arguments, Written: true, Reads: len(tables),
	}
}

// Reads returns the schemas and names that the query takes tables by; a name without a
// schema may be one of its WITH. Its error is an *Error: a query that locks rows does more
// than read.
func (q *Query) Reads() (tables [][2]string, err error) {
	walk(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: q.tree}}, func(n *pg.Node) bool {
		if n.GetLockingClause() != nil {
			err = &Error{Offset: q.locks(), Text: "FOR UPDATE and FOR SHARE lock rows", Mend: "leave it out"}
		}
		if v := n.GetRangeVar(); v != nil {
			tables = append(tables, [2]string{v.Schemaname, v.Relname})
		}
		return true
	})
	return tables, err
}

// ForOne is the query of which Lookup would make a derived lookup, as Parse reads it. With
// asTexts its result are texts, so that it can stand in a UNION with others. It is not
// ok if a column of the row has no name that could stand behind an @.
func ForOne(l *plan.Lookup, asTexts bool) (text string, ok bool) {
	result, err := pg.Parse(l.SQL)
	if err != nil {
		return "", false
	}
	s := result.Stmts[0].Stmt.GetSelectStmt()
	s.FromClause = s.FromClause[1:] // without the changed rows
	s.DistinctClause = nil
	walk(result.Stmts[0].Stmt, func(n *pg.Node) bool {
		fields := n.GetColumnRef().GetFields()
		if len(fields) == 2 && fields[0].GetString_().GetSval() == "changed" {
			at := slices.IndexFunc(l.Arguments, func(a plan.Argument) bool { return a.Column == fields[1].GetString_().GetSval() })
			n.Node = &pg.Node_ParamRef{ParamRef: &pg.ParamRef{Number: int32(at + 1)}}
		}
		return true
	})
	for _, target := range s.TargetList {
		of := target.GetResTarget()
		cast := of.Val.GetTypeCast()
		if !asTexts && cast != nil && isText(cast.TypeName) && (cast.Arg.GetColumnRef() != nil || cast.Arg.GetParamRef() != nil) {
			of.Val = cast.Arg // Lookup will add it
		}
	}
	one := &Query{tree: s}
	if one.SQL, err = pg.Deparse(result); err != nil {
		return "", false
	}
	if result, err = pg.Parse(one.SQL); err != nil {
		return "", false
	}
	one.tree = result.Stmts[0].Stmt.GetSelectStmt() // with the places in its text
	text = one.With(func(i int) string { return "@" + l.Arguments[i].Column })
	again, err := Parse(text)
	return text, err == nil && len(again.Parameters) > 0 && !slices.ContainsFunc(again.Parameters, func(name string) bool {
		return !slices.ContainsFunc(l.Arguments, func(a plan.Argument) bool { return a.Column == name })
	})
}
