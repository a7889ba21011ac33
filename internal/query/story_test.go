package query_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/query"
)

var rewrite = flag.Bool("rewrite", false, "write the stories as they are told now")

// Each story is a schema, then queries behind a line ---, each with the types of its
// parameters and, behind a line ==>, what follows from it.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.story")
	if err != nil || len(files) == 0 {
		t.Fatal("no stories", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".story"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(string(text), "\n---\n")
			catalog := newCatalog(t, parts[0])
			told := parts[0]
			for _, part := range parts[1:] {
				asked, _, _ := strings.Cut(part, "\n==>")
				told += "\n---\n" + asked + "\n==>\n" + tell(t, catalog, asked)
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(told), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(text), told); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A story is told the same way each time.
func TestDerivesTheSameEachTime(t *testing.T) {
	files, err := filepath.Glob("testdata/*.story")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(string(text), "\n---\n")
		catalog := newCatalog(t, parts[0])
		for _, part := range parts[1:] {
			asked, _, _ := strings.Cut(part, "\n==>")
			first := tell(t, catalog, asked)
			for range 19 {
				if diff := cmp.Diff(first, tell(t, catalog, asked)); diff != "" {
					t.Errorf("%s: %s\n-first +later:\n%s", file, asked, diff)
					break
				}
			}
		}
	}
}

// tell derives one query. Its first line, -- types: int4 text, gives those of the
// parameters.
func tell(t *testing.T, catalog *catalog, asked string) string {
	types, sql, ok := strings.Cut(asked, "\n")
	for strings.HasPrefix(types, "# ") {
		types, sql, ok = strings.Cut(sql, "\n")
	}
	if !ok {
		t.Fatalf("no query: %q", asked)
	}
	var of []query.Type
	for _, name := range strings.Fields(strings.TrimPrefix(types, "-- types:")) {
		of = append(of, catalog.typ(name))
	}
	q, err := query.Parse(sql)
	var dependencies []plan.Dependency
	if err == nil {
		if len(of) != len(q.Parameters) {
			t.Fatalf("%d types for %v", len(of), q.Parameters)
		}
		dependencies, err = q.DeriveIndexed(catalog, of, q.Parameters)
	}
	var b strings.Builder
	if wrong, ok := errors.AsType[*query.Error](err); ok {
		if wrong.Offset >= 0 {
			before := sql[:wrong.Offset]
			begin := strings.LastIndexByte(before, '\n') + 1
			line, _, _ := strings.Cut(sql[begin:], "\n")
			fmt.Fprintf(&b, "%s\n%s^\n", line, strings.Repeat(" ", wrong.Offset-begin))
		}
		fmt.Fprintf(&b, "%s\n", wrong.Text)
		if wrong.Mend != "" {
			fmt.Fprintf(&b, "%s\n", wrong.Mend)
		}
		return b.String()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dependencies {
		fmt.Fprintf(&b, "%s %s (%s)", d.Table, d.Alias, strings.Join(d.Columns, " "))
		if d.Where != nil {
			fmt.Fprintf(&b, " where %s", d.Where)
		}
		if len(d.Filtering) > 0 {
			fmt.Fprintf(&b, "; %s only for %s", strings.Join(d.Filtering, " "), strings.Join(texts(d.Filters), ", "))
		}
		b.WriteByte('\n')
		if d.Sweeps() {
			fmt.Fprintf(&b, "  sweep: %s\n", d.Why)
		}
		for _, p := range d.Paths {
			if p.InPart() {
				fmt.Fprintf(&b, "  only: %s\n", strings.Join(named(q.Parameters, p.Key), ", "))
				continue
			}
			if p.Lookup == nil {
				fmt.Fprintf(&b, "  direct: %s\n", strings.Join(p.Key, ", "))
				continue
			}
			fmt.Fprintf(&b, "  lookup:\n    %s\n", strings.ReplaceAll(p.Lookup.SQL, "\n", "\n    "))
			if x := p.Lookup.Index; x == nil {
				fmt.Fprintf(&b, "  no index: %s\n", p.Lookup.NoIndex)
			} else {
				of := ""
				if x.Unique {
					of = ", unique"
				}
				var by []string
				for _, argument := range x.By {
					by = append(by, p.Lookup.Arguments[argument].Column)
				}
				fmt.Fprintf(&b, "  index by %s: %s.%s, %s to %s%s\n    %s\n", strings.Join(by, ", "), x.Schema, x.Table,
					strings.Join(x.Join, ", "), strings.Join(x.Key, ", "), of, strings.ReplaceAll(x.SQL, "\n", "\n    "))
			}
		}
	}
	return b.String()
}

func texts(predicates []plan.Predicate) (texts []string) {
	for _, p := range predicates {
		texts = append(texts, p.String())
	}
	return texts
}

// named are the columns that have a parameter's value, and which one's.
func named(parameters, key []string) (texts []string) {
	for i, column := range key {
		if column != "" {
			texts = append(texts, "@"+parameters[i]+" = "+column)
		}
	}
	return texts
}

// catalog is what CREATE TABLE, CREATE VIEW and CREATE DOMAIN say.
type catalog struct {
	relations map[string]*query.Relation
	enums     []string
	domains   map[string]query.Type
}

func newCatalog(t *testing.T, ddl string) *catalog {
	c := &catalog{relations: map[string]*query.Relation{}, domains: map[string]query.Type{}}
	result, err := pg.Parse(ddl)
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range result.Stmts {
		switch n := raw.Stmt.Node.(type) {
		case *pg.Node_CreateEnumStmt:
			c.enums = append(c.enums, n.CreateEnumStmt.TypeName[0].GetString_().GetSval())
		case *pg.Node_CreateDomainStmt:
			names := n.CreateDomainStmt.TypeName.Names
			of := c.typ(names[len(names)-1].GetString_().GetSval())
			if collation := n.CreateDomainStmt.CollClause.GetCollname(); len(collation) > 0 {
				of.Nondeterministic = collation[0].GetString_().GetSval() == "folds"
			}
			c.domains[n.CreateDomainStmt.Domainname[0].GetString_().GetSval()] = of
		case *pg.Node_CreateStmt:
			r := &query.Relation{Schema: "public", Name: n.CreateStmt.Relation.Relname, Kind: 'r', Persistence: n.CreateStmt.Relation.Relpersistence[0]}
			if r.Persistence == 0 {
				r.Persistence = 'p'
			}
			if n.CreateStmt.Partspec != nil {
				r.Kind = 'p'
			}
			for _, parent := range n.CreateStmt.InhRelations {
				of := c.relations[parent.GetRangeVar().Relname]
				of.Children = append(of.Children, r)
				r.Columns = append(r.Columns, of.Columns...)
			}
			for _, element := range n.CreateStmt.TableElts {
				def := element.GetColumnDef()
				if key := element.GetConstraint(); key.GetContype() == pg.ConstrType_CONSTR_PRIMARY {
					var columns []string
					for _, name := range key.Keys {
						columns = append(columns, name.GetString_().GetSval())
						r.Column(columns[len(columns)-1]).NotNull = true
					}
					r.Unique = append(r.Unique, columns)
				}
				if def == nil {
					continue
				}
				names := def.TypeName.Names
				typ := c.typ(names[len(names)-1].GetString_().GetSval())
				if len(def.TypeName.ArrayBounds) > 0 {
					typ = query.Type{Name: typ.Name + "[]", Element: typ.Base}
				}
				column := query.Column{Name: def.Colname, Type: typ}
				if def.CollClause != nil {
					collation := def.CollClause.Collname[0].GetString_().GetSval()
					column.Collation = fmt.Sprintf(`"pg_catalog"."%s"`, collation)
					column.Nondeterministic = collation == "folds"
				}
				for _, constraint := range def.Constraints {
					switch constraint.GetConstraint().Contype {
					case pg.ConstrType_CONSTR_NOTNULL:
						column.NotNull = true
					case pg.ConstrType_CONSTR_PRIMARY:
						column.NotNull = true
						r.Unique = append(r.Unique, []string{column.Name})
					}
				}
				r.Columns = append(r.Columns, column)
			}
			c.relations[r.Name] = r
		case *pg.Node_ViewStmt:
			definition, err := pg.Deparse(&pg.ParseResult{Version: result.Version, Stmts: []*pg.RawStmt{{Stmt: n.ViewStmt.Query}}})
			if err != nil {
				t.Fatal(err)
			}
			c.relations[n.ViewStmt.View.Relname] = &query.Relation{Schema: "public", Name: n.ViewStmt.View.Relname, Kind: 'v', Persistence: 'p', Definition: definition}
		default:
			t.Fatalf("%T in a schema", n)
		}
	}
	return c
}

func (c *catalog) typ(name string) query.Type {
	if of, ok := c.domains[name]; ok {
		return of
	}
	switch {
	case slices.Contains(c.enums, name):
		return query.Type{Name: "public." + name, Base: "enum"}
	case name == "citext":
		return query.Type{Name: name}
	}
	return query.Type{Name: name, Base: name}
}

func (c *catalog) Relation(schema, name string) (*query.Relation, error) {
	if schema == "pg_catalog" {
		return &query.Relation{Schema: schema, Name: name, Kind: 'r', Persistence: 'p'}, nil
	}
	return c.relations[name], nil
}

func (c *catalog) Function(schema, name string, arguments int) (*query.Function, error) {
	f := &query.Function{BuiltIn: true, Volatility: 'i'}
	switch name {
	case "now", "json_agg", "to_char", "age", "extract", "date", "overlaps":
		f.Volatility = 's'
		f.Aggregate = name == "json_agg"
	case "random":
		f.Volatility = 'v'
	case "count", "sum", "max", "min", "avg", "array_agg", "string_agg":
		f.Aggregate = true
	case "row_number", "rank":
		f.Window = true
	case "generate_series", "unnest":
		f.ReturnsSet = true
	case "customer_level", "stock_left":
		f.BuiltIn, f.Volatility = false, 's'
	case "no_such_function":
		return nil, nil
	}
	return f, nil
}
