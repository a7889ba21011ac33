CREATE TABLE shops (id int4 PRIMARY KEY, city int4, open bool NOT NULL);
CREATE TABLE visits (id int8 PRIMARY KEY, shop_id int4 NOT NULL, kind text NOT NULL);
CREATE TABLE stock (id int8 PRIMARY KEY, shop_id int4, weight numeric NOT NULL, place text);
---
# What the property test has found. A count shows a row though the shop is not open,
# and with it what the subquery counts: its conditions say nothing about visits.
-- types: int4
SELECT l.* FROM shops s, LATERAL (
  SELECT count(*) AS n, (SELECT count(*) FROM visits v WHERE v.shop_id = s.id) AS visits FROM stock k WHERE s.open) l
WHERE s.id = @id
==>
shops s (id open); open only for open = 't'
  direct: id
visits v (shop_id)
  direct: shop_id
stock k ()
  sweep: no equality joins its rows with those of shops, which tell @id

---
# In the WHERE the subquery is asked only for rows that there are.
-- types: int4
SELECT count(*) FROM shops s WHERE s.city = @city AND s.open AND NOT EXISTS (SELECT 1 FROM visits v WHERE v.shop_id = s.id)
==>
shops s (city id open) where open = 't'; open only for open = 't'
  direct: city
visits v (shop_id)
  lookup:
    SELECT DISTINCT t1."city"::text
    FROM unnest($1::text[]::int4[]) AS changed("shop_id"), "public"."shops" AS t1
    WHERE (changed.shop_id = t1.id)
      AND (t1.open)
  index by shop_id: public.shops, id to city, unique
    SELECT t1."city"::text
    FROM unnest($1::text[]::int4[]) AS changed("shop_id"), "public"."shops" AS t1
    WHERE (changed.shop_id = t1.id)

---
# Each table tells one parameter. Once both rows have moved on, no lookup finds the
# old value of both: one of the two is left to a sweep.
-- types: int4 text
SELECT s.id, v.id FROM shops s JOIN visits v ON v.shop_id = s.id WHERE s.city = @city AND v.kind = @kind
==>
shops s (city id)
  lookup:
    SELECT DISTINCT changed."city"::text, t1."kind"::text
    FROM unnest($1::text[]::int4[], $2::text[]::int4[]) AS changed("city", "id"), "public"."visits" AS t1
    WHERE (t1.shop_id = changed.id)
  no index: not every value of the key is a column of visits
visits v (id kind shop_id)
  sweep: the rows that tell the parameters may all have moved on before a lookup runs
  only: @kind = kind

---
# Where one table tells both, that does not happen.
-- types: int4 int8
SELECT s.id, v.kind FROM shops s JOIN visits v ON v.shop_id = s.id WHERE v.shop_id = @shop AND v.id = @visit
==>
shops s (id)
  lookup:
    SELECT changed."id"::text, t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."visits" AS t1
    WHERE (t1.shop_id = changed.id)
  index by id: public.visits, shop_id to shop_id, id, unique
    SELECT t1."shop_id"::text, t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."visits" AS t1
    WHERE (t1.shop_id = changed.id)
visits v (id kind shop_id)
  direct: shop_id, id

---
# 1 and 1.0 are one group, and either may stand for it: a row of weight 1 changes the
# count of the key 1.0.
-- types: text
SELECT g.n FROM (SELECT weight, count(*) AS n FROM stock GROUP BY weight) g WHERE g.weight::text = @weight
==>
stock stock (weight)
  sweep: nothing ties its rows to @weight by an equality

---
# So it is with DISTINCT, and not without.
-- types: text
SELECT d.weight, k.id FROM (SELECT DISTINCT weight FROM stock) d, stock k WHERE d.weight::text = @weight AND k.weight::text = @weight
==>
stock stock (weight)
  sweep: no equality joins its rows with those of stock, which tell @weight
stock k (id weight)
  lookup:
    SELECT DISTINCT (changed.weight::text)::text
    FROM unnest($1::text[]::numeric[]) AS changed("weight")
  no index: it reads no table

---
# Stock without a shop is in no result of an inner join, and in those of an outer one.
-- types: int8
SELECT k.place, s.city, c.open FROM stock k JOIN shops s ON s.id = k.shop_id LEFT JOIN shops c ON c.id = s.city WHERE k.id = @id
==>
stock k (id place shop_id) where shop_id IS NOT NULL
  direct: id
shops s (city id)
  lookup:
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."stock" AS t1
    WHERE (changed.id = t1.shop_id)
  index by id: public.stock, shop_id to id, unique
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."stock" AS t1
    WHERE (changed.id = t1.shop_id)
shops c (id open)
  lookup:
    SELECT DISTINCT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."stock" AS t1, "public"."shops" AS t2
    WHERE (changed.id = t2.city)
      AND (t2.id = t1.shop_id)
  no index: it goes through 2 tables

---
# Nobody asks for what is never read.
-- types: int4
WITH seen AS (SELECT shop_id FROM visits) SELECT city FROM shops WHERE id = @id
==>
WITH seen AS (SELECT shop_id FROM visits) SELECT city FROM shops WHERE id = @id
     ^
