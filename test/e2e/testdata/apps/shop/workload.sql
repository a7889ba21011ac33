-- An order is placed.
INSERT INTO orders VALUES ({61..72}, '{day} 12:30', {customer}, 'placed', (SELECT min(code) FROM coupons WHERE active), '{"country": "DE"}') ON CONFLICT DO NOTHING;
INSERT INTO order_lines VALUES ({61..72}, {number}, '{product}', {1..4}, 9) ON CONFLICT DO NOTHING;
UPDATE stock SET reserved = reserved + 1 WHERE product_id = '{product}' AND warehouse_code = '{warehouse}';

-- A cart is filled.
UPDATE orders SET status = 'cart' WHERE id = {order};
INSERT INTO order_lines VALUES ({order}, {number}, '{product}', {1..4}, 9) ON CONFLICT (order_id, number) DO UPDATE SET quantity = excluded.quantity;

-- A cart is paid.
UPDATE orders SET status = 'paid' WHERE id IN ({order}, {order.2}) AND status IN ('cart', 'placed');
INSERT INTO payments VALUES (gen_random_uuid(), {order}, 'card', {5..90}, true, '{day} 12:00');

-- A payment is settled.
UPDATE payments SET settled = NOT settled WHERE order_id = {order};

-- A payment is booked to another order.
UPDATE payments SET order_id = {order} WHERE order_id = {order.2};

-- An order goes on.
UPDATE orders SET status = '{status}' WHERE id = {order};

-- Many orders go on.
UPDATE orders SET status = '{status}' WHERE status = '{status.2}' AND customer_id < 8;

-- An order moves to another partition.
UPDATE orders SET placed_at = '{day} 09:15' WHERE id = {order};

-- An order is another customer's.
UPDATE orders SET customer_id = {customer} WHERE id = {order};

-- A note that nothing shows.
UPDATE orders SET note = 'note {1..99}' WHERE id = {order};

-- It is sent elsewhere.
UPDATE orders SET shipping = jsonb_set(shipping, '{"country"}', '"FR"') WHERE id = {order};

-- A coupon is used, and another one ends.
UPDATE orders SET coupon_code = '{coupon}' WHERE id = {order};
UPDATE coupons SET active = NOT active WHERE code = '{coupon.2}';

-- A coupon is renamed, and its orders with it.
UPDATE coupons SET code = '{coupon}' WHERE code = '{coupon.2}';

-- An order is shipped.
UPDATE orders SET status = 'shipped' WHERE id = {order};
INSERT INTO shipments VALUES ({1..40}, {order}, '{warehouse}', 'T{1..99}', '{day}') ON CONFLICT (id) DO UPDATE SET order_id = excluded.order_id, shipped_on = excluded.shipped_on;
UPDATE stock SET quantity = quantity - 1, reserved = greatest(reserved - 1, 0) WHERE warehouse_code = '{warehouse}' AND product_id = '{product}';

-- A shipment goes from another warehouse, another day.
UPDATE shipments SET warehouse_code = '{warehouse}', shipped_on = '{day}' WHERE id = {1..20};

-- An order is taken away.
DELETE FROM payments WHERE order_id = {order};
DELETE FROM order_lines WHERE order_id = {order};
DELETE FROM orders WHERE id = {order};

-- A line moves, another one goes.
UPDATE order_lines SET product_id = '{product}' WHERE order_id = {order} AND number = {number};
DELETE FROM order_lines WHERE order_id = {order.2} AND number = {number.2};

-- A customer signs in.
UPDATE customers SET visits = visits + 1 WHERE id = {customer};

-- A customer changes a name, a theme, an address.
UPDATE customers SET name = name || '+' WHERE id = {customer};
UPDATE customers SET settings = jsonb_set(settings, '{"theme"}', '"{theme}"') WHERE id = {customer.2};
UPDATE addresses SET line = 'Moved {1..99}' WHERE customer_id = {customer} AND position = {position};

-- A customer's addresses trade places.
UPDATE addresses SET position = 9 WHERE customer_id = {customer} AND position = 1;
UPDATE addresses SET position = 1 WHERE customer_id = {customer} AND position = 2;
UPDATE addresses SET position = 2 WHERE customer_id = {customer} AND position = 9;

-- A customer takes another's email.
UPDATE customers SET email = initcap('{email}') WHERE id = {customer};

