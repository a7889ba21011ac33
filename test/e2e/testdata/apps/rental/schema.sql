-- Video rental: films with actors and categories, copies in stores, rentals, payments
-- by month, addresses down to the country.
CREATE TYPE rating AS ENUM ('G', 'PG', 'PG-13', 'R', 'NC-17');
CREATE DOMAIN year AS int CHECK (value BETWEEN 1901 AND 2155);

CREATE TABLE countries (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE cities (id int PRIMARY KEY, name text NOT NULL, country_id int NOT NULL REFERENCES countries ON DELETE CASCADE);
CREATE TABLE addresses (id int PRIMARY KEY, street text NOT NULL, district text, city_id int NOT NULL REFERENCES cities ON DELETE CASCADE, phone text);
CREATE TABLE languages (id smallint PRIMARY KEY, name text NOT NULL);
CREATE TABLE actors (id int PRIMARY KEY, first_name text NOT NULL, last_name text NOT NULL);
CREATE TABLE categories (id smallint PRIMARY KEY, name text NOT NULL);
CREATE TABLE films (
  id int PRIMARY KEY,
  title text NOT NULL,
  description text,
  release_year year,
  language_id smallint NOT NULL REFERENCES languages,
  original_language_id smallint REFERENCES languages,
  sequel_of int REFERENCES films ON DELETE SET NULL,
  rental_rate numeric(4,2) NOT NULL,
  length smallint,
  rating rating DEFAULT 'G',
  special_features text[],
  fulltext tsvector
);
CREATE INDEX ON films (language_id);
CREATE INDEX ON films (sequel_of);
CREATE TABLE film_actors (actor_id int NOT NULL REFERENCES actors ON DELETE CASCADE, film_id int NOT NULL REFERENCES films ON DELETE CASCADE, PRIMARY KEY (actor_id, film_id));
CREATE INDEX ON film_actors (film_id);
CREATE TABLE film_categories (film_id int NOT NULL REFERENCES films ON DELETE CASCADE, category_id smallint NOT NULL REFERENCES categories ON DELETE CASCADE, PRIMARY KEY (film_id, category_id));
CREATE INDEX ON film_categories (category_id);
CREATE TABLE stores (id int PRIMARY KEY, address_id int NOT NULL REFERENCES addresses ON DELETE CASCADE, manager_id int);
CREATE TABLE staff (id int PRIMARY KEY, first_name text NOT NULL, last_name text NOT NULL, store_id int NOT NULL REFERENCES stores ON DELETE CASCADE, active boolean NOT NULL DEFAULT true, username text NOT NULL);
CREATE TABLE customers (
  id int PRIMARY KEY,
  store_id int NOT NULL REFERENCES stores ON DELETE CASCADE,
  first_name text NOT NULL,
  last_name text NOT NULL,
  email text,
  address_id int REFERENCES addresses ON DELETE SET NULL,
  active boolean NOT NULL DEFAULT true,
  created_on date NOT NULL
);
CREATE INDEX ON customers (address_id);
CREATE TABLE inventory (id int PRIMARY KEY, film_id int NOT NULL REFERENCES films ON DELETE CASCADE, store_id int NOT NULL REFERENCES stores ON DELETE CASCADE);
CREATE INDEX ON inventory (film_id);
CREATE TABLE rentals (
  id int PRIMARY KEY,
  inventory_id int NOT NULL REFERENCES inventory ON DELETE CASCADE,
  customer_id int NOT NULL REFERENCES customers ON DELETE CASCADE,
  staff_id int REFERENCES staff ON DELETE SET NULL,
  period tsrange NOT NULL,
  returned_at timestamp
);
CREATE INDEX ON rentals (inventory_id);
CREATE INDEX ON rentals (customer_id);
CREATE TABLE payments (
  id int NOT NULL,
  rental_id int,
  customer_id int NOT NULL,
  amount numeric(5,2) NOT NULL,
  paid_on date NOT NULL,
  PRIMARY KEY (id, paid_on, customer_id)
) PARTITION BY RANGE (paid_on);
CREATE TABLE payments_2026_01 PARTITION OF payments FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE payments_2026_02 PARTITION OF payments FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY LIST (customer_id);
CREATE TABLE payments_2026_02_1 PARTITION OF payments_2026_02 FOR VALUES IN (1, 2, 3);
CREATE TABLE payments_2026_02_2 PARTITION OF payments_2026_02 DEFAULT;
CREATE TABLE payments_later PARTITION OF payments DEFAULT;
CREATE INDEX ON payments (rental_id);
CREATE INDEX ON payments (customer_id);

CREATE VIEW places AS
  SELECT a.id, a.street, a.phone, c.name AS city, co.name AS country
  FROM addresses a JOIN cities c ON c.id = a.city_id JOIN countries co ON co.id = c.country_id;
CREATE VIEW customer_list AS
  SELECT c.id, c.first_name || ' ' || c.last_name AS name, p.street, p.city, p.country, CASE WHEN c.active THEN 'active' ELSE '' END AS notes, c.store_id
  FROM customers c LEFT JOIN places p ON p.id = c.address_id;
CREATE VIEW film_list AS
  SELECT f.id, f.title, f.rental_rate, f.rating, string_agg(a.first_name || ' ' || a.last_name, ', ' ORDER BY a.id) AS actors
  FROM films f LEFT JOIN film_actors fa ON fa.film_id = f.id LEFT JOIN actors a ON a.id = fa.actor_id GROUP BY f.id, f.title, f.rental_rate, f.rating;
CREATE VIEW rented AS SELECT r.id, r.inventory_id, r.customer_id, i.film_id, i.store_id FROM rentals r JOIN inventory i ON i.id = r.inventory_id WHERE r.returned_at IS NULL;

INSERT INTO countries SELECT i, 'Country ' || i FROM generate_series(1, 4) i;
INSERT INTO cities SELECT i, 'City ' || i, 1 + i % 4 FROM generate_series(1, 8) i;
INSERT INTO addresses SELECT i, 'Street ' || i, NULL, 1 + i % 8, '555-' || i FROM generate_series(1, 25) i;
INSERT INTO languages VALUES (1, 'English'), (2, 'Italian'), (3, 'French');
INSERT INTO actors SELECT i, 'First' || i, 'Last' || i % 7 FROM generate_series(1, 15) i;
INSERT INTO categories SELECT i, 'Category ' || i FROM generate_series(1, 6) i;
INSERT INTO films SELECT i, 'Film ' || i, 'about ' || i, 2000 + i % 4, 1 + i % 3, CASE WHEN i % 4 = 0 THEN 1 END, CASE WHEN i % 5 = 0 THEN i - 1 END, 0.99 + i % 4, 60 + i, (enum_range(NULL::rating))[1 + i % 5],
  CASE i % 3 WHEN 0 THEN ARRAY['Trailers'] WHEN 1 THEN ARRAY['Trailers', 'Deleted Scenes'] END, to_tsvector('simple', 'film ' || i) FROM generate_series(1, 30) i;
INSERT INTO film_actors SELECT a, f FROM generate_series(1, 15) a, generate_series(1, 30) f WHERE (a * f) % 8 = 0;
INSERT INTO film_categories SELECT f, 1 + f % 6 FROM generate_series(1, 30) f;
INSERT INTO stores VALUES (1, 1, 1), (2, 2, 3);
INSERT INTO staff SELECT i, 'Staff' || i, 'Person', 1 + i % 2, i <> 4, 'Staff' || i FROM generate_series(1, 4) i;
INSERT INTO customers SELECT i, 1 + i % 2, 'First' || i, 'Last' || i, 'c' || i || '@Rental.test', 3 + i, i % 6 <> 0, date '2026-01-01' + i % 4 FROM generate_series(1, 20) i;
INSERT INTO inventory SELECT i, 1 + i % 30, 1 + i % 2 FROM generate_series(1, 60) i;
INSERT INTO rentals SELECT i, 1 + i % 60, 1 + i * 7 % 20, 1 + i % 4, tsrange(timestamp '2026-01-01' + i * interval '9 hours', timestamp '2026-01-04' + i * interval '9 hours'),
  CASE WHEN i % 3 > 0 THEN timestamp '2026-01-03' + i * interval '9 hours' END FROM generate_series(1, 80) i;
INSERT INTO payments SELECT i, i, 1 + i * 7 % 20, 0.99 + i % 5, date '2026-01-05' + i % 60 FROM generate_series(1, 80) i;

DO $$ DECLARE t regclass; BEGIN
  FOR t IN SELECT c.oid::regclass FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND c.relname NOT IN ('languages', 'countries') LOOP
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', t);
  END LOOP;
END $$;