nothing reads WITH seen
leave it out

---
# What an arm of a set operation shows may be made of a parameter: no lookup computes
# that.
-- types: int4 int4
SELECT u.city FROM (SELECT city, CASE WHEN id = @id THEN city ELSE id END AS which FROM shops UNION ALL SELECT shop_id, shop_id FROM stock) u
WHERE u.which = @which AND u.city = @id
==>
shops shops (city id)
  sweep: nothing ties its rows to @which by an equality
  only: @id = city
stock stock (shop_id)
  direct: shop_id, shop_id

---
# HAVING on a grouping set is about its NULLs too, which are of no row.
-- types: int4
SELECT count(*) FROM visits WHERE shop_id = @id GROUP BY ROLLUP(kind) HAVING kind IS NULL
==>
visits visits (kind shop_id)
  direct: shop_id

---
# The price that stands for the group is one of those that are equal.
-- types: text
SELECT count(*) FROM stock GROUP BY weight HAVING weight::text = @weight
==>
stock stock (weight)
  sweep: nothing ties its rows to @weight by an equality

---
# Where equal means the same text, HAVING is a condition on rows.
-- types: int4
SELECT count(*) FROM stock GROUP BY shop_id, lower(place) HAVING shop_id = @shop AND lower(place) = 'cellar'
==>
stock stock (place shop_id)
  direct: shop_id

---
# PARTITION BY 1 is a constant.
-- types: int4
SELECT w.n FROM (SELECT shop_id, count(*) OVER (PARTITION BY 1) AS n FROM visits) w WHERE w.shop_id = @shop
==>
visits visits (shop_id)
  sweep: nothing ties its rows to @shop by an equality

---
# PARTITION BY knows columns only, DISTINCT ON names of the select list first.
-- types: int4
SELECT w.n FROM (SELECT city AS id, id AS k, count(*) OVER (PARTITION BY id) AS n FROM shops) w WHERE w.id = @city
==>
shops shops (city id)
  sweep: nothing ties its rows to @city by an equality

---
-- types: int4
SELECT s.id FROM (SELECT DISTINCT ON (id) city AS id, id AS c, open FROM shops) s WHERE s.c = @k
==>
shops shops (city id open)
  sweep: nothing ties its rows to @k by an equality

---
-- types: int4
SELECT s.c FROM (SELECT DISTINCT ON (id) city AS id, id AS c, open FROM shops) s WHERE s.id = @k
==>
shops shops (city id open)
  direct: city

---
# Texts that differ are one citext.
-- types: text
SELECT d.n FROM (SELECT DISTINCT kind::citext AS n FROM visits) d WHERE d.n::text = @n
==>
visits visits (kind)
  sweep: nothing ties its rows to @n by an equality

---
# A constant is equal to one of another scale.
-- types: text
SELECT d.n FROM (SELECT DISTINCT CASE WHEN open THEN 1.0 ELSE 1 END AS n FROM shops) d WHERE d.n::text = @n
==>
shops shops (open)
  sweep: nothing ties its rows to @n by an equality

---
# How many columns f.* has is not known: what stands behind has no place.
-- types: int4
SELECT d.b FROM (SELECT f.*, s.id, s.city FROM shops s, json_each(s.open) f) d(a, b, c) WHERE d.b = @b
==>
shops s (city id open)
  sweep: nothing ties its rows to @b by an equality

---
-- types: int4
SELECT d.b FROM (SELECT s.id, (s).*, s.city FROM shops s) d(a, b, c) WHERE d.a = @b
==>
shops s (city id open)
  direct: id

---
-- types: int4
SELECT v.id FROM visits v WHERE v.shop_id = @b AND (v.id, v.shop_id) IN (SELECT f.*, s.id FROM shops s, json_each(s.open) f)
==>
visits v (id shop_id)
  direct: shop_id
shops s (id open)
  sweep: no equality joins its rows with those of visits, which tell @b

---
-- types: int4
SELECT v.id FROM visits v JOIN shops s USING (id) AS j WHERE j.id = @id
==>
JOIN ... USING (...) AS j is beyond what is understood
leave out AS j, and name the columns by their tables

---
# EXTRACT and the like read what they are given.
-- types: int8
SELECT extract(epoch FROM id), date(id), (kind, kind) OVERLAPS (kind, kind) FROM visits WHERE id = @id
==>
visits visits (id kind)
  direct: id

---
# Neither side of NOT IN can be NULL: a shop concerns the visits to it.
-- types: int8
SELECT v.id FROM visits v WHERE v.id = @id AND v.shop_id NOT IN (SELECT s.id FROM shops s WHERE s.open)
==>
visits v (id shop_id)
  direct: id
shops s (id open) where open = 't'; open only for open = 't'
  lookup:
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[], $2::text[]::bool[]) AS changed("id", "open"), "public"."visits" AS t1
    WHERE (t1.shop_id = changed.id)
      AND (changed.open)
  index by id: public.visits, shop_id to id, unique
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."visits" AS t1
    WHERE (t1.shop_id = changed.id)

