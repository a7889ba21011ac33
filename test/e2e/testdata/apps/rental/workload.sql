-- A film is rented and paid for.
INSERT INTO rentals VALUES ({81..95}, {1..60}, {customer}, {1..4}, tsrange('{day} 10:00', '{day} 20:00'));
INSERT INTO payments VALUES ({81..140}, {81..95}, {customer}, {1..9}.99, '{day}') ON CONFLICT DO NOTHING;

-- It is returned.
UPDATE rentals SET returned_at = '{day} 18:00' WHERE id = {rental};
UPDATE rentals SET returned_at = '{day.2} 18:00' WHERE customer_id = {customer} AND returned_at IS NULL;

-- It was not returned after all.
UPDATE rentals SET returned_at = NULL WHERE id IN ({rental}, {rental.2});

-- It is due later.
UPDATE rentals SET period = tsrange(lower(period), upper(period) + interval '1 day') WHERE id = {rental};

-- Rentals are another customer's, another copy's, another person's.
UPDATE rentals SET customer_id = {customer} WHERE id = {rental};
UPDATE rentals SET inventory_id = {1..60} WHERE id = {rental.2};
UPDATE rentals SET staff_id = {1..4} WHERE id = {rental.3};

-- A rental goes.
DELETE FROM rentals WHERE id = {rental};

-- A payment moves to another month.
UPDATE payments SET paid_on = '{payday}' WHERE id IN ({1..100}, {1..100}, {1..100});

-- Payments are corrected.
UPDATE payments SET amount = amount + 1 WHERE id = {1..100};
UPDATE payments SET rental_id = NULL WHERE rental_id = {rental};
UPDATE payments SET customer_id = {customer} WHERE id = {1..100};

-- Payments of a day go.
DELETE FROM payments WHERE paid_on = '{day}';

-- A film is renamed, longer, dearer.
UPDATE films SET title = title || '+' WHERE id = {film};
UPDATE films SET length = {60..120} WHERE id = {film.2};
UPDATE films SET rental_rate = rental_rate + 0.5 WHERE id = {film.3} AND rental_rate < 50;

-- What nothing shows of a film.
UPDATE films SET description = 'text {1..99}', fulltext = to_tsvector('simple', 'text {1..99}') WHERE id = {film};

-- A film is of another year, rating, language.
UPDATE films SET release_year = {2000..2004} WHERE id = {film};
UPDATE films SET rating = '{rating}' WHERE id = {film.2};
UPDATE films SET language_id = {1..3}, original_language_id = NULL WHERE id = {film.3};

-- Features.
UPDATE films SET special_features = ARRAY['Commentary, "long"', NULL, 'Trailers'] WHERE id = {film};
UPDATE films SET special_features = NULL WHERE id = {film.2};

-- Features come and go.
UPDATE films SET special_features = array_remove(special_features, '{feature}') WHERE id = {film};
UPDATE films SET special_features = special_features || 'Deleted Scenes'::text WHERE id = {film.2};

-- A film is the sequel of another one.
UPDATE films SET sequel_of = {film} WHERE id = {film.2};

-- A film comes, with copies and actors.
INSERT INTO films (id, title, release_year, language_id, rental_rate, length) VALUES ({31..33}, 'New', {2000..2003}, {1..3}, 2.99, 80);
INSERT INTO film_actors SELECT a, max(f.id) FROM films f, generate_series(1, 15, {2..5}) a GROUP BY a ON CONFLICT DO NOTHING;
INSERT INTO inventory SELECT {61..70}, max(id), {1..2} FROM films ON CONFLICT DO NOTHING;

-- A film goes, with its copies and their rentals.
DELETE FROM films WHERE id = {24..33};

-- Who plays.
INSERT INTO film_actors VALUES ({actor}, {film}) ON CONFLICT DO NOTHING;
DELETE FROM film_actors WHERE actor_id = {actor.2} AND film_id < {film.2};

-- Another one plays.
UPDATE film_actors SET actor_id = {actor} WHERE actor_id = {actor.2} AND film_id = {film};

-- An actor has another name.
UPDATE actors SET last_name = 'Renamed' WHERE id = {actor};
UPDATE actors SET last_name = 'Last' || id % 7 WHERE id = {actor.2};
UPDATE actors SET first_name = 'First{1..9}' WHERE id = {actor.3};

-- An actor goes, and one comes.
DELETE FROM actors WHERE id = {12..17};
INSERT INTO actors VALUES ({12..17}, 'First{1..9}', 'Last{0..6}') ON CONFLICT DO NOTHING;

-- Categories of films.
INSERT INTO film_categories VALUES ({film}, {1..6}) ON CONFLICT DO NOTHING;
DELETE FROM film_categories WHERE film_id = {film.2} AND category_id = {category};

-- Films move from one category to another.
UPDATE film_categories SET category_id = {1..6} WHERE category_id = {category} AND film_id % 5 = 0;

-- Names.
UPDATE categories SET name = name || '+' WHERE id = {category};
UPDATE languages SET name = name || '+' WHERE id = {language};
UPDATE cities SET name = name || '+' WHERE id = {city};

-- Names of countries and streets.
UPDATE countries SET name = name || '+' WHERE id = {country};
UPDATE addresses SET street = street || '+', phone = '555' WHERE id = {1..25};

-- A city is in another country, an address in another city.
UPDATE cities SET country_id = {1..4} WHERE id = {city};
UPDATE addresses SET city_id = {1..8} WHERE id = {1..25};

-- A phone that one view has and no query shows.
UPDATE addresses SET phone = '555-{1..999}', district = 'D{1..9}' WHERE id = {1..25};

-- Copies move, go, come.
UPDATE inventory SET store_id = {1..2} WHERE id = {1..60};
DELETE FROM inventory WHERE id = {40..70};
INSERT INTO inventory VALUES ({40..70}, {film}, {1..2}) ON CONFLICT DO NOTHING;

-- A copy is of another film.
UPDATE inventory SET film_id = {film} WHERE id = {1..60};

-- A customer is renamed, one moves, one changes the store.
UPDATE customers SET first_name = first_name || '+' WHERE id = {customer};
UPDATE customers SET address_id = {1..25} WHERE id = {customer.2};
UPDATE customers SET store_id = {1..2} WHERE id = {customer.3};

-- A customer's email, and whether they are active.
UPDATE customers SET email = initcap('{email}') WHERE id = {customer};
UPDATE customers SET active = NOT active WHERE id = {customer.2};

-- A customer goes, one comes.
DELETE FROM customers WHERE id = {17..22};
INSERT INTO customers VALUES ({17..22}, {1..2}, 'New', 'Customer', 'Moved@rental.test', {1..25}, true, '{day}') ON CONFLICT DO NOTHING;

-- Staff.
UPDATE staff SET active = NOT active WHERE id = {1..4};
UPDATE staff SET username = username || '+', store_id = {1..2} WHERE id = {1..4};

-- A store moves and has another manager.
UPDATE stores SET address_id = {1..25}, manager_id = {1..5} WHERE id = {store};

-- Street and city of one customer at once.
UPDATE addresses SET street = 'Both' WHERE id = {1..25};
UPDATE customers SET address_id = NULL WHERE id = {customer};

-- It is given up.
BEGIN;
DELETE FROM payments;
UPDATE films SET title = 'never';
ROLLBACK;