-- An account is closed, or opened again.
UPDATE customers SET closed_at = CASE WHEN closed_at IS NULL THEN timestamp '2026-02-01' END WHERE id = {customer};

-- A customer goes, with orders, addresses and reviews, and another one comes.
DELETE FROM customers WHERE id = {15..22};
INSERT INTO customers VALUES ({20..22}, 'Moved1@shop.test', 'New', '{"theme": "{theme}"}', {1..9}) ON CONFLICT DO NOTHING;
INSERT INTO addresses SELECT id, {position}, 'New', 'NO' FROM customers WHERE id >= 20 ON CONFLICT DO NOTHING;

-- A customer was referred by another one.
UPDATE customers SET referred_by = {customer} WHERE id = {customer.2};

-- A product is renamed; its price is another one.
UPDATE products SET name = name || '+' WHERE id = '{product}';
UPDATE products SET price = price + {0..3} WHERE id = '{product.2}';

-- A product moves, and one is off sale.
UPDATE products SET category_id = {1..9} WHERE id = '{product}';
UPDATE products SET active = NOT active WHERE id = '{product.2}';

-- Tags.
UPDATE products SET tags = ARRAY['sale', 'a "b", c'] WHERE id = '{product}';
UPDATE products SET tags = array_remove(tags, '{tag}') WHERE id = '{product.2}';
UPDATE products SET tags = tags || 'new'::text WHERE id = '{product.3}';

-- Attributes.
UPDATE products SET attributes = attributes || '{"color": "{color}"}' WHERE id = '{product}';
UPDATE products SET attributes = attributes || '{"size": {1..9}}' WHERE id = '{product.2}';

-- A product is released another day, under another number.
UPDATE products SET released_on = '{day}' WHERE id = '{product}';
UPDATE products SET sku = 'SKU-{30..32}' WHERE id = '{product.2}';

-- A product goes, with its stock, and comes.
DELETE FROM products WHERE id = '00000000-0000-0000-0000-0000000000{25..32}';
INSERT INTO products VALUES ('00000000-0000-0000-0000-0000000000{25..32}', 'SKU-{25..32}', 'New', {1..9}, 9, ARRAY['new'], '{"color": "red"}', true, '{day}') ON CONFLICT DO NOTHING;

-- A price.
INSERT INTO prices VALUES ('{product}', '{currency}', '{day}', {5..30});
UPDATE prices SET price = price + 1 WHERE product_id = '{product.2}' AND currency = 'EUR' AND valid_from = '2026-01-01';

-- Prices of a product go.
DELETE FROM prices WHERE product_id = '{product}' AND valid_from > '2026-01-03';

-- Goods come in.
UPDATE stock SET quantity = quantity + {1..20} WHERE product_id IN ('{product}', '{product.2}');

-- Stock is counted, and some goes to another warehouse.
UPDATE stock SET quantity = {0..4} WHERE product_id = '{product}' AND warehouse_code = 'BER';
DELETE FROM stock WHERE product_id = '{product.2}' AND warehouse_code = '{warehouse}';
INSERT INTO stock VALUES ('OSL', '{product.2}', {0..9}) ON CONFLICT (warehouse_code, product_id) DO UPDATE SET quantity = excluded.quantity;

-- A warehouse is in another country.
UPDATE warehouses SET country = CASE country WHEN 'DE' THEN 'PL' ELSE 'DE' END WHERE code = '{warehouse}';

-- A review is written, another one approved, one taken back.
INSERT INTO reviews VALUES ('{product}', {customer}, {1..5}, 'new') ON CONFLICT (product_id, customer_id) DO UPDATE SET stars = excluded.stars;
UPDATE reviews SET approved = NOT approved WHERE product_id = '{product.2}';
DELETE FROM reviews WHERE customer_id = {customer.2} AND stars = {1..5};

-- A category is renamed, hidden, or below another one.
UPDATE categories SET name = name || '+' WHERE id = {category};
UPDATE categories SET hidden = NOT hidden WHERE id = {category.2};
UPDATE categories SET parent_id = {1..3} WHERE id = {4..9};

-- A category goes.
DELETE FROM categories WHERE id = {7..10};
INSERT INTO categories VALUES ({7..10}, {1..3}, 'category-{7..11}', 'New') ON CONFLICT DO NOTHING;

-- It is given up.
BEGIN;
UPDATE products SET name = 'never';
DELETE FROM order_lines;
ROLLBACK;
