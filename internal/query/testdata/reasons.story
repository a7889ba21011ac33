CREATE TABLE t (id int4 PRIMARY KEY, n numeric, c bpchar, ci citext, nd text COLLATE folds, v text, nm name, address inet, tags text[]);
---
# Two spellings of one number.
-- types: numeric
SELECT id FROM t WHERE n = @n
==>
t t (id n)
  sweep: nothing ties its rows to @n by an equality of texts: it is numeric, of which values that differ as texts are equal; n::text = @n would tie them

---
# Its text is another thing.
-- types: text
SELECT id FROM t WHERE n::text = @n
==>
t t (id n)
  lookup:
    SELECT DISTINCT (changed.n::text)::text
    FROM unnest($1::text[]::numeric[]) AS changed("n")
  no index: it reads no table

---
-- types: name
SELECT id FROM t WHERE nm = @nm
==>
t t (id nm)
  sweep: nothing ties its rows to @nm by an equality of texts: it is name, which cuts longer texts off: several lead to one value; nm::text = @nm would tie them

---
-- types: text
SELECT id FROM t WHERE nm::text = @nm
==>
t t (id nm)
  lookup:
    SELECT DISTINCT (changed.nm::text)::text
    FROM unnest($1::text[]::name[]) AS changed("nm")
  no index: it reads no table

---
-- types: inet
SELECT id FROM t WHERE @a = address
==>
t t (address id)
  sweep: nothing ties its rows to @a by an equality of texts: it is inet, of which values that differ as texts are equal

---
-- types: citext
SELECT id FROM t WHERE ci = @ci
==>
t t (ci id)
  sweep: nothing ties its rows to @ci by an equality of texts: it is citext, of which values that differ as texts are equal

---
-- types: text
SELECT id FROM t WHERE c::text = @c
==>
t t (c id)
  sweep: nothing ties its rows to @c by an equality of texts: c is char(n), whose blanks at the end count in a text and not in a comparison

---
-- types: text
SELECT id FROM t WHERE ci::text = @ci
==>
t t (ci id)
  sweep: nothing ties its rows to @ci by an equality of texts: ci is citext, of which values that differ as texts are equal

---
-- types: text
SELECT id FROM t WHERE lower(ci) = @ci
==>
t t (ci id)
  sweep: nothing ties its rows to @ci by an equality of texts: ci is citext, of which values that differ as texts are equal

---
-- types: text
SELECT id FROM t WHERE nd = @nd
==>
t t (id nd)
  sweep: nothing ties its rows to @nd by an equality of texts: nd has a collation for which texts that differ may be equal

---
-- types: text
SELECT id FROM t WHERE nd COLLATE "C" = @nd
==>
t t (id nd)
  sweep: nothing ties its rows to @nd by an equality of texts: with COLLATE it is not known whether texts that differ are equal

---
-- types: text
SELECT id FROM t WHERE lower(nd) = @nd
==>
t t (id nd)
  sweep: nothing ties its rows to @nd by an equality of texts: nd has a collation for which texts that differ may be equal

---
# Many values of the parameter lead to the same.
-- types: text
SELECT id FROM t WHERE upper(v) = upper(@k)
==>
t t (id v)
  sweep: nothing ties its rows to @k by an equality with itself: the query computes with it, and which values of it are the same then is not known; compare with @k alone, and compute before the key is made

---
-- types: int4
SELECT id FROM t WHERE id = @k + 1
==>
t t (id)
  sweep: nothing ties its rows to @k by an equality with itself: the query computes with it, and which values of it are the same then is not known; compare with @k alone, and compute before the key is made

---
-- types: int4
SELECT id FROM t WHERE n = @k
==>
t t (id n)
  sweep: nothing ties its rows to @k by an equality of texts: n is numeric, of which values that differ as texts are equal

---
-- types: text
SELECT id FROM t WHERE v = @k AND id = length(@k)
==>
t t (id v)
  direct: v

---
# A subquery shows what is cast.
-- types: text
SELECT id FROM (SELECT id, c::text AS code FROM t) s WHERE code = @c
==>
t t (c id)
  sweep: nothing ties its rows to @c by an equality of texts: c is char(n), whose blanks at the end count in a text and not in a comparison

---
# Parameters as others write them, and other slips.
-- types:
SELECT id FROM t WHERE id = :id
==>
SELECT id FROM t WHERE id = :id
                            ^
syntax error at or near ":"
write parameters as @name: @id

---
-- types:
SELECT id FROM t WHERE id = ?
==>
SELECT id FROM t WHERE id = ?
                             ^
syntax error at end of input
write parameters as @name

---
-- types:
SELECT id FROM t WHERE id = %(id)s
==>
SELECT id FROM t WHERE id = %(id)s
                            ^
syntax error at or near "%"
write parameters as @name

---
-- types:
SELECT id FROM t WHERE id = $1
==>
SELECT id FROM t WHERE id = $1
                            ^
$1 has no name
write parameters as @name

---
-- types:
SELEC id FROM t
==>
SELEC id FROM t
^
syntax error at or near "SELEC"
write one SELECT

---
-- types:
SELECT id FROM t WHERE v LIKE $a%$
==>
SELECT id FROM t WHERE v LIKE $a%$
                              ^
syntax error at or near "$"
write parameters as @name, and a text as '...'; in the configuration $$ is one $, and $$$$ begins and ends a text

---
-- types:
SELECT id FROM WHERE
==>
SELECT id FROM WHERE
               ^
syntax error at or near "WHERE"
write what psql takes, with @name for each parameter

---
# Where it stands, and what it is called.
-- types: int4
SELECT v FROM t
WHERE id = @id AND v <> 'for update'
FOR NO KEY UPDATE
==>
FOR NO KEY UPDATE
^
FOR UPDATE and FOR SHARE lock rows
leave it out

---
-- types: int4
SELECT v FROM t WHERE id = @id AND v = current_user
==>
SELECT v FROM t WHERE id = @id AND v = current_user
                                       ^
the value of current_user depends on the time or on who asks, and no change tells when it becomes another
compute it into a column; or write the entry with depends_on; or cache the result without Unstale, with a short TTL of the application's own

---
-- types: int4
SELECT v, localtimestamp(3) FROM t WHERE id = @id
==>
SELECT v, localtimestamp(3) FROM t WHERE id = @id
          ^
the value of localtimestamp depends on the time or on who asks, and no change tells when it becomes another
compute it into a column; or write the entry with depends_on; or cache the result without Unstale, with a short TTL of the application's own
