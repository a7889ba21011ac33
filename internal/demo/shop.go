package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale"
)

// The size of the shop.
const (
	categoryCount = 40
	productCount  = 1000
	customerCount = 300
	ordersEach    = 2 // for each customer

	// canaryProduct is one more product, which no reader asks for.
	canaryProduct = productCount + 1
)

// An entry is a table of the shop and how its rows are cached.
type entry struct {
	name, table, key string
	// onChange is what Unstale does; the other caches drop or know nothing.
	onChange string
	// load is SQL: the value of one row by the columns of the key, and the
	// position of the log that goes with it.
	load string
}

// kept entries are those whose values changes set.
func (e *entry) kept() bool { return e.onChange == "update" || e.onChange == "warm" }

const loadFrom = `SELECT row_to_json(t)::text, ` + unstale.LSN + ` FROM `

// One entry for each mode. The categories are few and on every page; of the
// products those that people look at stay cached while their stock moves; an
// order matters to one customer, who soon looks no more.
var (
	categoryEntry = entry{"category", "categories", "category:{id}", "warm", loadFrom + `categories t WHERE id = $1`}
	productEntry  = entry{"product", "products", "product:{id}", "update", loadFrom + `products t WHERE id = $1`}
	customerEntry = entry{"customer", "customers", "customer:{id}", "refresh", loadFrom + `customers t WHERE id = $1`}
	orderEntry    = entry{"order", "orders", "order:{customer_id}:{id}", "invalidate",
		loadFrom + `orders t WHERE customer_id = $1 AND id = $2`}

	entries = []*entry{&categoryEntry, &productEntry, &customerEntry, &orderEntry}
)

// Every row has a version, which every change raises by one: that is how a
// checker tells an old row from a new one.
const schema = `
CREATE TABLE categories (
	id int PRIMARY KEY, name text NOT NULL, version bigint NOT NULL DEFAULT 1);
CREATE TABLE products (
	id int PRIMARY KEY, category_id int NOT NULL REFERENCES categories,
	name text NOT NULL, price numeric(10,2) NOT NULL, stock int NOT NULL, version bigint NOT NULL DEFAULT 1);
CREATE TABLE customers (
	id int PRIMARY KEY, name text NOT NULL, city text NOT NULL, version bigint NOT NULL DEFAULT 1);
CREATE TABLE orders (
	customer_id int REFERENCES customers, id int, product_id int NOT NULL REFERENCES products,
	status text NOT NULL, version bigint NOT NULL DEFAULT 1, PRIMARY KEY (customer_id, id));

INSERT INTO categories SELECT i, 'Category ' || i FROM generate_series(1, %[1]d) i;
INSERT INTO products SELECT i, 1 + i %% %[1]d, 'Product ' || i, 1 + i %% 100, 1000 FROM generate_series(1, %[2]d) i;
INSERT INTO customers SELECT i, 'Customer ' || i, 'City ' || i %% 20 FROM generate_series(1, %[3]d) i;
INSERT INTO orders SELECT c, o, 1 + (c * 7 + o) %% %[2]d, 'placed' FROM generate_series(1, %[3]d) c, generate_series(1, %[4]d) o;
ANALYZE;`

// A row of the shop that readers ask for.
type row struct {
	entry *entry
	key   string // without the prefix of a cache
	ids   []any  // the columns of the key
}

// shop is every row, dense: a row is known by its index.
type shop struct {
	rows []row
	// Where the rows of each table begin.
	categories, products, customers, orders int
}

func newShop() *shop {
	s := &shop{}
	add := func(e *entry, ids ...int) {
		r := row{entry: e}
		var texts []string
		for _, id := range ids {
			r.ids, texts = append(r.ids, id), append(texts, strconv.Itoa(id))
		}
		key, err := unstale.Key(e.key, texts...)
		if err != nil {
			panic(err) // the templates are constants
		}
		r.key = key
		s.rows = append(s.rows, r)
	}
	s.categories = len(s.rows)
	for id := range categoryCount {
		add(&categoryEntry, id+1)
	}
	s.products = len(s.rows)
	for id := range productCount {
		add(&productEntry, id+1)
	}
	s.customers = len(s.rows)
	for id := range customerCount {
		add(&customerEntry, id+1)
	}
	s.orders = len(s.rows)
	for customer := range customerCount {
		for id := range ordersEach {
			add(&orderEntry, customer+1, id+1)
		}
	}
	return s
}

