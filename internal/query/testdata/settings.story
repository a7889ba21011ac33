CREATE DOMAIN folded AS text COLLATE folds;
CREATE DOMAIN day AS date;
CREATE TYPE state AS ENUM ('open', 'sold');
CREATE TABLE homes (id int4 PRIMARY KEY, street_id int4, name text, built date, lasts interval, state state, shown timestamptz[], open tstzrange, sale timestamp);
CREATE TABLE streets (id int4 PRIMARY KEY, name text, moment timestamp);
CREATE VIEW old_homes AS SELECT id, street_id, name, coalesce(state, 'open'::state) AS state FROM homes WHERE built < '1950-06-01'::date;
---
# A domain has a collation of its own: 'A' is the key of a row with 'a'.
-- types: text
SELECT id FROM homes WHERE name::folded = @name
==>
homes homes (id name)
  sweep: nothing ties its rows to @name by an equality of texts: it is cast to folded, of which it is not known whether texts that differ are equal

---
-- types: folded
SELECT id FROM homes WHERE name = @name::folded
==>
homes homes (id name)
  sweep: nothing ties its rows to @name by an equality of texts: it has a collation for which texts that differ may be equal

---
# A domain over date reads a text as DateStyle has it.
-- types: date
SELECT id FROM homes WHERE name::day = @day
==>
homes homes (id name)
  sweep: nothing ties its rows to @day by an equality of texts: it is cast to day, of which it is not known whether texts that differ are equal

---
# The cast to the enum is no such domain.
-- types: state
SELECT id FROM old_homes WHERE state = @state
==>
homes homes (built id name state street_id)
  lookup:
    SELECT DISTINCT (COALESCE(changed.state, 'open'::state))::public.state::text
    FROM unnest($1::text[]::public.state[], $2::text[]::date[]) AS changed("state", "built")
    WHERE (changed.built < '1950-06-01'::date)
  no index: it reads no table

---
# Who has DateStyle DMY means February: it is not asked in the session of the service.
-- types: int4
SELECT h.name FROM homes h JOIN streets s ON s.id = h.street_id WHERE h.id = @id AND h.built >= '01/02/1950'
==>
homes h (built id name street_id) where street_id IS NOT NULL
  direct: id
streets s (id)
  lookup:
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."homes" AS t1
    WHERE (changed.id = t1.street_id)
  index by id: public.homes, street_id to id, unique
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."homes" AS t1
    WHERE (changed.id = t1.street_id)

---
# This is the same day everywhere.
-- types: int4
SELECT h.name FROM homes h JOIN streets s ON s.id = h.street_id WHERE h.id = @id AND h.built >= '1950-02-01'
==>
homes h (built id name street_id) where street_id IS NOT NULL
  direct: id
streets s (id)
  lookup:
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."homes" AS t1
    WHERE (changed.id = t1.street_id)
      AND (t1.built >= '1950-02-01')
  index by id: public.homes, street_id to id, unique
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."homes" AS t1
    WHERE (changed.id = t1.street_id)

---
# With IntervalStyle sql_standard the minus is that of the hours too.
-- types: int4
SELECT h.name FROM homes h JOIN streets s ON s.id = h.street_id WHERE h.id = @id AND h.lasts > '-1 2:00:00'
==>
homes h (id lasts name street_id) where street_id IS NOT NULL
  direct: id
streets s (id)
  lookup:
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."homes" AS t1
    WHERE (changed.id = t1.street_id)
  index by id: public.homes, street_id to id, unique
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."homes" AS t1
    WHERE (changed.id = t1.street_id)

---
-- types: int4
SELECT h.name FROM old_homes h JOIN streets s ON s.id = h.street_id WHERE h.id = @id
==>
homes homes (built id name state street_id) where street_id IS NOT NULL
  direct: id
streets s (id)
  lookup:
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."homes" AS t1
    WHERE (changed.id = t1.street_id)
      AND (t1.built < '1950-06-01'::date)
  index by id: public.homes, street_id to id, unique
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."homes" AS t1
    WHERE (changed.id = t1.street_id)

---
# What is in an array, or bounds a range, depends on the time zone like a column.
-- types: int4
SELECT h.name FROM homes h JOIN streets s ON s.moment = h.shown[1] WHERE h.id = @id
==>
homes h (id name shown)
  direct: id
streets s (moment) where moment IS NOT NULL
  sweep: no equality joins its rows with those of homes, which tell @id

---
-- types: int4
SELECT h.name FROM homes h JOIN streets s ON s.id = h.street_id WHERE h.id = @id AND lower(h.open) <= h.sale
==>
homes h (id name open sale street_id) where street_id IS NOT NULL
  direct: id
streets s (id)
  lookup:
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."homes" AS t1
    WHERE (changed.id = t1.street_id)
  index by id: public.homes, street_id to id, unique
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."homes" AS t1
    WHERE (changed.id = t1.street_id)
