package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
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

	// canaryProduct is one more product, which no reader asks for, in a category of its
	// own: a list would go with each of its changes.
	canaryProduct  = productCount + 1
	canaryCategory = categoryCount + 1
)

// An entry is what is cached of the shop, and how: the rows of a table, or the results
// of a query.
type entry struct {
	name, title, key string
	// table has the rows, or what somebody who writes a DEL by hand thinks of when he
	// sees the query.
	table string
	query string // with a @parameter; empty: the table's rows
	many  bool   // a result has many rows
	// onChange is what Unstale does; the other caches drop or know nothing.
	onChange string
	// load is SQL: one value by the columns of the key, and the position of the log
	// that goes with it.
	load string
}

// kept entries are those whose values changes set.
func (e *entry) kept() bool { return e.onChange == "update" || e.onChange == "warm" }

// One entry for each mode. The categories are few and on every page; of the
// products those that people look at stay cached while their stock moves; an
// order matters to one customer, who soon looks no more.
//
// And one for each way in which a change leads to results: a page shows two tables, and
// whose pages go when a category is renamed is looked up; a product that moves leaves one
// list and comes into another; any order of a customer changes what is counted. Each
// result has the versions of the rows that it shows.
var (
	categoryEntry = rows("category", "categories", "category:{id}", "warm", "id = $1")
	productEntry  = rows("product", "products", "product:{id}", "update", "id = $1")
	customerEntry = rows("customer", "customers", "customer:{id}", "refresh", "id = $1")
	orderEntry    = rows("order", "orders", "order:{customer_id}:{id}", "invalidate", "customer_id = $1 AND id = $2")

	pageEntry = results(entry{
		name: "product_page", title: "product pages", key: "product_page:{id}", table: "products", onChange: "refresh",
		query: `SELECT p.id, p.name, p.price, p.version, c.id AS category_id, c.name AS category, c.version AS category_version
FROM products p JOIN categories c ON c.id = p.category_id
WHERE p.id = @id`,
	})
	listEntry = results(entry{
		name: "category_list", title: "category lists", key: "category:{category_id}:products", table: "products", onChange: "refresh", many: true,
		query: `SELECT id, name, price, version FROM products WHERE category_id = @category_id ORDER BY id`,
	})
	openEntry = results(entry{
		name: "open_orders", title: "open orders", key: "customer:{customer_id}:open_orders", table: "orders", onChange: "invalidate",
		query: `SELECT count(*) FILTER (WHERE status = 'open') AS open, array_agg(version ORDER BY id) AS versions
FROM orders WHERE customer_id = @customer_id`,
	})

	entries = []*entry{categoryEntry, productEntry, customerEntry, orderEntry, pageEntry, listEntry, openEntry}
	tables  = []string{"categories", "products", "customers", "orders"}
)

func rows(name, table, key, onChange, where string) *entry {
	return &entry{
		name: name, title: table, key: key, table: table, onChange: onChange,
		load: `SELECT row_to_json(t)::text, ` + unstale.LSN + ` FROM ` + table + ` t WHERE ` + where,
	}
}

// parameter is that of a query; none here has two.
var parameter = regexp.MustCompile(`@\w+`)

func results(e entry) *entry {
	value := `row_to_json(r)::text`
	if e.many {
		value = `'[' || coalesce(string_agg(` + value + `, ','), '') || ']'`
	}
	e.load = `SELECT ` + value + `, ` + unstale.LSN + ` FROM (` + parameter.ReplaceAllString(e.query, "$$1") + `) r`
	return &e
}

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
CREATE INDEX ON products (category_id);
ALTER TABLE products REPLICA IDENTITY FULL;