func (s *shop) String() string {
	return fmt.Sprintf("%d categories, %d products, %d customers, %d orders",
		categoryCount, productCount, customerCount, customerCount*ordersEach)
}

// create makes the database and its rows.
func (s *shop) create(ctx context.Context, serverURL, databaseURL string) error {
	if err := execute(ctx, serverURL, "CREATE DATABASE "+databaseName); err != nil {
		return err
	}
	for _, statement := range strings.SplitAfter(fmt.Sprintf(schema, categoryCount, canaryProduct, customerCount, ordersEach), ";\n") {
		if err := execute(ctx, databaseURL, statement); err != nil {
			return err
		}
	}
	return nil
}

func execute(ctx context.Context, url, statement string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, statement)
	return err
}

// An update raises the version of one row.
type update struct {
	row       int
	sql       string // returns the new version
	arguments []any
}

const (
	renameCategory = `UPDATE categories SET name = $2, version = version + 1 WHERE id = $1 RETURNING version`
	priceProduct   = `UPDATE products SET price = $2, version = version + 1 WHERE id = $1 RETURNING version`
	sellProduct    = `UPDATE products SET stock = stock - 1, version = version + 1 WHERE id = $1 RETURNING version`
	moveCustomer   = `UPDATE customers SET city = $2, version = version + 1 WHERE id = $1 RETURNING version`
	advanceOrder   = `UPDATE orders SET status = $3, version = version + 1 WHERE customer_id = $1 AND id = $2 RETURNING version`
)

// A shopper chooses rows as people do: few are wanted often, most seldom. It
// belongs to one goroutine.
type shopper struct {
	shop                             *shop
	random                           *rand.Rand
	category, product, person, order *rand.Zipf
}

func newShopper(s *shop) *shopper {
	random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	popularity := func(n int) *rand.Zipf { return rand.NewZipf(random, 1.1, 10, uint64(n-1)) }
	return &shopper{shop: s, random: random, category: popularity(categoryCount), product: popularity(productCount),
		person: popularity(customerCount), order: popularity(customerCount * ordersEach)}
}

// reads chooses a row to read.
func (s *shopper) reads() int {
	switch n := s.random.IntN(100); {
	case n < 60:
		return s.shop.products + int(s.product.Uint64())
	case n < 75:
		return s.shop.categories + int(s.category.Uint64())
	case n < 87:
		return s.shop.customers + int(s.person.Uint64())
	default:
		return s.shop.orders + int(s.order.Uint64())
	}
}

// changes makes up one transaction. Tables come in one order, so that two
// transactions never wait for each other.
func (s *shopper) changes() []update {
	of := func(row int, sql string, more ...any) update {
		ids := s.shop.rows[row].ids
		return update{row, sql, append(ids[:len(ids):len(ids)], more...)}
	}
	product := s.shop.products + int(s.product.Uint64())
	switch n := s.random.IntN(100); {
	case n < 60:
		status := [...]string{"placed", "paid", "sent", "returned"}[s.random.IntN(4)]
		return []update{of(product, sellProduct), of(s.shop.orders+int(s.order.Uint64()), advanceOrder, status)}
	case n < 85:
		return []update{of(product, priceProduct, float64(100+s.random.IntN(9900))/100)}
	case n < 97:
		return []update{of(s.shop.customers+int(s.person.Uint64()), moveCustomer, "City "+strconv.Itoa(s.random.IntN(20)))}
	default:
		return []update{of(s.shop.categories+int(s.category.Uint64()), renameCategory, "Category "+strconv.Itoa(s.random.IntN(1000)))}
	}
}
