CREATE TABLE products (id int8 PRIMARY KEY, name text COLLATE "C" NOT NULL, label text, rank int4, category_id int4, weight float8, made date, created_at timestamptz, stamped timestamp, address inet, note text, ratio numeric);
CREATE TABLE categories (id int4 PRIMARY KEY, name text, folded text COLLATE folds, shop_id int4, opened_at timestamptz, opened timestamp, weight float8, address inet);
---
# What has changed compares as its column does.
-- types: int4
SELECT c.id FROM categories c JOIN products p ON p.name = c.name AND p.name < c.name || 'a' WHERE c.shop_id = @shop
==>
categories c (id name shop_id) where name IS NOT NULL
  direct: shop_id
products p (name)
  lookup:
    SELECT DISTINCT t1."shop_id"::text
    FROM (SELECT "name" COLLATE "pg_catalog"."C" AS "name" FROM unnest($1::text[]::text[]) AS changed("name")) AS changed, "public"."categories" AS t1
    WHERE (changed.name = t1.name)
      AND (changed.name < (t1.name || 'a'))
  index by name: public.categories, name to shop_id
    SELECT DISTINCT t1."shop_id"::text
    FROM (SELECT "name" COLLATE "pg_catalog"."C" AS "name" FROM unnest($1::text[]::text[]) AS changed("name")) AS changed, "public"."categories" AS t1
    WHERE (changed.name = t1.name)

---
# A collation of which texts that differ are equal joins as it did.
-- types: int8
SELECT p.id FROM products p JOIN categories c ON c.folded = p.label WHERE p.id = @id
==>
products p (id label) where label IS NOT NULL
  direct: id
categories c (folded) where folded IS NOT NULL
  lookup:
    SELECT t1."id"::text
    FROM (SELECT "folded" COLLATE "pg_catalog"."folds" AS "folded" FROM unnest($1::text[]::text[]) AS changed("folded")) AS changed, "public"."products" AS t1
    WHERE (changed.folded = t1.label)
  no index: no column of products that the log has is equal, as texts too, to one of the changed row

---
# The text of an inet is not that of the log.
-- types: inet
SELECT id FROM products WHERE address = @address
==>
products products (address id)
  sweep: nothing ties its rows to @address by an equality of texts: it is inet, of which values that differ as texts are equal

---
# The day of a moment is another in another time zone.
-- types: date
SELECT id FROM products WHERE created_at::date = @day
==>
products products (created_at id)
  sweep: nothing ties its rows to @day by an equality of timestamps with time zone: what it is depends on the session's time zone

---
-- types: timestamp
SELECT id FROM products WHERE date_trunc('day', created_at) = @day
==>
products products (created_at id)
  sweep: nothing ties its rows to @day by an equality of timestamps with time zone: what it is depends on the session's time zone

---
-- types: text
SELECT id FROM products WHERE to_char(made, 'YYYY') = @year
==>
products products (id made)
  sweep: nothing ties its rows to @year by an equality whose text is the same in each session: it depends on settings

---
-- types: timestamptz
SELECT id FROM products WHERE stamped + '1 day' = @moment
==>
products products (id stamped)
  sweep: nothing ties its rows to @moment by an equality of timestamps with time zone: what it is depends on the session's time zone

---
-- types: text
SELECT id FROM products WHERE made::text = @day
==>
products products (id made)
  sweep: nothing ties its rows to @day by an equality whose text is the same in each session: it depends on settings

---
# In a zone that is written out it is the same everywhere.
-- types: date
SELECT id FROM products WHERE (created_at AT TIME ZONE 'UTC')::date = @day
==>
products products (created_at id)
  lookup:
    SELECT DISTINCT ((changed.created_at AT TIME ZONE 'UTC')::date)::date::text
    FROM unnest($1::text[]::timestamptz[]) AS changed("created_at")
  no index: it reads no table

