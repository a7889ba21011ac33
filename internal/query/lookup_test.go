package query_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/query"
)

// Keys are spelled as the log would, and no name of the query is taken for one of ours.
func TestALookupRunsForManyRowsAtOnce(t *testing.T) {
	integer, boolean := query.Type{Name: "integer", Base: "int4"}, query.Type{Name: "boolean", Base: "bool"}
	q, err := query.Parse("SELECT p.id, p.sold FROM changed AS p WHERE p.category = @Id AND p.shop = @shop AND '@no' <> '' -- of the shop;")
	if err != nil {
		t.Fatal(err)
	}
	want := &plan.Lookup{
		SQL: `SELECT DISTINCT found.k1::text, left(found.k2::boolean::text, 1)
FROM unnest($1::text[]::integer[], $2::text[]::integer[]) AS changed_("Id", "shop"), LATERAL (
SELECT p.id, p.sold FROM changed AS p WHERE p.category = changed_."Id" AND p.shop = changed_."shop" AND '@no' <> '' -- of the shop;
) AS found(k1, k2)`,
		Arguments: []plan.Argument{{Column: "Id", Type: "integer"}, {Column: "shop", Type: "integer"}}, Written: true, Reads: 1,
	}
	if diff := cmp.Diff(want, q.Lookup([]query.Type{integer, integer}, []query.Type{integer, boolean})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// An array of arrays would be one of their elements: each is given as its text.
func TestALookupTakesArrays(t *testing.T) {
	text, tags := query.Type{Name: "text", Base: "text"}, query.Type{Name: "text[]", Element: "text"}
	q, err := query.Parse("SELECT unnest(@tags)")
	if err != nil {
		t.Fatal(err)
	}
	want := &plan.Lookup{
		SQL: `SELECT DISTINCT found.k1::text
FROM unnest($1::text[]::text[]) AS changed("tags"), LATERAL (
SELECT unnest((changed."tags"::text[]))
) AS found(k1)`,
		Arguments: []plan.Argument{{Column: "tags", Type: "text"}}, Written: true,
	}
	if diff := cmp.Diff(want, q.Lookup([]query.Type{tags}, []query.Type{text})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// What was derived for many rows is written for one, as a person would.
func TestADerivedLookupIsWrittenForOneRow(t *testing.T) {
	for _, test := range []struct {
		sql       string
		arguments []string
		asTexts   bool
		want      string
	}{
		{`SELECT DISTINCT t1."id"::text FROM unnest($1::text[]::integer[]) AS changed("id"), "public"."products" AS t1 WHERE t1.category_id = changed.id`, []string{"id"}, false,
			"SELECT t1.id FROM public.products t1 WHERE t1.category_id = @id"},
		{`SELECT DISTINCT t1."id"::text FROM unnest($1::text[]::integer[]) AS changed("id"), "public"."products" AS t1 WHERE t1.category_id = changed.id`, []string{"id"}, true,
			"SELECT t1.id::text FROM public.products t1 WHERE t1.category_id = @id"},
		{`SELECT DISTINCT (lower(changed.email))::text, changed."shop"::text FROM unnest($1::text[]::text[], $2::text[]::uuid[]) AS changed("email", "shop") WHERE changed.email <> '$1 changed.email'`, []string{"email", "shop"}, false,
			"SELECT lower(@email)::text, @shop WHERE @email <> '$1 changed.email'"},
		{`SELECT DISTINCT (abs(- changed.n))::text FROM unnest($1::text[]::integer[]) AS changed("n")`, []string{"n"}, false, "SELECT abs(- @n)::text"},
		{`SELECT DISTINCT e1.value::text FROM unnest($1::text[]::text[]) AS changed("tags"), unnest(changed."tags"::text[]) AS e1(value)`, []string{"tags"}, false,
			"SELECT e1.value FROM unnest(@tags::text[]) e1(value)"},
		{`SELECT DISTINCT t1."id"::text FROM unnest($1::text[]::integer[]) AS changed("odd name"), "public"."products" AS t1 WHERE t1.category_id = changed."odd name"`, []string{"odd name"}, false, ""},
	} {
		l := &plan.Lookup{SQL: test.sql}
		for _, column := range test.arguments {
			l.Arguments = append(l.Arguments, plan.Argument{Column: column})
		}
		got, ok := query.ForOne(l, test.asTexts)
		if ok != (test.want != "") || ok && got != test.want {
			t.Errorf("%s\nis %s, %v\nwant %s", test.sql, got, ok, test.want)
		}
	}
}

// What PostgreSQL would read as an operator is a comparison with a parameter, unless
// there is such an operator.
func TestAParameterMayStandDirectlyBehindAComparison(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT 1 FROM t WHERE id=@id":            "SELECT 1 FROM t WHERE id=$1",
		"SELECT 1 FROM t WHERE a>@id AND b<=@id":  "SELECT 1 FROM t WHERE a>$1 AND b<=$1",
		"SELECT 1 FROM t WHERE a<>@id AND c->@id": "SELECT 1 FROM t WHERE a<>$1 AND c->$1",
		"SELECT 1 FROM t WHERE a<@b AND c @@d":    "SELECT 1 FROM t WHERE a<@b AND c @@d",
	} {
		q, err := query.Parse(sql)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
		} else if q.SQL != want {
			t.Errorf("%s\nis   %s\nwant %s", sql, q.SQL, want)
		}
	}
}
