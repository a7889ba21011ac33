// Package query derives from the SQL of a cached result what a change to each of
// its tables does to its keys.
//
// A query is read with PostgreSQL's own grammar and resolved against the catalog.
// For every place where it reads a table, the conditions that hold for whatever a
// row there contributes lead from the row to the values of the parameters:
// through columns of the row itself, or through the rows of other tables, by a
// lookup. It never narrows by what it does not understand: a condition that is
// beyond it is left out, so that more keys are dropped and none too few, and where
// a parameter cannot be reached every key of the entry is concerned. What could
// hide a change, such as a function that reads tables, is refused.
//
// It does no I/O: a Catalog answers it.
package query

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"github.com/pganalyze/pg_query_go/v6/parser"
)

// A Query is a SELECT with @parameters.
type Query struct {
	// SQL has $1 for Parameters[0], and so on.
	SQL        string
	Parameters []string

	text  string  // as it was written
	moved []moved // places where SQL and text part
	tree  *pg.SelectStmt
}

// moved says that the byte at of SQL is the byte from of text.
type moved struct{ at, from int }

// An Error is what is wrong with a query, and where.
type Error struct {
	Offset int // byte of the query as it was written; -1: the whole
	Text   string
	Mend   string
}

func (e *Error) Error() string {
	if e.Mend == "" {
		return e.Text
	}
	return e.Text + "; " + e.Mend
}

// Parse reads one SELECT. Its error is always an *Error.
func Parse(text string) (*Query, error) {
	q := &Query{text: text}
	q.number()
	result, err := pg.Parse(q.SQL)
	if err != nil {
		if syntax, ok := errors.AsType[*parser.Error](err); ok {
			return nil, q.At(syntax.Cursorpos, syntax.Message, q.mendAt(syntax.Cursorpos))
		}
		return nil, &Error{Offset: -1, Text: err.Error()}
	}
	if len(result.Stmts) != 1 {
		return nil, &Error{Offset: -1, Text: fmt.Sprintf("%d statements", len(result.Stmts)), Mend: "write one SELECT"}
	}
	statement := result.Stmts[0]
	if end := statement.StmtLocation + statement.StmtLen; statement.StmtLen > 0 {
		q.SQL = q.SQL[:end] // without a semicolon
	}
	q.tree = statement.Stmt.GetSelectStmt()
	if q.tree == nil {
		return nil, &Error{Offset: q.offset(int(statement.StmtLocation)), Text: "not a SELECT", Mend: "a cached result is what a SELECT returns"}
	}
	var numbered *Error
	q.eachParameter(func(ref *pg.ParamRef) {
		end := int(ref.Location) + len(fmt.Sprintf("$%d", ref.Number))
		if numbered == nil && !slices.ContainsFunc(q.moved, func(m moved) bool { return m.at == end }) {
			numbered = &Error{Offset: q.offset(int(ref.Location)), Text: fmt.Sprintf("$%d has no name", ref.Number), Mend: "write parameters as @name"}
		}
	})
	if numbered != nil {
		return nil, numbered
	}
	return q, nil
}

var (
	colonName = regexp.MustCompile(`^:([A-Za-z_][A-Za-z0-9_]*)`)
	begins    = regexp.MustCompile(`(?i)^[\s(]*(SELECT|WITH|VALUES|TABLE)\b`)
)

// mendAt guesses from what stands at a character of SQL, counted from 1, what is wrong
// there: the parameters of another library, most often.
func (q *Query) mendAt(character int) string {
	rest := q.SQL[byteOf(q.SQL, max(character-1, 0)):]
	switch name := colonName.FindStringSubmatch(rest); {
	case name != nil:
		return "write parameters as @name: @" + name[1]
	case strings.HasPrefix(rest, "?"), strings.HasPrefix(rest, "%"), rest == "" && strings.HasSuffix(strings.TrimSpace(q.SQL), "?"):
		return "write parameters as @name"
	case strings.HasPrefix(rest, "$"):
		return "write parameters as @name, and a text as '...'; in the configuration $$ is one $, and $$$$ begins and ends a text"
	case !begins.MatchString(q.SQL):
		return "write one SELECT"
	}
	return "write what psql takes, with @name for each parameter"
}

var locking = regexp.MustCompile(`(?i)^FOR\s+(NO\s+KEY\s+UPDATE|UPDATE|KEY\s+SHARE|SHARE)\b`)

// locks is the byte of the text where rows are locked, which the tree does not have; -1:
// nobody knows.
func (q *Query) locks() int {
	for at := 0; at < len(q.text); {
		if end := skip(q.text, at); end > at {
			at = end
			continue
		}
		if (at == 0 || !starts(q.text[at-1])) && locking.MatchString(q.text[at:]) {
			return at
		}
		at++
	}
	return -1
}

// eachParameter visits the parameters where they stand.
func (q *Query) eachParameter(see func(*pg.ParamRef)) {
	walk(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: q.tree}}, func(n *pg.Node) bool {
		if ref := n.GetParamRef(); ref != nil {
			see(ref)
		}
		return true
	})
}

