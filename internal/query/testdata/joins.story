CREATE TYPE order_status AS ENUM ('open', 'paid');
CREATE TABLE categories (id int4 PRIMARY KEY, name text, parent_id int4, active bool NOT NULL);
CREATE TABLE products (id int8 PRIMARY KEY, name text NOT NULL, price numeric, category_id int4, note text);
CREATE TABLE reviews (id int8 PRIMARY KEY, product_id int8 NOT NULL, stars int4 NOT NULL, author text);
CREATE TABLE customers (id int4 PRIMARY KEY, email text NOT NULL, region_id int4);
CREATE TABLE orders (id int8 PRIMARY KEY, customer_id int4 NOT NULL, status order_status NOT NULL, total numeric);
CREATE TABLE items (order_id int8 NOT NULL, product_id int8 NOT NULL, quantity int4 NOT NULL);
CREATE TABLE settings (name text, value text);
CREATE VIEW product_cards AS SELECT p.id, p.name, c.name AS category FROM products p LEFT JOIN categories c ON c.id = p.category_id;
---
# A page: the product itself gives the key, its category by a lookup.
-- types: int8
SELECT p.id, p.name, p.price, c.name AS category_name
FROM products p JOIN categories c ON c.id = p.category_id
WHERE p.id = @id
==>
products p (category_id id name price) where category_id IS NOT NULL
  direct: id
categories c (id name)
  lookup:
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."products" AS t1
    WHERE (changed.id = t1.category_id)
  index by id: public.products, category_id to id, unique
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."products" AS t1
    WHERE (changed.id = t1.category_id)

---
# A list by a foreign key.
-- types: int4
SELECT id, name, price FROM products WHERE category_id = @category_id ORDER BY name LIMIT 50
==>
products products (category_id id name price)
  direct: category_id

---
# Open orders of a customer: what is not open is spared.
-- types: int4
SELECT o.id, o.total, sum(i.quantity) AS pieces
FROM orders o LEFT JOIN items i ON i.order_id = o.id
WHERE o.customer_id = @customer AND o.status = 'open'
GROUP BY o.id
==>
orders o (customer_id id status total) where status = 'open'; status only for status = 'open'
  direct: customer_id
items i (order_id quantity)
  lookup:
    SELECT DISTINCT t1."customer_id"::text
    FROM unnest($1::text[]::int8[]) AS changed("order_id"), "public"."orders" AS t1
    WHERE (changed.order_id = t1.id)
      AND (t1.status = 'open')
  index by order_id: public.orders, id to customer_id, unique
    SELECT t1."customer_id"::text
    FROM unnest($1::text[]::int8[]) AS changed("order_id"), "public"."orders" AS t1
    WHERE (changed.order_id = t1.id)

---
# The other side of an outer join.
-- types: int4
SELECT o.id, c.email FROM customers c LEFT JOIN orders o ON o.customer_id = c.id AND o.status = 'paid'
WHERE c.region_id = @region AND o.id IS NULL
==>
customers c (email id region_id)
  direct: region_id
orders o (customer_id id status) where status = 'paid'; status only for status = 'paid'
  lookup:
    SELECT DISTINCT t1."region_id"::text
    FROM unnest($1::text[]::int4[], $2::text[]::public.order_status[]) AS changed("customer_id", "status"), "public"."customers" AS t1
    WHERE (changed.customer_id = t1.id)
      AND (changed.status = 'paid')
  index by customer_id: public.customers, id to region_id, unique
    SELECT t1."region_id"::text
    FROM unnest($1::text[]::int4[]) AS changed("customer_id"), "public"."customers" AS t1
    WHERE (changed.customer_id = t1.id)

---
# By an expression.
-- types: text
SELECT id FROM customers WHERE lower(email) = @email
==>
customers customers (email id)
  lookup:
    SELECT DISTINCT (lower(changed.email))::text
    FROM unnest($1::text[]::text[]) AS changed("email")
  no index: it reads no table