---
-- types: timestamp
SELECT id FROM products WHERE date_trunc('month', stamped) = @month
==>
products products (id stamped)
  lookup:
    SELECT DISTINCT (date_trunc('month', changed.stamped))::timestamp::text
    FROM unnest($1::text[]::timestamp[]) AS changed("stamped")
  no index: it reads no table

---
# Lookups leave out what depends on the session's time zone.
-- types: int4
SELECT p.id FROM products p JOIN categories c ON c.id = p.category_id
WHERE c.shop_id = @shop AND p.created_at > '2026-01-01' AND p.created_at > c.opened_at AND p.created_at > c.opened
  AND p.created_at IS NOT NULL AND extract(hour from p.created_at) < 12 AND p.created_at BETWEEN c.opened_at AND '2027-01-01'
  AND c.opened < '2026-01-01'
==>
products p (category_id created_at id) where (created_at IS NOT NULL AND category_id IS NOT NULL)
  lookup:
    SELECT DISTINCT t1."shop_id"::text
    FROM unnest($1::text[]::int4[], $2::text[]::timestamptz[]) AS changed("category_id", "created_at"), "public"."categories" AS t1
    WHERE (t1.id = changed.category_id)
      AND (changed.created_at > t1.opened_at)
      AND (changed.created_at IS NOT NULL)
      AND (t1.opened < '2026-01-01')
  index by category_id: public.categories, id to shop_id, unique
    SELECT t1."shop_id"::text
    FROM unnest($1::text[]::int4[]) AS changed("category_id"), "public"."categories" AS t1
    WHERE (t1.id = changed.category_id)
categories c (id opened opened_at shop_id)
  direct: shop_id

---
# And do not join by it.
-- types: int4
SELECT p.id FROM products p JOIN categories c ON c.opened = p.created_at WHERE c.shop_id = @shop
==>
products p (created_at id) where created_at IS NOT NULL
  sweep: no equality joins its rows with those of categories, which tell @shop
categories c (opened shop_id) where opened IS NOT NULL
  direct: shop_id

---
# A float is equal to more whole numbers than its text says.
-- types: int8
SELECT id FROM products WHERE weight = @weight
==>
products products (id weight)
  sweep: nothing ties its rows to @weight by an equality of texts: weight is float8, of which values that differ as texts are equal

---
-- types: int8
SELECT id FROM products WHERE weight * 2 = @weight
==>
products products (id weight)
  sweep: nothing ties its rows to @weight by an equality of exact numbers: it is computed of float

---
-- types: int8
SELECT id FROM products WHERE (ratio * 2)::float8 = @weight
==>
products products (id ratio)
  sweep: nothing ties its rows to @weight by an equality of exact numbers: it is computed of float

---
-- types: int8
SELECT id FROM products WHERE ratio * 2 = @weight
==>
products products (id ratio)
  lookup:
    SELECT DISTINCT trim_scale((changed.ratio * 2)::text::numeric)::text
    FROM unnest($1::text[]::numeric[]) AS changed("ratio")
  no index: it reads no table

---
# An OR stays one.
-- types: int4
SELECT p.id FROM products p JOIN categories c ON c.id = p.category_id WHERE c.shop_id = @shop AND (c.name = 'a' OR p.rank > 3)
==>
products p (category_id id rank) where category_id IS NOT NULL
  lookup:
    SELECT DISTINCT t1."shop_id"::text
    FROM unnest($1::text[]::int4[], $2::text[]::int4[]) AS changed("category_id", "rank"), "public"."categories" AS t1
    WHERE (t1.id = changed.category_id)
      AND (t1.name = 'a' OR changed.rank > 3)
  index by category_id: public.categories, id to shop_id, unique
    SELECT t1."shop_id"::text
    FROM unnest($1::text[]::int4[]) AS changed("category_id"), "public"."categories" AS t1
    WHERE (t1.id = changed.category_id)
categories c (id name shop_id)
  direct: shop_id