---
# A row without a number concerns all.
-- types: int4
SELECT v.id FROM visits v WHERE v.id = @id AND v.shop_id NOT IN (SELECT s.city FROM shops s WHERE s.open)
==>
visits v (id shop_id)
  direct: id
shops s (city open) where open = 't'; open only for open = 't'
  sweep: no equality joins its rows with those of visits, which tell @id

---
-- types: int4
SELECT d.b FROM (SELECT s.id AS a, s.city AS b FROM shops s UNION ALL SELECT f.*, v.shop_id FROM visits v, json_each(v.kind) f) d(b, a) WHERE d.b = @b
==>
shops s (city id)
  sweep: nothing ties its rows to @b by an equality
visits v (kind shop_id)
  sweep: nothing ties its rows to @b by an equality

---
# It counts the visits of the outer SELECT, which shows a row though there is none.
-- types: int4
SELECT (SELECT count(v.id)) AS n FROM visits v WHERE v.shop_id = @id
==>
SELECT (SELECT count(v.id)) AS n FROM visits v WHERE v.shop_id = @id
               ^
this aggregate reads only what is outside of its SELECT, so that it belongs to one further out
write it there, or write the entry with depends_on

---
-- types: int4
SELECT (SELECT count(v.id) FROM shops s) AS n FROM visits v WHERE v.shop_id = @id
==>
SELECT (SELECT count(v.id) FROM shops s) AS n FROM visits v WHERE v.shop_id = @id
               ^
this aggregate reads only what is outside of its SELECT, so that it belongs to one further out
write it there, or write the entry with depends_on

---
-- types: int4
SELECT (SELECT count(*) + max(v.id + s.id) + max(s.id) FROM shops s WHERE s.id = v.shop_id) AS n FROM visits v WHERE v.shop_id = @id
==>
shops s (id)
  direct: id
visits v (id shop_id)
  direct: shop_id

---
# city is that of the shop, or a column of the function.
-- types: int4
SELECT s.id FROM shops s WHERE s.id = @id AND EXISTS (SELECT 1 FROM json_each(s.open) f WHERE city = 1)
==>
shops s (city id open)
  direct: id

---
# A column further out comes before the row of a table that is near.
-- types: int4
SELECT s.id FROM shops s WHERE s.id = @id AND EXISTS (SELECT 1 FROM visits city WHERE city = 1)
==>
shops s (city id) where city = '1'; city only for city = '1'
  direct: id
visits city ()
  sweep: no equality joins its rows with those of shops, which tell @id

---
# city.kind is never that of another city.
-- types: int4
SELECT city.id FROM shops city WHERE city.id = @id AND EXISTS (SELECT 1 FROM visits city WHERE city.open)
==>
SELECT city.id FROM shops city WHERE city.id = @id AND EXISTS (SELECT 1 FROM visits city WHERE city.open)
                                                                                               ^
there is no column city.open here

---
-- types: int4
SELECT JSON_ARRAY(SELECT v.id FROM visits v) FROM shops s WHERE s.id = @id
==>
SELECT JSON_ARRAY(SELECT v.id FROM visits v) FROM shops s WHERE s.id = @id
       ^
JSON_ARRAY of a SELECT is beyond what is understood
write ARRAY(SELECT ...), or compute it into a column, or write the entry with depends_on

---
# A field of a row may be a function of it.
-- types: int4
SELECT (s).city, (s).stock_left FROM shops s WHERE s.id = @id
==>
SELECT (s).city, (s).stock_left FROM shops s WHERE s.id = @id
                  ^
s has no column stock_left, and a function of that name may read tables
call it as stock_left(s)

---
-- types: int4
SELECT (s).city FROM shops s WHERE s.id = @id
==>
shops s (city id open)
  direct: id

---
-- types: int4
SELECT ((s).city).stock_left FROM shops s WHERE s.id = @id
==>
stock_left() may read tables, and a change to those would not be noticed
declare it IMMUTABLE if it reads nothing but its arguments; else compute it into a column, or write the entry with depends_on

---
-- types: int8
SELECT ctid FROM visits WHERE id = @id
==>
SELECT ctid FROM visits WHERE id = @id
       ^
ctid is a column of the system, and no change tells it
leave it out

---
# Nothing that could change.
-- types: int4
SELECT @id AS id
==>
SELECT @id AS id
^
it reads no table, so that no change ever concerns it
leave the entry out: what is cached so needs no keeping

---
# Nothing ties the weight.
-- types: int4 float8
SELECT count(*) FROM stock WHERE shop_id = @shop AND weight > @weight
==>
stock stock (shop_id weight)
  sweep: nothing ties its rows to @weight by an equality of texts: it is float8, of which values that differ as texts are equal
  only: @shop = shop_id

---
# Each side of an OR tells a parameter of its own; the other is not known.
-- types: int4 int4
SELECT count(*) FROM visits WHERE (shop_id = @shop OR id = @visit) AND shop_id + @shop > id - @visit
==>
visits visits (id shop_id)
  sweep: nothing ties its rows to @shop by an equality
  only: @shop = shop_id
  only: @visit = id