---
# Through a view, two steps away.
-- types: int8
SELECT o.id, v.name, v.category FROM orders o JOIN items i ON i.order_id = o.id JOIN product_cards v ON v.id = i.product_id
WHERE o.id = @id
==>
orders o (id)
  direct: id
items i (order_id product_id)
  direct: order_id
products p (category_id id name)
  lookup:
    SELECT DISTINCT t1."order_id"::text
    FROM unnest($1::text[]::int8[]) AS changed("id"), "public"."items" AS t1
    WHERE (changed.id = t1.product_id)
  index by id: public.items, product_id to order_id
    SELECT DISTINCT t1."order_id"::text
    FROM unnest($1::text[]::int8[]) AS changed("id"), "public"."items" AS t1
    WHERE (changed.id = t1.product_id)
categories c (id name)
  lookup:
    SELECT DISTINCT t1."order_id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."items" AS t1, "public"."products" AS t2
    WHERE (changed.id = t2.category_id)
      AND (t2.id = t1.product_id)
  no index: it goes through 2 tables

---
# EXISTS and NOT EXISTS.
-- types: int4
SELECT p.id FROM products p
WHERE p.category_id = @c AND EXISTS (SELECT 1 FROM reviews r WHERE r.product_id = p.id AND r.stars >= 4)
  AND NOT EXISTS (SELECT 1 FROM items i WHERE i.product_id = p.id)
==>
products p (category_id id)
  direct: category_id
reviews r (product_id stars) where NOT stars < 4; stars only for NOT stars < 4
  lookup:
    SELECT DISTINCT t1."category_id"::text
    FROM unnest($1::text[]::int8[], $2::text[]::int4[]) AS changed("product_id", "stars"), "public"."products" AS t1
    WHERE (changed.product_id = t1.id)
      AND (changed.stars >= 4)
  index by product_id: public.products, id to category_id, unique
    SELECT t1."category_id"::text
    FROM unnest($1::text[]::int8[]) AS changed("product_id"), "public"."products" AS t1
    WHERE (changed.product_id = t1.id)
items i (product_id)
  lookup:
    SELECT DISTINCT t1."category_id"::text
    FROM unnest($1::text[]::int8[]) AS changed("product_id"), "public"."products" AS t1
    WHERE (changed.product_id = t1.id)
  index by product_id: public.products, id to category_id, unique
    SELECT t1."category_id"::text
    FROM unnest($1::text[]::int8[]) AS changed("product_id"), "public"."products" AS t1
    WHERE (changed.product_id = t1.id)

---
# IN and NOT IN.
-- types: int4
SELECT p.id FROM products p
WHERE p.category_id = @c AND p.id IN (SELECT product_id FROM reviews) AND p.name NOT IN (SELECT author FROM reviews)
==>
products p (category_id id name)
  direct: category_id
reviews reviews (product_id)
  lookup:
    SELECT DISTINCT t1."category_id"::text
    FROM unnest($1::text[]::int8[]) AS changed("product_id"), "public"."products" AS t1
    WHERE (t1.id = changed.product_id)
  index by product_id: public.products, id to category_id, unique
    SELECT t1."category_id"::text
    FROM unnest($1::text[]::int8[]) AS changed("product_id"), "public"."products" AS t1
    WHERE (t1.id = changed.product_id)
reviews reviews (author)
  sweep: no equality joins its rows with those of products, which tell @c

---
# An aggregate in a subquery, grouped by what joins it.
-- types: int8
SELECT p.id, r.n FROM products p JOIN (SELECT product_id, count(*) AS n FROM reviews GROUP BY product_id) r ON r.product_id = p.id
WHERE p.id = @id
==>
products p (id)
  direct: id
reviews reviews (product_id)
  direct: product_id

---
# The ten dearest of all, and of them those of a category: any product can push one out.
-- types: int4
SELECT * FROM (SELECT id, category_id FROM products ORDER BY price DESC LIMIT 10) t WHERE t.category_id = @c
==>
products products (category_id id price)
  sweep: nothing ties its rows to @c by an equality

---
# A set operation.
-- types: int8
SELECT u.what FROM (SELECT product_id, author AS what FROM reviews UNION ALL SELECT id, name FROM products) u WHERE u.product_id = @id
==>
reviews reviews (author product_id)
  direct: product_id