---
# No condition takes a long text along; but what joins does, and then others may.
-- types: int4
SELECT p.id FROM products p JOIN categories c ON c.id = p.category_id WHERE c.shop_id = @shop AND p.note <> 'none' AND p.rank > 3
==>
products p (category_id id note rank) where (NOT note = 'none' AND NOT rank <= 3 AND category_id IS NOT NULL); note rank only for NOT note = 'none', NOT rank <= 3
  lookup:
    SELECT DISTINCT t1."shop_id"::text
    FROM unnest($1::text[]::int4[], $2::text[]::int4[]) AS changed("category_id", "rank"), "public"."categories" AS t1
    WHERE (t1.id = changed.category_id)
      AND (changed.rank > 3)
  index by category_id: public.categories, id to shop_id, unique
    SELECT t1."shop_id"::text
    FROM unnest($1::text[]::int4[]) AS changed("category_id"), "public"."categories" AS t1
    WHERE (t1.id = changed.category_id)
categories c (id shop_id)
  direct: shop_id

---
-- types: int4
SELECT p.id FROM products p JOIN categories c ON p.label <> '' AND c.name = p.label WHERE c.shop_id = @shop
==>
products p (id label) where (NOT label = '' AND label IS NOT NULL)
  lookup:
    SELECT DISTINCT t1."shop_id"::text
    FROM unnest($1::text[]::text[]) AS changed("label"), "public"."categories" AS t1
    WHERE (t1.name = changed.label)
      AND (changed.label <> '')
  index by label: public.categories, name to shop_id
    SELECT DISTINCT t1."shop_id"::text
    FROM unnest($1::text[]::text[]) AS changed("label"), "public"."categories" AS t1
    WHERE (t1.name = changed.label)
categories c (name shop_id) where name IS NOT NULL
  direct: shop_id

---
# The arms of a set operation, each time in the same order.
-- types: int4
SELECT u.a FROM (SELECT rank AS a, category_id AS b, id AS d FROM products UNION ALL SELECT id, shop_id, id FROM categories) AS u
JOIN categories c ON c.id + u.d = u.a + u.b + u.d WHERE c.shop_id = @shop AND u.a + u.b + u.d > c.id
==>
products products (category_id id rank)
  lookup:
    SELECT DISTINCT t1."shop_id"::text
    FROM unnest($1::text[]::int8[], $2::text[]::int4[], $3::text[]::int4[]) AS changed("id", "rank", "category_id"), "public"."categories" AS t1
    WHERE ((t1.id + changed.id) = ((changed.rank + changed.category_id) + changed.id))
      AND (((changed.rank + changed.category_id) + changed.id) > t1.id)
  no index: no column of categories that the log has is equal, as texts too, to one of the changed row
categories categories (id shop_id)
  lookup:
    SELECT DISTINCT t1."shop_id"::text
    FROM unnest($1::text[]::int4[], $2::text[]::int4[]) AS changed("id", "shop_id"), "public"."categories" AS t1
    WHERE ((t1.id + changed.id) = ((changed.id + changed.shop_id) + changed.id))
      AND (((changed.id + changed.shop_id) + changed.id) > t1.id)
  no index: no column of categories that the log has is equal, as texts too, to one of the changed row
categories c (id shop_id)
  direct: shop_id

---
# What is not distinct from a parameter is equal to it: no parameter is NULL. Two columns
# may both be.
-- types: int4
SELECT id FROM products WHERE category_id IS NOT DISTINCT FROM @category
==>
products products (category_id id)
  direct: category_id

---
-- types: int4
SELECT a.id FROM products a JOIN products b ON a.category_id IS NOT DISTINCT FROM b.id WHERE b.id = @id
==>
products a (category_id id)
  sweep: no equality joins its rows with those of products, which tell @id
products b (id)
  direct: id

---
-- types: int4
SELECT id FROM products WHERE category_id IS DISTINCT FROM @category
==>
products products (category_id id)
  sweep: nothing ties its rows to @category by an equality
