CREATE TYPE status AS ENUM ('open', 'paid', 'sent');
CREATE TABLE orders (id int4 PRIMARY KEY, customer_id int4, status status NOT NULL, urgent bool, weight int4, note text);
CREATE TABLE lines (order_id int4, sold bool NOT NULL, product text);
CREATE VIEW pending AS SELECT id, customer_id, weight FROM orders WHERE status <> 'sent';
---
# What a condition reads, and nothing else, matters as far as the condition says another
# thing: from open to paid the count is the same.
-- types: int4
SELECT count(*) FROM orders WHERE customer_id = @customer AND status IN ('open', 'paid') AND urgent IS NOT TRUE
==>
orders orders (customer_id status urgent) where (status IN ('open', 'paid') AND NOT urgent IS TRUE); status urgent only for status IN ('open', 'paid'), NOT urgent IS TRUE
  direct: customer_id

---
# Where it is shown, or sorted by, it matters.
-- types: int4
SELECT id, status FROM orders WHERE customer_id = @customer AND status <> 'sent' AND weight < 5 ORDER BY urgent
==>
orders orders (customer_id id status urgent weight) where (NOT status = 'sent' AND weight < 5); weight only for weight < 5
  direct: customer_id

---
# Or where another condition reads it that cannot be decided.
-- types: int4
SELECT id FROM orders WHERE customer_id = @customer AND weight < 5 AND weight * 2 <> id AND (urgent OR note LIKE 'a%')
==>
orders orders (customer_id id note urgent weight) where (weight < 5 AND (urgent = 't' OR …))
  direct: customer_id

---
# One that cannot be decided beside one that can, in an OR.
-- types: int4
SELECT id FROM orders WHERE customer_id = @customer AND (urgent OR weight = 3) AND (weight = 3 OR note IS NULL)
==>
orders orders (customer_id id note urgent weight) where ((urgent = 't' OR weight = '3') AND (weight = '3' OR note IS NULL)); note urgent weight only for (urgent = 't' OR weight = '3'), (weight = '3' OR note IS NULL)
  direct: customer_id

---
# Of a view, of an outer join, and of a subquery it is the same.
-- types: int4
SELECT p.id, (SELECT count(*) FROM lines l WHERE l.order_id = p.id AND l.sold) AS n
FROM pending p LEFT JOIN lines m ON m.order_id = p.id AND NOT m.sold WHERE p.customer_id = @customer
==>
lines l (order_id sold) where (sold = 't' AND order_id IS NOT NULL); sold only for sold = 't'
  lookup:
    SELECT DISTINCT t1."customer_id"::text
    FROM unnest($1::text[]::int4[], $2::text[]::bool[]) AS changed("order_id", "sold"), "public"."orders" AS t1
    WHERE (changed.order_id = t1.id)
      AND (changed.sold)
      AND (t1.status <> 'sent')
  index by order_id: public.orders, id to customer_id, unique
    SELECT t1."customer_id"::text
    FROM unnest($1::text[]::int4[]) AS changed("order_id"), "public"."orders" AS t1
    WHERE (changed.order_id = t1.id)
orders orders (customer_id id status weight) where NOT status = 'sent'; status only for NOT status = 'sent'
  direct: customer_id
lines m (order_id sold) where (NOT sold = 't' AND order_id IS NOT NULL); sold only for NOT sold = 't'
  lookup:
    SELECT DISTINCT t1."customer_id"::text
    FROM unnest($1::text[]::int4[], $2::text[]::bool[]) AS changed("order_id", "sold"), "public"."orders" AS t1
    WHERE (changed.order_id = t1.id)
      AND (NOT changed.sold)
      AND (t1.status <> 'sent')
  index by order_id: public.orders, id to customer_id, unique
    SELECT t1."customer_id"::text
    FROM unnest($1::text[]::int4[]) AS changed("order_id"), "public"."orders" AS t1
    WHERE (changed.order_id = t1.id)

---
# Of a whole row each column matters.
-- types: int4
SELECT o FROM orders o WHERE o.customer_id = @customer AND o.status = 'open'
==>
orders o (customer_id id note status urgent weight) where status = 'open'
  direct: customer_id

---
# What groups, counts or is filtered by a column reads it.
-- types: int4
SELECT status, count(*) FILTER (WHERE urgent) FROM orders WHERE customer_id = @customer AND status <> 'sent' AND NOT urgent GROUP BY status HAVING status <> 'paid'
==>
orders orders (customer_id status urgent) where (NOT status = 'sent' AND NOT urgent = 't' AND NOT status = 'paid')
  direct: customer_id

---
# So does what it is joined with, and a parameter.
-- types: bool
SELECT a.id FROM orders a JOIN lines l ON l.order_id = a.id AND l.sold = a.urgent WHERE a.urgent IS NOT NULL AND l.sold = @sold AND l.sold
==>
orders a (id urgent) where (urgent IS NOT NULL AND urgent IS NOT NULL)
  direct: urgent
lines l (order_id sold) where (sold = 't' AND order_id IS NOT NULL)
  direct: sold