products products (id name)
  direct: id

---
# Tied by less than an equality, and not at all.
-- types: int4
SELECT p.id, s.value FROM products p, settings s WHERE p.price > (SELECT avg(price) FROM products) AND s.name = 'currency' AND p.category_id = @c
==>
products p (category_id id price)
  direct: category_id
settings s (name value) where name = 'currency'; name only for name = 'currency'
  sweep: no equality joins its rows with those of products, which tell @c
products products (price)
  sweep: no equality joins its rows with those of products, which tell @c

---
# One of two.
-- types: int4
SELECT id, name FROM categories WHERE id = @id OR parent_id = @id
==>
categories categories (id name parent_id)
  direct: id
  direct: parent_id

---
# A parent: the same table twice.
-- types: int4
SELECT c.name, p.name AS parent FROM categories c LEFT JOIN categories p ON p.id = c.parent_id WHERE c.id = @id AND c.active
==>
categories c (active id name parent_id) where active = 't'; active only for active = 't'
  direct: id
categories p (id name)
  lookup:
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."categories" AS t1
    WHERE (changed.id = t1.parent_id)
      AND (t1.active)
  index by id: public.categories, parent_id to id, unique
    SELECT t1."id"::text
    FROM unnest($1::text[]::int4[]) AS changed("id"), "public"."categories" AS t1
    WHERE (changed.id = t1.parent_id)

---
# No parameter: one key.
-- types:
SELECT count(*) FROM orders WHERE status = 'open'
==>
orders orders (status) where status = 'open'; status only for status = 'open'
  direct: 

---
# Recursive.
-- types: int4
WITH RECURSIVE tree AS (
  SELECT id, name FROM categories WHERE id = @id
  UNION ALL SELECT c.id, c.name FROM categories c JOIN tree t ON c.parent_id = t.id)
SELECT * FROM tree
==>
categories categories (id name)
  direct: id
categories c (id name parent_id) where parent_id IS NOT NULL
  sweep: nothing ties its rows to @id by an equality

---
# Row numbers in a category.
-- types: int4
SELECT * FROM (SELECT id, category_id, row_number() OVER (PARTITION BY category_id ORDER BY price) AS n FROM products) t WHERE category_id = @c AND n <= 3
==>
products products (category_id id price)
  direct: category_id

---
# Row numbers over all.
-- types: int4
SELECT * FROM (SELECT id, category_id, row_number() OVER (ORDER BY price) AS n FROM products) t WHERE category_id = @c AND n <= 3
==>
products products (category_id id price)
  sweep: nothing ties its rows to @c by an equality

---
# The time.
-- types: int4
SELECT id FROM orders WHERE customer_id = @c AND total > 10
  AND now() > '2024-01-01'
==>
  AND now() > '2024-01-01'
      ^
the value of now() depends on the time or on who asks, and no change tells when it becomes another
compute it into a column; or write the entry with depends_on; or cache the result without Unstale, with a short TTL of the application's own

---
# A function that may read tables.
-- types: int4
SELECT customer_level(id) FROM customers WHERE id = @id
==>
SELECT customer_level(id) FROM customers WHERE id = @id
       ^
customer_level() may read tables, and a change to those would not be noticed
declare it IMMUTABLE if it reads nothing but its arguments; else compute it into a column, or write the entry with depends_on

---
# Where there is no category the subquery shows 0: that the shelf is that of the review does
# not tell that there is one, and a product leads to reviews without it.
-- types: int8
SELECT r.stars FROM reviews r JOIN (SELECT p.id, coalesce(c.id, 0) AS shelf FROM products p LEFT JOIN (SELECT id FROM categories) c ON c.id = p.category_id) s ON s.shelf = r.stars WHERE r.id = @id
==>
reviews r (id stars)
  direct: id
products p (category_id id)
  sweep: no equality joins its rows with those of reviews, which tell @id
categories categories (id)
  sweep: no equality joins its rows with those of reviews, which tell @id
