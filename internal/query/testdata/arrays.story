CREATE TABLE products (id uuid PRIMARY KEY, name text, tags text[], sizes int2[] NOT NULL, weights numeric[], codes bpchar[], folded text[] COLLATE folds, active bool NOT NULL);
CREATE TABLE conversations (id int4 PRIMARY KEY, participants uuid[] NOT NULL, subject text);
CREATE TABLE messages (id int8 PRIMARY KEY, conversation_id int4 NOT NULL, body text);
---
# Each element of a changed row's array is a key.
-- types: text
SELECT id, name FROM products WHERE @tag = ANY (tags) AND active
==>
products products (active id name tags) where active = 't'; active only for active = 't'
  lookup:
    SELECT DISTINCT e1.value::text
    FROM unnest($1::text[]::text[], $2::text[]::bool[]) AS changed("tags", "active"), unnest(changed."tags"::text[]) AS e1(value)
    WHERE (changed.active)
  no index: it reads no table

---
# So it is where the array contains the value, which an index of it finds.
-- types: text
SELECT id, name FROM products WHERE tags @> ARRAY[@tag] AND active
==>
products products (active id name tags) where active = 't'; active only for active = 't'
  lookup:
    SELECT DISTINCT e1.value::text
    FROM unnest($1::text[]::text[], $2::text[]::bool[]) AS changed("tags", "active"), unnest(changed."tags"::text[]) AS e1(value)
    WHERE (changed.active)
  no index: it reads no table

---
-- types: int4
SELECT id FROM products WHERE ARRAY[@size::int4, 3] <@ sizes::int4[] OR ARRAY[@size] <@ sizes
==>
products products (id sizes)
  sweep: nothing ties its rows to @size by an equality

---
# A whole number of one size is equal to one of another.
-- types: int4
SELECT id FROM products WHERE @size = ANY (sizes)
==>
products products (id sizes)
  lookup:
    SELECT DISTINCT e1.value::text
    FROM unnest($1::text[]::text[]) AS changed("sizes"), unnest(changed."sizes"::int2[]) AS e1(value)
  no index: it reads no table

---
# Of two arrays each pair is a key.
-- types: text int2
SELECT id FROM products WHERE @tag = ANY (tags) AND sizes @> ARRAY[@size]
==>
products products (id sizes tags)
  lookup:
    SELECT DISTINCT e1.value::text, e2.value::text
    FROM unnest($1::text[]::text[], $2::text[]::text[]) AS changed("tags", "sizes"), unnest(changed."tags"::text[]) AS e1(value), unnest(changed."sizes"::int2[]) AS e2(value)
  no index: it reads no table

---
# Who is in a conversation is told by a row that others refer to.
-- types: uuid
SELECT m.id, m.body FROM messages m JOIN conversations c ON c.id = m.conversation_id WHERE @member = ANY (c.participants)
==>
messages m (body conversation_id id)
  lookup:
    SELECT DISTINCT e1.value::text
    FROM unnest($1::text[]::int4[]) AS changed("conversation_id"), "public"."conversations" AS t1, unnest(t1."participants") AS e1(value)
    WHERE (t1.id = changed.conversation_id)
  no index: not every value of the key is a column of conversations
conversations c (id participants)
  lookup:
    SELECT DISTINCT e1.value::text
    FROM unnest($1::text[]::text[]) AS changed("participants"), unnest(changed."participants"::uuid[]) AS e1(value)
  no index: it reads no table

---
# A missing side has no array that holds anything.
-- types: uuid
SELECT m.id FROM messages m LEFT JOIN conversations c ON c.id = m.conversation_id WHERE @member = ANY (c.participants)
==>
messages m (conversation_id id)
  lookup:
    SELECT DISTINCT e1.value::text
    FROM unnest($1::text[]::int4[]) AS changed("conversation_id"), "public"."conversations" AS t1, unnest(t1."participants") AS e1(value)
    WHERE (t1.id = changed.conversation_id)
  no index: not every value of the key is a column of conversations
conversations c (id participants)
  lookup:
    SELECT DISTINCT e1.value::text
    FROM unnest($1::text[]::text[]) AS changed("participants"), unnest(changed."participants"::uuid[]) AS e1(value)
  no index: it reads no table

---
# Where any value but one, none, or a greater one is wanted, an array says nothing.
-- types: text
SELECT id FROM products WHERE @tag <> ALL (tags) OR NOT @tag = ANY (tags) OR @tag < ANY (tags)
==>
products products (id tags)
  sweep: nothing ties its rows to @tag by an equality

---
-- types: text
SELECT id FROM products WHERE tags && ARRAY[@tag, 'all']
==>
products products (id tags)
  sweep: nothing ties its rows to @tag by an equality

---
# Elements that are equal may differ as texts.
-- types: numeric
SELECT id FROM products WHERE @weight = ANY (weights)
==>
products products (id weights)
  sweep: nothing ties its rows to @weight by an equality of texts: it is numeric, of which values that differ as texts are equal

---
-- types: text
SELECT id FROM products WHERE @code = ANY (codes)
==>
products products (codes id)
  sweep: nothing ties its rows to @code by an equality of texts: codes is bpchar[]

---
-- types: text
SELECT id FROM products WHERE @name = ANY (folded)
==>
products products (folded id)
  sweep: nothing ties its rows to @name by an equality of texts: folded has a collation for which texts that differ may be equal

---
# The elements of a list are those of each of its rows, not of one that a count holds.
-- types: text
SELECT n FROM (SELECT tags, count(*) AS n FROM products GROUP BY tags) t WHERE @tag = ANY (t.tags)
==>
products products (tags)
  sweep: nothing ties its rows to @tag by an equality