// At is an error that PostgreSQL has found at a character of SQL, counted from 1; 0:
// it does not say where.
func (q *Query) At(character int, text, mend string) *Error {
	wrong := &Error{Offset: -1, Text: text, Mend: mend}
	if character > 0 {
		wrong.Offset = q.offset(byteOf(q.SQL, character-1))
	}
	return wrong
}

// NameAt is the name that stands, without a schema or quotes, before a ( at a byte of the
// text; empty: none does.
func (q *Query) NameAt(offset int) string {
	if offset < 0 || offset > len(q.text) {
		return ""
	}
	called := called.FindStringSubmatch(q.text[offset:])
	if called == nil {
		return ""
	}
	return strings.ToLower(called[1])
}

var called = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)\s*\(`)

// WithoutParameters is the SQL with a NULL of its type for each parameter: what reads
// the same columns, and may be a view.
func (q *Query) WithoutParameters(types []Type) string {
	return q.With(func(i int) string { return "(NULL::" + types[i].Name + ")" })
}

// With is the SQL with an expression in place of each parameter. Neither sees names of
// the other if those of the expressions have a table that the query does not name.
func (q *Query) With(expression func(parameter int) string) string {
	var places []*pg.ParamRef
	q.eachParameter(func(ref *pg.ParamRef) { places = append(places, ref) })
	slices.SortFunc(places, func(a, b *pg.ParamRef) int { return cmp.Compare(a.Location, b.Location) })
	var sql strings.Builder
	at := 0
	for _, ref := range places {
		sql.WriteString(q.SQL[at:ref.Location] + expression(int(ref.Number)-1))
		at = int(ref.Location) + len(fmt.Sprintf("$%d", ref.Number))
	}
	return sql.String() + q.SQL[at:]
}

// byteOf is the place of character n.
func byteOf(text string, n int) int {
	for at := range text {
		if n == 0 {
			return at
		}
		n--
	}
	return len(text)
}

// offset is where byte at of SQL stands in what was written.
func (q *Query) offset(at int) int {
	from := at
	for _, m := range q.moved {
		if m.at <= at {
			from = m.from + at - m.at
		}
	}
	return from
}

// number writes $n for @name. An @ in a literal, in a quoted name, in a comment or
// in an operator is none of ours.
func (q *Query) number() {
	var sql strings.Builder
	text := q.text
	for at := 0; at < len(text); {
		if end := skip(text, at); end > at {
			sql.WriteString(text[at:end])
			at = end
			continue
		}
		if text[at] != '@' || at+1 == len(text) || !starts(text[at+1]) || at > 0 && strings.IndexByte(operators, text[at-1]) >= 0 {
			sql.WriteByte(text[at])
			at++
			continue
		}
		end := at + 1
		for end < len(text) && (starts(text[end]) || text[end] >= '0' && text[end] <= '9') {
			end++
		}
		name := text[at+1 : end]
		number := slices.Index(q.Parameters, name)
		if number < 0 {
			number = len(q.Parameters)
			q.Parameters = append(q.Parameters, name)
		}
		fmt.Fprintf(&sql, "$%d", number+1)
		at = end
		q.moved = append(q.moved, moved{sql.Len(), at})
	}
	q.SQL = sql.String()
}

// operators are the characters that an operator ending in @ may have before it. No
// operator of PostgreSQL ends in =@ or >@, so that id=@id is a comparison; but <@ is one.
const operators = "+-*/<~!@#%^&|`?"

func starts(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// skip returns the end of the literal, quoted name or comment that begins at at;
// at if none does.
func skip(text string, at int) int {
	rest := text[at:]
	closed := func(open int, by string) int {
		if n := strings.Index(text[open:], by); n >= 0 {
			return open + n + len(by)
		}
		return len(text)
	}
	switch {
	case strings.HasPrefix(rest, "--"):
		return closed(at, "\n")
	case strings.HasPrefix(rest, "/*"):
		depth := 1
		for i := at + 2; i < len(text); i++ {
			switch {
			case strings.HasPrefix(text[i:], "/*"):
				depth++
				i++
			case strings.HasPrefix(text[i:], "*/"):
				i++
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
		return len(text)
	case rest[0] == '"':
		return closed(at+1, `"`)
	case rest[0] == '\'':
		escapes := at > 0 && (text[at-1] == 'e' || text[at-1] == 'E') && (at == 1 || !starts(text[at-2]))
		for i := at + 1; i < len(text); i++ {
			if text[i] == '\\' && escapes {
				i++
			} else if text[i] == '\'' {
				return i + 1
			}
		}
		return len(text)
	case rest[0] == '$' && (at == 0 || !starts(text[at-1])):
		end := at + 1
		for end < len(text) && (starts(text[end]) || end > at+1 && text[end] >= '0' && text[end] <= '9') {
			end++
		}
		if end < len(text) && text[end] == '$' {
			return closed(end+1, text[at:end+1])
		}
	}
	return at
}