INSERT INTO categories SELECT i, 'Category ' || i FROM generate_series(1, %[1]d) i;
INSERT INTO products SELECT i, 1 + i %% (%[1]d - 1), 'Product ' || i, 1 + i %% 100, 1000 FROM generate_series(1, %[2]d - 1) i;
INSERT INTO products VALUES (%[2]d, %[1]d, 'Canary', 1, 1);
INSERT INTO customers SELECT i, 'Customer ' || i, 'City ' || i %% 20 FROM generate_series(1, %[3]d) i;
INSERT INTO orders SELECT c, o, 1 + (c * 7 + o) %% %[2]d, 'open' FROM generate_series(1, %[3]d) c, generate_series(1, %[4]d) o;
ANALYZE;`

// A row of the shop that readers ask for, or a result of a query.
type row struct {
	entry *entry
	key   string // without the prefix of a cache
	ids   []any  // the columns of the key
}

// shop is every row and every result, dense: each is known by its index.
type shop struct {
	rows []row
	// Where the rows of each table begin, and the results of each query.
	categories, products, customers, orders, pages, lists, opens int
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
	each := func(e *entry, count int) (first int) {
		first = len(s.rows)
		for id := range count {
			add(e, id+1)
		}
		return first
	}
	s.categories = each(categoryEntry, categoryCount)
	s.products = each(productEntry, productCount)
	s.customers = each(customerEntry, customerCount)
	s.orders = len(s.rows)
	for customer := range customerCount {
		for id := range ordersEach {
			add(orderEntry, customer+1, id+1)
		}
	}
	s.pages = each(pageEntry, productCount)
	s.lists = each(listEntry, categoryCount)
	s.opens = each(openEntry, customerCount)
	return s
}

// A sight is a row that a value shows, and the version at which it does.
type sight struct {
	row     int
	version int64
}

// shown is what a value has to say about versions.
type shown struct {
	ID              int     `json:"id"`
	Version         int64   `json:"version"`
	CategoryID      int     `json:"category_id"`
	CategoryVersion int64   `json:"category_version"`
	Versions        []int64 `json:"versions"`
}

// sights are the rows that a value shows: itself, or those that its query has read.
func (s *shop) sights(index int, value []byte) (seen []sight, err error) {
	var one shown
	var many []shown
	if s.rows[index].entry.many {
		err = json.Unmarshal(value, &many)
	} else {
		err = json.Unmarshal(value, &one)
	}
	if err != nil {
		return nil, err
	}
	switch s.rows[index].entry {
	case pageEntry:
		return []sight{{s.products + one.ID - 1, one.Version}, {s.categories + one.CategoryID - 1, one.CategoryVersion}}, nil
	case listEntry:
		for _, product := range many {
			seen = append(seen, sight{s.products + product.ID - 1, product.Version})
		}
		return seen, nil
	case openEntry:
		for i, version := range one.Versions {
			seen = append(seen, sight{s.orders + (index-s.opens)*ordersEach + i, version})
		}
		return seen, nil
	}
	return []sight{{index, one.Version}}, nil
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
	for _, statement := range strings.SplitAfter(fmt.Sprintf(schema, canaryCategory, canaryProduct, customerCount, ordersEach), ";\n") {
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
	moveProduct    = `UPDATE products SET category_id = $2, version = version + 1 WHERE id = $1 RETURNING version`
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
	case n < 35:
		return s.shop.products + int(s.product.Uint64())
	case n < 60:
		return s.shop.pages + int(s.product.Uint64())
	case n < 70:
		return s.shop.categories + int(s.category.Uint64())
	case n < 78:
		return s.shop.lists + int(s.category.Uint64())
	case n < 86:
		return s.shop.customers + int(s.person.Uint64())
	case n < 93:
		return s.shop.orders + int(s.order.Uint64())
	default:
		return s.shop.opens + int(s.person.Uint64())
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
	case n < 56:
		status := [...]string{"open", "paid", "sent", "returned"}[s.random.IntN(4)]
		return []update{of(product, sellProduct), of(s.shop.orders+int(s.order.Uint64()), advanceOrder, status)}
	case n < 80:
		return []update{of(product, priceProduct, float64(100+s.random.IntN(9900))/100)}
	case n < 85:
		return []update{of(product, moveProduct, 1+int(s.category.Uint64()))}
	case n < 98:
		return []update{of(s.shop.customers+int(s.person.Uint64()), moveCustomer, "City "+strconv.Itoa(s.random.IntN(20)))}
	default:
		return []update{of(s.shop.categories+int(s.category.Uint64()), renameCategory, "Category "+strconv.Itoa(s.random.IntN(1000)))}
	}
}
