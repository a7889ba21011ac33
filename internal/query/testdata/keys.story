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
    WHERE changed.name = t1.name
      AND changed.name < (t1.name || 'a')

---
# A collation of which texts that differ are equal joins as it did.
-- types: int8
SELECT p.id FROM products p JOIN categories c ON c.folded = p.label WHERE p.id = @id
==>
products p (id label) where label IS NOT NULL
  direct: id
categories c (folded) where folded IS NOT NULL
  lookup:
    SELECT DISTINCT t1."id"::text
    FROM (SELECT "folded" COLLATE "pg_catalog"."folds" AS "folded" FROM unnest($1::text[]::text[]) AS changed("folded")) AS changed, "public"."products" AS t1
    WHERE changed.folded = t1.label

---
# The text of an inet is not that of the log.
-- types: inet
SELECT id FROM products WHERE address = @address
==>
products products (address id)
  sweep: nothing ties its rows to @address by an equality of texts: it is inet, of which values that differ as texts are equal
