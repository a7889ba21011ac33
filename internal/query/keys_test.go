package query_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/query"
)

const keysSchema = `CREATE TABLE customers (id int4 PRIMARY KEY, region int4, email text);
CREATE TABLE orders (id int8 PRIMARY KEY, customer_id int4 NOT NULL, status text NOT NULL, note text);
CREATE TABLE notes (order_id int8 NOT NULL, text text, tags text[]);`

// The keys are those of rows without which there is no result, of as few tables as may
// be; what may be missing lists none, and where several tables show a row each, they do
// together.
func TestKeysAreListed(t *testing.T) {
	catalog := newCatalog(t, keysSchema)
	for _, test := range []struct {
		name, types, sql string
		want             []string // what follows SELECT DISTINCT, of each list
		why              string
	}{
		{"a column", "int4", "SELECT c.*, o.id AS last FROM orders o RIGHT JOIN customers c ON c.id = o.customer_id WHERE c.id = @id",
			[]string{`t1."id" FROM "public"."customers" AS t1 WHERE t1."id"`}, ""},
		{"two of two tables", "int4 text", "SELECT count(*) FROM customers c JOIN orders o ON o.customer_id = c.id WHERE c.region = @region AND o.status = @status AND o.note <> ''",
			[]string{`t1."region", t2."status" FROM "public"."customers" AS t1, "public"."orders" AS t2 WHERE (t2.customer_id = t1.id) AND t1."region"`}, ""},
		{"two branches", "int4", "SELECT id FROM customers WHERE region = @r UNION ALL SELECT id FROM orders WHERE customer_id = @r",
			[]string{`t1."region" FROM "public"."customers" AS t1 WHERE t1."region"`, `t1."customer_id" FROM "public"."orders" AS t1 WHERE t1."customer_id"`}, ""},
		{"either side", "int8", "SELECT 1 AS one FROM orders o FULL JOIN notes n ON n.order_id = o.id WHERE coalesce(o.id, n.order_id) = @id",
			nil, "public.orders: nothing ties its rows to @id by an equality"},
		{"nothing in FROM", "int4", "SELECT (SELECT count(*) FROM orders WHERE customer_id = @id) AS orders, EXISTS (SELECT 1 FROM customers WHERE id = @id) AS known",
			[]string{`t1."customer_id" FROM "public"."orders" AS t1 WHERE t1."customer_id"`, `t1."id" FROM "public"."customers" AS t1 WHERE t1."id"`}, ""},
		{"a count that is there without a row", "int4", "SELECT c.email, n.n FROM customers c, LATERAL (SELECT count(*) AS n FROM orders o WHERE o.customer_id = c.id) n WHERE c.id = @id",
			[]string{`t1."id" FROM "public"."customers" AS t1 WHERE t1."id"`}, ""},
		{"computed", "text", "SELECT id FROM customers WHERE lower(email) = @email", []string{`(lower(t1.email))::text FROM "public"."customers" AS t1 WHERE (lower(t1.email))::text`}, ""},
		{"elements of arrays", "text", "SELECT count(*) FROM notes WHERE @tag = ANY (tags)", []string{`e1.value FROM "public"."notes" AS t1, unnest(t1."tags") AS e1(value) WHERE e1.value`}, ""},
		{"of no equality", "int4", "SELECT id FROM customers WHERE region > @r", nil, "public.customers: nothing ties its rows to @r by an equality"},
	} {
		t.Run(test.name, func(t *testing.T) {
			q, err := query.Parse(test.sql)
			if err != nil {
				t.Fatal(err)
			}
			var types []query.Type
			for _, name := range strings.Fields(test.types) {
				types = append(types, catalog.typ(name))
			}
			keys, why, err := q.Keys(catalog, types, q.Parameters)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, list := range strings.Split(keys.All, "SELECT DISTINCT ")[1:] {
				list, _, _ = strings.Cut(list, " IS NOT NULL")
				got = append(got, strings.Join(strings.Fields(list), " "))
			}
			if diff := cmp.Diff(test.want, got); diff != "" || why != test.why {
				t.Errorf("%s\n%s\n-want +got:\n%s", why, keys.All, diff)
			}
		})
	}
}

// Each list begins behind the last key and ends with as many as are wanted, so that an
// index serves each; texts that are put together have one order.
func TestKeysAreListedInParts(t *testing.T) {
	catalog := newCatalog(t, keysSchema)
	q, err := query.Parse("SELECT id FROM customers WHERE region = @r AND email = @e UNION SELECT id FROM orders WHERE customer_id = @r AND lower(status) = @e")
	if err != nil {
		t.Fatal(err)
	}
	keys, _, err := q.Keys(catalog, []query.Type{catalog.typ("int4"), catalog.typ("text")}, q.Parameters)
	if err != nil {
		t.Fatal(err)
	}
	want := `SELECT ARRAY[listed.k1::text, listed.k2::text]
FROM ((SELECT DISTINCT t1."region", t1."email" COLLATE "C"
FROM "public"."customers" AS t1
WHERE t1."region" IS NOT NULL
  AND t1."email" COLLATE "C" IS NOT NULL
  AND (t1."region", t1."email" COLLATE "C") > ($2::text::int4, $3::text::text)
  AND t1."region" >= $2::text::int4
ORDER BY 1, 2 LIMIT $1)
UNION (SELECT DISTINCT t1."customer_id", (lower(t1.status))::text COLLATE "C"
FROM "public"."orders" AS t1
WHERE t1."customer_id" IS NOT NULL
  AND (lower(t1.status))::text COLLATE "C" IS NOT NULL
  AND (t1."customer_id", (lower(t1.status))::text COLLATE "C") > ($2::text::int4, $3::text::text)
  AND t1."customer_id" >= $2::text::int4
ORDER BY 1, 2 LIMIT $1)) AS listed(k1, k2)
ORDER BY k1, k2 LIMIT $1`
	if diff := cmp.Diff(want, keys.Next); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
