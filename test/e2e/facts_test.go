package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale"
	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/stack"
)

// A fact is something about PostgreSQL that bites a reader of its log. Each is
// tried through one running instance that has the entries of all of them.
type fact struct {
	name    string
	setup   []string
	entries string // of the configuration; lease is added to each
	steps   []step
}

// A step changes the database. Before it every key of gone and kept is cached;
// after it those of gone are dropped and those of kept are still there.
type step struct {
	change string // a statement, or several by ; in one transaction
	// each runs one by itself: COMMIT PREPARED and the like.
	each []string
	// silent: no row is sent for it. It shows only in the catalog, at which the
	// instance looks every few seconds.
	silent     bool
	gone, kept []string
}

// What no cached key of another entry may ever be hurt by.
const bystander = "bystander:1"

// facts that the stream itself tells.
var streamedFacts = []fact{
	{
		name: "under identity DEFAULT an update shows no old row, and a delete only the key",
		setup: []string{
			`CREATE TABLE plain (id int PRIMARY KEY, name text)`,
			`INSERT INTO plain SELECT i, 'a' FROM generate_series(1, 9) i`,
		},
		entries: `  plain: {key: 'plain:{id}', table: plain}`,
		steps: []step{
			{change: `UPDATE plain SET name = 'b' WHERE id = 1`, gone: []string{"plain:1"}, kept: []string{"plain:2"}},
			{change: `DELETE FROM plain WHERE id = 1`, gone: []string{"plain:1"}, kept: []string{"plain:2"}},
			{change: `INSERT INTO plain VALUES (1, 'c')`, gone: []string{"plain:1"}, kept: []string{"plain:2"}},
			{change: `UPDATE plain SET id = 11 WHERE id = 1`, gone: []string{"plain:1", "plain:11"}, kept: []string{"plain:2"}},
			{change: `INSERT INTO plain VALUES (2, 'd') ON CONFLICT (id) DO UPDATE SET name = 'd'`, gone: []string{"plain:2"}, kept: []string{"plain:3"}},
			{change: `INSERT INTO plain VALUES (3, 'd') ON CONFLICT DO NOTHING`, kept: []string{"plain:2", "plain:3"}},
			{change: `UPDATE plain SET name = 'e' WHERE id IN (4, 5); DELETE FROM plain WHERE id = 5`, gone: []string{"plain:4", "plain:5"}, kept: []string{"plain:3"}},
		},
	},
	{
		name: "under identity FULL a key can be made of any columns",
		setup: []string{
			`CREATE TABLE orders (id int PRIMARY KEY, customer int, note text)`,
			`ALTER TABLE orders REPLICA IDENTITY FULL`,
			`INSERT INTO orders VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, NULL)`,
		},
		entries: `  order: {key: 'order:{id}', table: orders}
  customer_orders: {key: 'customer:{customer}:orders', table: orders}`,
		steps: []step{
			{change: `UPDATE orders SET customer = 11 WHERE id = 1`, gone: []string{"order:1", "customer:10:orders", "customer:11:orders"}, kept: []string{"order:2", "customer:20:orders"}},
			{change: `UPDATE orders SET note = 'c' WHERE id = 1`, gone: []string{"order:1", "customer:11:orders"}, kept: []string{"order:2", "customer:10:orders"}},
			{change: `DELETE FROM orders WHERE id = 1`, gone: []string{"order:1", "customer:11:orders"}, kept: []string{"order:2", "customer:20:orders"}},
			{change: `UPDATE orders SET id = 4 WHERE id = 3`, gone: []string{"order:3", "order:4", "customer:30:orders"}, kept: []string{"order:2", "customer:20:orders"}},
		},
	},
	{
		name: "under USING INDEX the columns of the index are known, and the primary key is not",
		setup: []string{
			`CREATE TABLE coded (id int PRIMARY KEY, code text NOT NULL, n int)`,
			`CREATE UNIQUE INDEX coded_code ON coded (code)`,
			`ALTER TABLE coded REPLICA IDENTITY USING INDEX coded_code`,
			`INSERT INTO coded VALUES (1, 'a', 0), (2, 'b', 0)`,
		},
		entries: `  coded: {key: 'coded:{code}', table: coded}`,
		steps: []step{
			{change: `UPDATE coded SET n = 1 WHERE id = 1`, gone: []string{"coded:a"}, kept: []string{"coded:b"}},
			{change: `UPDATE coded SET id = 5 WHERE id = 1`, gone: []string{"coded:a"}, kept: []string{"coded:b"}},
			{change: `UPDATE coded SET code = 'c' WHERE id = 5`, gone: []string{"coded:a", "coded:c"}, kept: []string{"coded:b"}},
			{change: `DELETE FROM coded WHERE id = 5`, gone: []string{"coded:c"}, kept: []string{"coded:b"}},
		},
	},
	{
		name: "a table without a primary key works under FULL",
		setup: []string{
			`CREATE TABLE keyless (k int, v text)`, `ALTER TABLE keyless REPLICA IDENTITY FULL`,
			`INSERT INTO keyless VALUES (1, 'a'), (1, 'a'), (2, 'b')`,
		},
		entries: `  keyless: {key: 'keyless:{k}', table: keyless}`,
		steps: []step{
			{change: `DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless WHERE k = 1)`, gone: []string{"keyless:1"}, kept: []string{"keyless:2"}},
			{change: `UPDATE keyless SET k = 3 WHERE k = 1`, gone: []string{"keyless:1", "keyless:3"}, kept: []string{"keyless:2"}},
		},
	},
	{
		name: "a TOASTed column that did not change is not in the log, beside the key or in it",
		setup: []string{
			`CREATE TABLE wide (id int PRIMARY KEY, slug text, body text, n int)`,
			`ALTER TABLE wide ALTER slug SET STORAGE EXTERNAL, ALTER body SET STORAGE EXTERNAL`,
			`ALTER TABLE wide REPLICA IDENTITY FULL`,
			`CREATE TABLE wide_default (id int PRIMARY KEY, body text, n int)`,
			`ALTER TABLE wide_default ALTER body SET STORAGE EXTERNAL`,
			`INSERT INTO wide SELECT i, repeat(i::text, 5000), repeat('x', 100000), 0 FROM generate_series(1, 2) i`,
			`INSERT INTO wide_default SELECT i, repeat('x', 100000), 0 FROM generate_series(1, 2) i`,
		},
		entries: `  wide: {key: 'wide:{id}', table: wide}
  slug: {key: 'slug:{slug}', table: wide}
  wide_default: {key: 'wide_default:{id}', table: wide_default}`,
		steps: []step{
			{change: `UPDATE wide SET n = 1 WHERE id = 1`, gone: []string{"wide:1", "slug:" + strings.Repeat("1", 5000)}, kept: []string{"wide:2", "slug:" + strings.Repeat("2", 5000)}},
			{change: `UPDATE wide SET slug = 'short' WHERE id = 1`, gone: []string{"wide:1", "slug:short", "slug:" + strings.Repeat("1", 5000)}, kept: []string{"slug:" + strings.Repeat("2", 5000)}},
			{change: `UPDATE wide SET id = 3 WHERE id = 2`, gone: []string{"wide:2", "wide:3", "slug:" + strings.Repeat("2", 5000)}, kept: []string{"wide:1", "slug:short"}},
			{change: `UPDATE wide_default SET n = 1 WHERE id = 1`, gone: []string{"wide_default:1"}, kept: []string{"wide_default:2"}},
			{change: `UPDATE wide_default SET id = 3 WHERE id = 1`, gone: []string{"wide_default:1", "wide_default:3"}, kept: []string{"wide_default:2"}},
		},
	},
	{
		name: "two rows never share a composite key",
		setup: []string{
			`CREATE TABLE pairs (a text, b text, n int, PRIMARY KEY (a, b))`,
			`INSERT INTO pairs VALUES ('x', 'y:z', 0), ('x:y', 'z', 0), ('{x}', '50%', 0)`,
		},
		entries: `  pair: {key: 'pair:{a}:{b}', table: pairs}`,
		steps: []step{
			{change: `UPDATE pairs SET n = 1 WHERE a = 'x'`, gone: []string{"pair:x:y%3Az"}, kept: []string{"pair:x%3Ay:z"}},
			{change: `UPDATE pairs SET n = 1 WHERE a = 'x:y'`, gone: []string{"pair:x%3Ay:z"}, kept: []string{"pair:x:y%3Az"}},
			{change: `UPDATE pairs SET b = 'w' WHERE a = '{x}'`, gone: []string{"pair:%7Bx%7D:50%25", "pair:%7Bx%7D:w"}, kept: []string{"pair:x:y%3Az"}},
		},
	},
	{
		name: "a NULL in a key column makes no key, and costs no sweep",
		setup: []string{
			`CREATE TABLE maybe (id int PRIMARY KEY, owner int, team text)`,
			`ALTER TABLE maybe REPLICA IDENTITY FULL`,
			`INSERT INTO maybe VALUES (1, NULL, 'a'), (2, 2, NULL), (3, 3, 'c')`,
		},
		entries: `  owner: {key: 'owner:{owner}', table: maybe}
  team: {key: 'team:{team}:{owner}', table: maybe}`,
		steps: []step{
			{change: `UPDATE maybe SET owner = 4 WHERE id = 1`, gone: []string{"owner:4", "team:a:4"}, kept: []string{"owner:3", "team:c:3", "owner:"}},
			{change: `UPDATE maybe SET owner = NULL WHERE id = 1`, gone: []string{"owner:4", "team:a:4"}, kept: []string{"owner:3", "team:c:3"}},
			{change: `UPDATE maybe SET team = 'b' WHERE id = 2`, gone: []string{"owner:2", "team:b:2"}, kept: []string{"owner:3", "team:c:3"}},
			{change: `DELETE FROM maybe WHERE id = 1; INSERT INTO maybe VALUES (5, NULL, NULL)`, kept: []string{"owner:3", "team:c:3", "owner:"}},
		},
	},
	{
		name: "one name in two schemas is two tables",
		setup: []string{
			`CREATE SCHEMA shop`,
			`CREATE TABLE items (id int PRIMARY KEY)`, `CREATE TABLE shop.items (id int PRIMARY KEY)`,
		},
		entries: `  item: {key: 'item:{id}', table: items}
  shop_item: {key: 'shop_item:{id}', table: shop.items}`,
		steps: []step{
			{change: `INSERT INTO items VALUES (1)`, gone: []string{"item:1"}, kept: []string{"shop_item:1"}},
			{change: `INSERT INTO shop.items VALUES (1)`, gone: []string{"shop_item:1"}, kept: []string{"item:1"}},
			{change: `TRUNCATE shop.items`, gone: []string{"shop_item:1", "shop_item:2"}, kept: []string{"item:1"}},
		},
	},
	{
		name: "a name can be any text",
		setup: []string{
			`CREATE SCHEMA "My Schema"`,
			`CREATE TABLE "My Schema"."Weird ""Täble"".x" ("Straße Id" int PRIMARY KEY, "select" text, "a:b" text)`,
			`ALTER TABLE "My Schema"."Weird ""Täble"".x" REPLICA IDENTITY FULL`,
		},
		entries: `  weird: {key: 'weird:{Straße Id}', table: '"My Schema"."Weird ""Täble"".x"'}
  weird_select: {key: 'selected:{select}:{a:b}', table: '"My Schema"."Weird ""Täble"".x"'}`,
		steps: []step{
			{change: `INSERT INTO "My Schema"."Weird ""Täble"".x" VALUES (1, 'Ünï', '日本')`, gone: []string{"weird:1", "selected:Ünï:日本"}, kept: []string{"weird:2", "selected:ünï:日本"}},
			{change: `UPDATE "My Schema"."Weird ""Täble"".x" SET "Straße Id" = 3`, gone: []string{"weird:1", "weird:3", "selected:Ünï:日本"}, kept: []string{"weird:2"}},
		},
	},
	{
		// The database and the role have settings of their own: see hostile.
		name: "the text of a key does not depend on settings",
		setup: []string{
			`CREATE TYPE mood AS ENUM ('calm', 'very wild')`,
			`CREATE DOMAIN email AS text CHECK (value LIKE '%@%')`,
			`CREATE DOMAIN work_email AS email`,
			`CREATE TABLE typed (id uuid PRIMARY KEY, mood mood, email work_email, at timestamptz, day date, span interval, raw bytea, ratio float8, price numeric(10,2), flag bool, local timestamp, big bigint)`,
			`ALTER TABLE typed REPLICA IDENTITY FULL`,
		},
		entries: `  typed: {key: 'typed:{id}', table: typed}
  mood: {key: 'mood:{mood}', table: typed}
  email: {key: 'email:{email}', table: typed}
  at: {key: 'at:{at}', table: typed}
  day: {key: 'day:{day}', table: typed}
  span: {key: 'span:{span}', table: typed}
  raw: {key: 'raw:{raw}', table: typed}
  ratio: {key: 'ratio:{ratio}', table: typed}
  price: {key: 'price:{price}:{flag}', table: typed}
  local: {key: 'local:{local}:{big}', table: typed}`,
		steps: []step{
			{
				change: `INSERT INTO typed VALUES ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'very wild', 'a@b', '2024-02-29T23:30:00.5+00', '2024-02-29'::date, '1 day 2 hours', '\x00ff', 0.1::float8 + 0.2::float8, 1.5, true, '2024-02-29T12:00:00', -9223372036854775808)`,
				gone: []string{
					"typed:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "mood:very wild", "email:a@b", "at:2024-02-29 23:30:00.5+00", "day:2024-02-29",
					"span:1 day 02:00:00", `raw:\x00ff`, "ratio:0.30000000000000004", "price:1.50:t", "local:2024-02-29 12%3A00%3A00:-9223372036854775808",
				},
				kept: []string{"mood:calm", "day:2024-02-28", "at:2024-02-29 18:30:00.5-05"},
			},
			{
				change: `UPDATE typed SET mood = 'calm', at = '2024-07-01T00:00:00Z', day = '0044-03-15 BC'`,
				gone:   []string{"mood:very wild", "mood:calm", "at:2024-02-29 23:30:00.5+00", "at:2024-07-01 00:00:00+00", "day:2024-02-29", "day:0044-03-15 BC"},
				kept:   []string{"mood:wild"},
			},
		},
	},
	{
		name: "a partitioned table is one table, wherever its rows are",
		setup: []string{
			`CREATE TABLE events (id int, region text, n int, PRIMARY KEY (region, id)) PARTITION BY LIST (region)`,
			`CREATE TABLE events_eu PARTITION OF events FOR VALUES IN ('de', 'fr') PARTITION BY LIST (region)`,
			`CREATE TABLE events_de PARTITION OF events_eu FOR VALUES IN ('de')`,
			`CREATE TABLE events_fr PARTITION OF events_eu FOR VALUES IN ('fr')`,
			`CREATE TABLE events_us (n int, region text NOT NULL, id int NOT NULL)`, // other order of columns
			`ALTER TABLE events ATTACH PARTITION events_us FOR VALUES IN ('us')`,
			`INSERT INTO events SELECT i, 'de', 0 FROM generate_series(1, 9) i`,
		},
		entries: `  event: {key: 'event:{id}', table: events}`,
		steps: []step{
			{change: `UPDATE events SET n = 1 WHERE id = 1`, gone: []string{"event:1"}, kept: []string{"event:2"}},
			{change: `UPDATE events SET region = 'us' WHERE id = 1`, gone: []string{"event:1"}, kept: []string{"event:2"}},
			{change: `UPDATE events_us SET n = 2 WHERE id = 1`, gone: []string{"event:1"}, kept: []string{"event:2"}},
			{change: `UPDATE events SET region = 'fr', id = 21 WHERE id = 1`, gone: []string{"event:1", "event:21"}, kept: []string{"event:2"}},
			{change: `INSERT INTO events_us VALUES (0, 'us', 31)`, gone: []string{"event:31"}, kept: []string{"event:2"}},
			{change: `DELETE FROM events_us`, gone: []string{"event:31"}, kept: []string{"event:2"}},
			{change: `TRUNCATE events`, gone: []string{"event:1", "event:2", "event:99"}},
		},
	},
	{
		name: "TRUNCATE drops every key of every table that it empties",
		setup: []string{
			`CREATE TABLE parents (id int PRIMARY KEY)`, `CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents)`,
			`CREATE TABLE emptied (id int PRIMARY KEY)`,
		},
		entries: `  parent: {key: 'parent:{id}', table: parents}
  child: {key: 'child:{id}', table: children}
  emptied: {key: 'emptied:{id}', table: emptied}`,
		steps: []step{
			{change: `TRUNCATE parents CASCADE`, gone: []string{"parent:1", "parent:2", "child:1"}, kept: []string{"emptied:1"}},
			{change: `TRUNCATE emptied, children RESTART IDENTITY`, gone: []string{"emptied:1", "child:1"}},
			{change: `INSERT INTO parents VALUES (7); TRUNCATE children; INSERT INTO children VALUES (7, 7)`, gone: []string{"parent:7", "child:7", "child:8"}, kept: []string{"copied:501"}},
		},
	},
	{
		name: "a foreign key that cascades changes and removes rows of the child",
		setup: []string{
			`CREATE TABLE authors (id int PRIMARY KEY)`,
			`CREATE TABLE books (id int PRIMARY KEY, author int REFERENCES authors ON UPDATE CASCADE ON DELETE CASCADE)`,
			`ALTER TABLE books REPLICA IDENTITY FULL`,
			`INSERT INTO authors VALUES (1), (2)`, `INSERT INTO books VALUES (1, 1), (2, 2)`,
		},
		entries: `  books_of: {key: 'author:{author}:books', table: books}`,
		steps: []step{
			{change: `UPDATE authors SET id = 3 WHERE id = 1`, gone: []string{"author:1:books", "author:3:books"}, kept: []string{"author:2:books"}},
			{change: `DELETE FROM authors WHERE id = 3`, gone: []string{"author:3:books"}, kept: []string{"author:2:books"}},
		},
	},
	{
		name: "a stored generated column beside the key breaks no UPDATE, not under FULL either",
		setup: []string{
			`CREATE TABLE summed (id int PRIMARY KEY, a int, total int GENERATED ALWAYS AS (a * 2) STORED)`,
			`CREATE TABLE summed_full (id int PRIMARY KEY, a int, total int GENERATED ALWAYS AS (a * 2) STORED)`,
			`ALTER TABLE summed_full REPLICA IDENTITY FULL`,
			`INSERT INTO summed VALUES (1, 1), (2, 2)`, `INSERT INTO summed_full VALUES (1, 1), (2, 2)`,
		},
		entries: `  summed: {key: 'summed:{id}', table: summed}
  summed_full: {key: 'summed_full:{a}', table: summed_full}`,
		steps: []step{
			{change: `UPDATE summed SET a = 5 WHERE id = 1`, gone: []string{"summed:1"}, kept: []string{"summed:2"}},
			{change: `UPDATE summed_full SET a = 5 WHERE id = 1`, gone: []string{"summed_full:1", "summed_full:5"}, kept: []string{"summed_full:2"}},
			{change: `DELETE FROM summed_full WHERE id = 1`, gone: []string{"summed_full:5"}, kept: []string{"summed_full:2"}},
		},
	},
	{
		name: "what is rolled back drops nothing",
		setup: []string{
			`CREATE TABLE undone (id int PRIMARY KEY, n int)`, `INSERT INTO undone SELECT i, 0 FROM generate_series(1, 9) i`,
		},
		entries: `  undone: {key: 'undone:{id}', table: undone}`,
		steps: []step{
			{each: []string{`BEGIN`, `UPDATE undone SET n = 1 WHERE id = 1`, `ROLLBACK`}, kept: []string{"undone:1"}},
			{
				each: []string{`BEGIN`, `UPDATE undone SET n = 1 WHERE id = 1`, `SAVEPOINT a`, `UPDATE undone SET n = 1 WHERE id = 2`, `ROLLBACK TO a`,
					`SAVEPOINT b`, `UPDATE undone SET n = 1 WHERE id = 3`, `RELEASE b`, `COMMIT`},
				gone: []string{"undone:1", "undone:3"}, kept: []string{"undone:2"},
			},
			{
				change: `DO $$ BEGIN
					UPDATE undone SET n = 2 WHERE id = 4;
					BEGIN UPDATE undone SET n = 2 WHERE id = 5; PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END;
				END $$`,
				gone: []string{"undone:4"}, kept: []string{"undone:5"},
			},
			{each: []string{`BEGIN`, `TRUNCATE undone`, `ROLLBACK`}, kept: []string{"undone:1", "undone:2"}},
		},
	},
	{
		name: "a prepared transaction counts when it is committed",
		setup: []string{
			`CREATE TABLE prepared (id int PRIMARY KEY, n int)`, `INSERT INTO prepared SELECT i, 0 FROM generate_series(1, 9) i`,
		},
		entries: `  prepared: {key: 'prepared:{id}', table: prepared}`,
		steps: []step{
			{each: []string{`BEGIN`, `UPDATE prepared SET n = 1 WHERE id = 1`, `PREPARE TRANSACTION 'one'`}, kept: []string{"prepared:1"}},
			{each: []string{`COMMIT PREPARED 'one'`}, gone: []string{"prepared:1"}, kept: []string{"prepared:2"}},
			{each: []string{`BEGIN`, `UPDATE prepared SET n = 1 WHERE id = 2`, `PREPARE TRANSACTION 'two'`, `ROLLBACK PREPARED 'two'`}, kept: []string{"prepared:1", "prepared:2"}},
		},
	},
	{
		// There is nothing but the rows themselves by which each can be known.
		name:    "the rows of one COPY share a position in the log",
		setup:   []string{`CREATE TABLE copied (id int PRIMARY KEY)`},
		entries: `  copied: {key: 'copied:{id}', table: copied}`,
		steps:   []step{{change: copyRows, gone: numbered("copied:", 1, 500), kept: numbered("copied:", 501, 510)}},
	},
	{
		name: "a change that shows a new shape of its table sweeps the entry",
		setup: []string{
			`CREATE TABLE reshaped (id int PRIMARY KEY, old text, price numeric(10,1), n int)`,
			`INSERT INTO reshaped SELECT i, 'x', i + 0.5, 0 FROM generate_series(1, 9) i`,
		},
		entries: `  reshaped: {key: 'reshaped:{id}', table: reshaped}`,
		steps: []step{
			{change: `UPDATE reshaped SET n = 1 WHERE id = 1`, gone: []string{"reshaped:1"}, kept: []string{"reshaped:2"}},
			{change: `ALTER TABLE reshaped ADD COLUMN added int NOT NULL DEFAULT 7; UPDATE reshaped SET n = 1 WHERE id = 1`, gone: []string{"reshaped:1", "reshaped:2"}},
			{change: `ALTER TABLE reshaped ALTER price TYPE numeric(10,3); UPDATE reshaped SET n = 2 WHERE id = 1`, gone: []string{"reshaped:1", "reshaped:2"}},
			{change: `ALTER TABLE reshaped DROP COLUMN old; UPDATE reshaped SET n = 3 WHERE id = 1`, gone: []string{"reshaped:1", "reshaped:2"}},
			{change: `ALTER TABLE reshaped RENAME n TO m; UPDATE reshaped SET m = 4 WHERE id = 1`, gone: []string{"reshaped:1", "reshaped:2"}},
		},
	},
}

// facts of which the stream says nothing.
var silentFacts = []fact{
	{
		name: "an ALTER TABLE changes rows and none is sent",
		setup: []string{
			`CREATE TABLE altered (id int PRIMARY KEY, old text, price numeric(10,1))`,
			`CREATE TABLE revalued (price numeric PRIMARY KEY)`,
			`INSERT INTO altered VALUES (1, 'x', 1.5), (2, 'y', 2.5)`, `INSERT INTO revalued VALUES (1.0)`,
		},
		entries: `  altered: {key: 'altered:{id}', table: altered}
  revalued: {key: 'revalued:{price}', table: revalued}`,
		steps: []step{
			{change: `ALTER TABLE altered ADD COLUMN added int NOT NULL DEFAULT 7; ALTER TABLE revalued ALTER price TYPE numeric(10,2)`, silent: true, gone: []string{"altered:1", "revalued:1.0", "revalued:1.00"}},
			{change: `UPDATE altered SET added = 8 WHERE id = 1; DELETE FROM revalued`, gone: []string{"altered:1", "revalued:1.00"}, kept: []string{"revalued:1.0"}},
			{change: `UPDATE altered SET added = 9 WHERE id = 1`, gone: []string{"altered:1"}, kept: []string{"altered:2"}},
		},
	},
	{
		name: "a label of an enum is renamed and nothing is sent",
		setup: []string{
			`CREATE TYPE phase AS ENUM ('new', 'done')`, `CREATE TABLE tasks (id int PRIMARY KEY, phase phase)`, `INSERT INTO tasks VALUES (1, 'done')`,
		},
		entries: `  task: {key: 'task:{id}', table: tasks}`,
		steps:   []step{{change: `ALTER TYPE phase RENAME VALUE 'done' TO 'finished'`, silent: true, gone: []string{"task:1"}}},
	},
	{
		name: "TRUNCATE of a partition is not sent",
		setup: []string{
			`CREATE TABLE logs (id int PRIMARY KEY, n int) PARTITION BY RANGE (id)`,
			`CREATE TABLE logs_0 PARTITION OF logs FOR VALUES FROM (0) TO (100)`, `CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (100) TO (200)`,
			`INSERT INTO logs SELECT i, 0 FROM generate_series(0, 199) i`,
		},
		entries: `  log: {key: 'log:{id}', table: logs}`,
		steps: []step{
			{change: `TRUNCATE logs_0`, silent: true, gone: []string{"log:1"}},
			{change: `UPDATE logs SET n = 1 WHERE id = 100`, gone: []string{"log:100"}, kept: []string{"log:101"}},
		},
	},
	{
		name: "a partition comes and goes with its rows, and nothing is sent",
		setup: []string{
			`CREATE TABLE parts (id int PRIMARY KEY, n int) PARTITION BY RANGE (id)`,
			`CREATE TABLE parts_0 PARTITION OF parts FOR VALUES FROM (0) TO (100)`, `CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (100) TO (200)`,
			`INSERT INTO parts SELECT i, 0 FROM generate_series(0, 199) i`,
		},
		entries: `  part: {key: 'part:{id}', table: parts}`,
		steps: []step{
			{change: `ALTER TABLE parts DETACH PARTITION parts_1`, silent: true, gone: []string{"part:100"}},
			{change: `UPDATE parts_1 SET n = 1 WHERE id = 100`, kept: []string{"part:100"}},
			{change: `ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (100) TO (200)`, silent: true, gone: []string{"part:100"}},
			{change: `UPDATE parts_1 SET n = 2 WHERE id = 100`, gone: []string{"part:100"}, kept: []string{"part:101"}},
		},
	},
	{
		// Its old rows arrive with NULL where the root's identity promises values.
		name: "a new partition has identity DEFAULT, whatever that of the root is",
		setup: []string{
			`CREATE TABLE sales (id int PRIMARY KEY, customer int) PARTITION BY RANGE (id)`,
			`CREATE TABLE sales_0 PARTITION OF sales FOR VALUES FROM (0) TO (100)`,
			`ALTER TABLE sales REPLICA IDENTITY FULL`, `ALTER TABLE sales_0 REPLICA IDENTITY FULL`,
			`INSERT INTO sales VALUES (1, 1)`,
		},
		entries: `  customer_sales: {key: 'customer:{customer}:sales', table: sales}`,
		steps: []step{
			{change: `CREATE TABLE sales_1 PARTITION OF sales FOR VALUES FROM (100) TO (200)`, silent: true, gone: []string{"customer:1:sales"}},
			// From here on the entry is swept again and again, so nothing of it is kept.
			{change: `INSERT INTO sales VALUES (100, 5)`, gone: []string{"customer:5:sales"}},
			{change: `UPDATE sales SET customer = 6 WHERE id = 100`, gone: []string{"customer:5:sales", "customer:6:sales"}},
			{change: `UPDATE sales SET id = 101 WHERE id = 100`, gone: []string{"customer:6:sales"}},
			{change: `DELETE FROM sales WHERE id = 101`, gone: []string{"customer:6:sales"}},
			{change: `UPDATE sales SET customer = 2 WHERE id = 1`, gone: []string{"customer:1:sales", "customer:2:sales"}},
		},
	},
}

// copyRows stands for a COPY, which is no statement of its own in a query.
const copyRows = "COPY 500 rows"

func numbered(prefix string, from, to int) (keys []string) {
	for i := from; i <= to; i++ {
		keys = append(keys, prefix+strconv.Itoa(i))
	}
	return keys
}

// hostile are settings that change how PostgreSQL writes values, as a database
// and a role may have them.
func hostile(database string) []string {
	settings := []string{"datestyle = 'German, DMY'", "timezone = 'America/New_York'", "intervalstyle = 'iso_8601'", "bytea_output = 'escape'", "extra_float_digits = -3"}
	var statements []string
	for _, s := range settings {
		statements = append(statements, "ALTER DATABASE "+database+" SET "+s, "ALTER ROLE postgres IN DATABASE "+database+" SET "+s)
	}
	return statements
}

var lastBrace = regexp.MustCompile(`(?m)\}$`)

// quickSweeps gives entries a short lease, on which the length of a sweep
// depends.
func quickSweeps(entries string) string {
	return lastBrace.ReplaceAllString(entries, ", lease: 500ms}")
}

func TestFacts(t *testing.T) {
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			t.Parallel()
			server := startPostgres(t, stack.PostgresOptions{Major: major, Settings: map[string]string{"max_prepared_transactions": "5", "synchronous_commit": "on"}})
			f := newFixtureOn(t, server, startRedis(t, stack.RedisOptions{}))
			f.exec(`CREATE TABLE bystanders (id int PRIMARY KEY)`)
			entries := "  bystander: {key: 'bystander:{id}', table: bystanders}\n"
			for _, fact := range slices.Concat(streamedFacts, silentFacts) {
				for _, statement := range fact.setup {
					f.exec(statement)
				}
				entries += fact.entries + "\n"
			}
			for _, table := range []string{"many", "heavy", "renamed", "stalled", "foreign_rows"} {
				f.exec(`CREATE TABLE ` + table + ` (id int PRIMARY KEY, name text)`)
				if table != "foreign_rows" {
					entries += fmt.Sprintf("  %s: {key: '%s:{id}', table: %s}\n", table, table, table)
				}
			}
			for _, statement := range hostile(f.slot) {
				f.exec(statement)
			}
			i := startInstance(t, f.config(quickSweeps(entries)))
			i.waitReady()

			for _, fact := range streamedFacts {
				t.Run(fact.name, func(t *testing.T) { f.on(t).try(i, fact.steps) })
			}
			t.Run("a commit is in the log before it is visible", func(t *testing.T) { f.on(t).commitBeforeVisible() })
			t.Run("a change that cannot be applied sweeps its entry, is counted, and is said once", func(t *testing.T) { f.on(t).unapplicable(i) })
			t.Run("memory does not grow with a transaction", func(t *testing.T) { f.on(t).manyRows(i) })
			t.Run("memory does not grow with a row", func(t *testing.T) { f.on(t).heavyRow(i) })
			t.Run("a slot moves while only other tables change", func(t *testing.T) { f.on(t).idleSlot() })
			t.Run("unsent", func(t *testing.T) {
				for _, fact := range silentFacts {
					t.Run(fact.name, func(t *testing.T) {
						t.Parallel()
						f.on(t).try(i, fact.steps)
					})
				}
			})
			if gaps := i.waitStatus("an answer", func(*admin.Status) bool { return true }).Gaps; gaps != 1 {
				t.Errorf("%d gaps, want that of the first start only\n%s", gaps, i.log)
			}
			i.stop()
		})
	}
}

// on is the fixture for one subtest, with a connection of its own.
func (f *fixture) on(t *testing.T) *fixture {
	own := *f
	own.t, own.conn = t, connectTo(t, f.url)
	return &own
}

// try does the steps of a fact.
func (f *fixture) try(i *instance, steps []step) {
	for n, s := range steps {
		f.cache(s.gone...)
		f.cache(append(s.kept, bystander)...)
		switch {
		case s.change == copyRows:
			rows := pgx.CopyFromSlice(len(s.gone), func(i int) ([]any, error) { return []any{int32(i + 1)}, nil })
			if _, err := f.conn.CopyFrom(within(f.t, 30*time.Second), pgx.Identifier{"copied"}, []string{"id"}, rows); err != nil {
				f.t.Fatal(err)
			}
		case s.change != "":
			f.t.Log(s.change)
			execute(f.t, f.conn, s.change)
		default:
			f.t.Log(s.each)
			execute(f.t, f.conn, s.each...)
		}
		if s.silent {
			f.eventually(s.gone[0]+" is gone", func() bool { return !f.cached(s.gone[0]) })
			i.waitStatus("swept", func(s *admin.Status) bool { return len(s.Sweeping) == 0 })
		}
		f.barrier()
		for _, key := range s.gone {
			if f.cached(key) {
				f.t.Errorf("step %d: %s is still there", n+1, key)
			}
		}
		for _, key := range append(s.kept, bystander) {
			if !f.cached(key) {
				f.t.Errorf("step %d: %s is gone", n+1, key)
			}
		}
	}
}

// cache makes sure that the keys are cached, as a reader would.
func (f *fixture) cache(keys ...string) {
	f.t.Helper()
	client, err := unstale.New(f.rdb, unstale.Options{Slot: f.slot, Lease: 500 * time.Millisecond})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx := within(f.t, 30*time.Second)
	for _, key := range keys {
		for !f.cached(key) {
			if _, err := client.Fetch(ctx, key, func(context.Context) ([]byte, error) { return []byte("row"), nil }); err != nil {
				f.t.Fatalf("fetch %s: %v", key, err)
			}
		}
	}
}

func (f *fixture) eventually(what string, done func() bool) {
	f.t.Helper()
	ctx := within(f.t, 2*time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			f.t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

// scalar reads one value as text.
func (f *fixture) scalar(sql string, arguments ...any) string {
	f.t.Helper()
	var text string
	if err := f.conn.QueryRow(within(f.t, 30*time.Second), sql, arguments...).Scan(&text); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// A synchronous standby that does not answer keeps a commit between the log and
// visibility for as long as one likes. A key that were dropped now would be
// filled with the old row again, and nothing would drop it later.
func (f *fixture) commitBeforeVisible() {
	const query = `SELECT name FROM stalled WHERE id = $1`
	execute(f.t, f.conn, `INSERT INTO stalled VALUES (1, 'old'), (2, 'old')`)
	f.barrier()
	if value, _ := f.fetch("stalled:1", query, 1); value != "old" {
		f.t.Fatalf("before: %s", value)
	}
	f.cache("stalled:2")
	setup := connectTo(f.t, f.url+"&synchronous_commit=local")
	var once sync.Once
	release := func() {
		once.Do(func() {
			execute(f.t, setup, `ALTER SYSTEM RESET synchronous_standby_names`, `SELECT pg_reload_conf()`)
		})
	}
	defer release() // or every later commit waits
	execute(f.t, setup, `ALTER SYSTEM SET synchronous_standby_names = 'nobody'`, `SELECT pg_reload_conf()`)
	writer := connectTo(f.t, f.url)
	f.eventually("the standby is waited for", func() bool {
		var names string
		if err := writer.QueryRow(within(f.t, 10*time.Second), `SHOW synchronous_standby_names`).Scan(&names); err != nil {
			f.t.Fatal(err)
		}
		return names == "nobody"
	})
	committed := make(chan error, 1)
	go func() {
		_, err := writer.Exec(f.t.Context(), `UPDATE stalled SET name = 'new' WHERE id = 1`)
		committed <- err
	}()
	f.eventually("the commit waits for the standby", func() bool {
		return f.scalar(`SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'SyncRep'`) == "1"
	})
	f.eventually("the change is sent", func() bool {
		return f.scalar(`SELECT coalesce(bool_or(sent_lsn >= pg_current_wal_flush_lsn()), false)::text FROM pg_stat_replication`) == "true"
	})
	asked := map[string]bool{}
	f.eventually("the gate asks and asks", func() bool {
		asked[f.scalar(`SELECT max(query_start)::text FROM pg_stat_activity WHERE application_name = 'unstale' AND query LIKE '%pg_current_snapshot%'`)] = true
		return len(asked) > 20
	})

	// The row expires, and a reader loads what it sees.
	if err := f.rdb.Unlink(within(f.t, 10*time.Second), "stalled:1").Err(); err != nil {
		f.t.Fatal(err)
	}
	if value, loaded := f.fetch("stalled:1", query, 1); value != "old" || !loaded {
		f.t.Errorf("during the stall: %s, loaded %v", value, loaded)
	}
	if !f.cached("stalled:1") {
		f.t.Error("nothing is visible yet, and what a reader has loaded is not cached")
	}
	release()
	if err := <-committed; err != nil {
		f.t.Fatal(err)
	}
	f.barrier()
	if value, loaded := f.fetch("stalled:1", query, 1); value != "new" || !loaded {
		f.t.Errorf("after the stall: %s, loaded %v", value, loaded)
	}
	if !f.cached("stalled:2") {
		f.t.Error("stalled:2 is gone")
	}
}

// The key column is not in the log any more under the name that the entry has.
func (f *fixture) unapplicable(i *instance) {
	execute(f.t, f.conn, `INSERT INTO renamed VALUES (1, 'a'), (2, 'b')`)
	f.barrier()
	f.cache("renamed:1", "renamed:2", bystander)
	execute(f.t, f.conn, `ALTER TABLE renamed RENAME id TO number; UPDATE renamed SET name = 'c' WHERE number = 1`)
	f.barrier()
	for _, key := range []string{"renamed:1", "renamed:2"} {
		if f.cached(key) {
			f.t.Errorf("%s is still there", key)
		}
	}
	for _, name := range []string{"d", "e"} {
		f.cache("renamed:1")
		execute(f.t, f.conn, `UPDATE renamed SET name = '`+name+`' WHERE number = 1`)
		f.barrier()
		if f.cached("renamed:1") {
			f.t.Errorf("renamed:1 is still there after the change to %s", name)
		}
	}
	if !f.cached(bystander) {
		f.t.Errorf("%s is gone", bystander)
	}
	got := map[string]float64{}
	for _, cause := range []string{"reshaped", "unknown"} {
		got[cause] = i.metric(`unstale_sweeps_total{cause="` + cause + `",entry="renamed"}`)
	}
	if diff := cmp.Diff(map[string]float64{"reshaped": 1, "unknown": 2}, got); diff != "" {
		f.t.Errorf("sweeps counted (-want +got)\n%s", diff)
	}
	if n := i.said("a change whose keys are unknown"); n != 1 {
		f.t.Errorf("said %d times, want once:\n%s", n, i.log)
	}
}

// residentMax bounds what an instance may ever have had in memory.
const residentMax = 100 << 20

func (f *fixture) manyRows(i *instance) {
	const rows = 500_000
	f.cache("many:1", fmt.Sprint("many:", rows), fmt.Sprint("many:", rows+1), bystander)
	execute(f.t, f.conn, fmt.Sprintf(`INSERT INTO many SELECT i, 'x' FROM generate_series(1, %d) i`, rows))
	f.eventually("the last row is applied", func() bool { return !f.cached(fmt.Sprint("many:", rows)) })
	f.barrier()
	if f.cached("many:1") || f.cached(fmt.Sprint("many:", rows)) {
		f.t.Error("a key is still there")
	}
	if !f.cached(fmt.Sprint("many:", rows+1)) || !f.cached(bystander) {
		f.t.Error("a key that nothing changed is gone")
	}
	if got := i.residentMax(); got > residentMax {
		f.t.Errorf("%d MB, want at most %d MB", got>>20, residentMax>>20)
	}
}

func (f *fixture) heavyRow(i *instance) {
	f.cache("heavy:1", "heavy:2")
	execute(f.t, f.conn, `INSERT INTO heavy VALUES (1, repeat(md5('x'), 3200000))`)
	f.barrier()
	if f.cached("heavy:1") || !f.cached("heavy:2") {
		f.t.Errorf("heavy:1 cached: %v, heavy:2 cached: %v", f.cached("heavy:1"), f.cached("heavy:2"))
	}
	if got := i.residentMax(); got > residentMax {
		f.t.Errorf("%d MB, want at most %d MB", got>>20, residentMax>>20)
	}
}

// A slot that stood still would keep the log of everybody else's changes.
func (f *fixture) idleSlot() {
	for range 3 {
		f.exec(`INSERT INTO foreign_rows SELECT i, repeat('x', 100) FROM generate_series(1, 10000) i ON CONFLICT (id) DO UPDATE SET name = 'y'`)
		lsn := f.scalar(`SELECT pg_current_wal_flush_lsn()::text`)
		f.eventually("the slot has passed "+lsn, func() bool {
			return f.scalar(`SELECT (confirmed_flush_lsn >= $2::pg_lsn)::text FROM pg_replication_slots WHERE slot_name = $1`, f.slot, lsn) == "true"
		})
	}
}

// metric reads one sample of /metrics; a sample that is not there is zero.
func (i *instance) metric(name string) float64 {
	i.t.Helper()
	for line := range strings.Lines(i.get("/metrics")) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				i.t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// get returns the body of a page of the running instance.
func (i *instance) get(path string) string {
	i.t.Helper()
	_, body := i.ask(path)
	return body
}

func (i *instance) ask(path string) (status int, body string) {
	i.t.Helper()
	reply, err := http.Get("http://" + i.address + path)
	if err != nil {
		i.t.Fatalf("%v\n%s", err, i.log)
	}
	defer reply.Body.Close()
	var text strings.Builder
	if err := reply.Write(&text); err != nil {
		i.t.Fatal(err)
	}
	return reply.StatusCode, text.String()
}

// residentMax is the most memory that the process has had, in bytes.
func (i *instance) residentMax() int {
	i.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.cmd.Process.Pid))
	if err != nil {
		i.t.Fatal(err)
	}
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if found == nil {
		i.t.Fatalf("no VmHWM in\n%s", text)
	}
	kilobytes, err := strconv.Atoi(string(found[1]))
	if err != nil {
		i.t.Fatal(err)
	}
	return kilobytes << 10
}

// What no log carries, or not wholly, is refused before anything is published:
// publishing it first would break the application's own statements.
func TestWhatTheLogDoesNotCarryIsRefused(t *testing.T) {
	cases := []struct {
		fact  string
		setup []string
		entry string // of table t, unless it names another
		says  []string
		// mended: what check prints mends it.
		mended bool
		after  string // works then
		from   int    // major version
		until  int
	}{
		{
			fact:  "no primary key",
			setup: []string{`CREATE TABLE t (id int)`, `INSERT INTO t VALUES (1)`}, entry: `{key: 'k:{id}', table: t}`,
			says: []string{"no replica identity", "ALTER TABLE public.t REPLICA IDENTITY FULL;"}, mended: true, after: `UPDATE t SET id = 2`,
		},
		{
			fact:  "replica identity NOTHING",
			setup: []string{`CREATE TABLE t (id int PRIMARY KEY)`, `ALTER TABLE t REPLICA IDENTITY NOTHING`, `INSERT INTO t VALUES (1)`}, entry: `{key: 'k:{id}', table: t}`,
			says: []string{"no replica identity", "ALTER TABLE public.t REPLICA IDENTITY DEFAULT;"}, mended: true, after: `UPDATE t SET id = 2`,
		},
		{
			fact:  "a key outside the identity",
			setup: []string{`CREATE TABLE t (id int PRIMARY KEY, owner int)`, `INSERT INTO t VALUES (1, 1)`}, entry: `{key: 'k:{owner}', table: t}`,
			says: []string{"owner", "ALTER TABLE public.t REPLICA IDENTITY FULL;"}, mended: true, after: `UPDATE t SET owner = 2`,
		},
		{
			fact: "an identity by an index that is not the key",
			setup: []string{`CREATE TABLE t (id int PRIMARY KEY, code int NOT NULL)`, `CREATE UNIQUE INDEX c ON t (code)`, `ALTER TABLE t REPLICA IDENTITY USING INDEX c`,
				`INSERT INTO t VALUES (1, 1)`}, entry: `{key: 'k:{id}', table: t}`,
			says: []string{"id", "ALTER TABLE public.t REPLICA IDENTITY DEFAULT;"}, mended: true, after: `UPDATE t SET id = 2`,
		},
		{
			fact:  "a partition with a lesser identity",
			setup: []string{`CREATE TABLE t (id int PRIMARY KEY, owner int) PARTITION BY RANGE (id)`, `CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (9)`, `ALTER TABLE t REPLICA IDENTITY FULL`, `INSERT INTO t VALUES (1, 1)`},
			entry: `{key: 'k:{owner}', table: t}`,
			says:  []string{"t1", "ALTER TABLE public.t1 REPLICA IDENTITY FULL;"}, mended: true, after: `UPDATE t SET owner = 2`,
		},
		{
			fact:  "an unlogged table",
			setup: []string{`CREATE UNLOGGED TABLE t (id int PRIMARY KEY)`}, entry: `{key: 'k:{id}', table: t}`,
			says: []string{"unlogged", "ALTER TABLE public.t SET LOGGED;"}, mended: true, after: `INSERT INTO t VALUES (1)`,
		},
		{fact: "a temporary table", setup: []string{`CREATE TEMPORARY TABLE t (id int PRIMARY KEY)`}, entry: `{key: 'k:{id}', table: t}`, says: []string{"no such table"}},
		{fact: "a view", setup: []string{`CREATE VIEW t AS SELECT 1 AS id`}, entry: `{key: 'k:{id}', table: t}`, says: []string{"view"}},
		{fact: "a materialized view", setup: []string{`CREATE MATERIALIZED VIEW t AS SELECT 1 AS id`}, entry: `{key: 'k:{id}', table: t}`, says: []string{"view"}},
		{
			fact:  "a foreign table",
			setup: []string{`CREATE FOREIGN DATA WRAPPER nowhere`, `CREATE SERVER far FOREIGN DATA WRAPPER nowhere`, `CREATE FOREIGN TABLE t (id int) SERVER far`},
			entry: `{key: 'k:{id}', table: t}`, says: []string{"foreign table"},
		},
		{fact: "a system table", entry: `{key: 'k:{oid}', table: pg_catalog.pg_class}`, says: []string{"system table"}},
		{
			fact:  "a partition",
			setup: []string{`CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id)`, `CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (9)`},
			entry: `{key: 'k:{id}', table: t1}`, says: []string{"partition of public.t", "write table: public.t"},
		},
		{
			fact:  "a table that others inherit from",
			setup: []string{`CREATE TABLE t (id int PRIMARY KEY)`, `CREATE TABLE child () INHERITS (t)`}, entry: `{key: 'k:{id}', table: t}`, says: []string{"inherited", "public.child"},
		},
		{
			fact:  "a key column that is generated, before the log has it",
			setup: []string{`CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id + 1) STORED)`, `ALTER TABLE t REPLICA IDENTITY FULL`}, entry: `{key: 'k:{g}', table: t}`,
			says: []string{"generated"}, until: 17,
		},
		{
			fact:  "a key column that is generated when it is read",
			setup: []string{`CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id + 1))`}, entry: `{key: 'k:{g}', table: t}`,
			says: []string{"generated"}, from: 18,
		},
		{
			fact:  "a publication with a row filter",
			setup: []string{`CREATE TABLE t (id int PRIMARY KEY)`, `CREATE PUBLICATION % FOR TABLE t WHERE (id > 10)`, `INSERT INTO t VALUES (1)`}, entry: `{key: 'k:{id}', table: t}`,
			says: []string{"WHERE", "DROP TABLE public.t; ALTER PUBLICATION"}, mended: true, after: `UPDATE t SET id = 2`,
		},
		{
			fact:  "a publication with a column list",
			setup: []string{`CREATE TABLE t (id int PRIMARY KEY, a int)`, `CREATE PUBLICATION % FOR TABLE t (id)`, `INSERT INTO t VALUES (1)`}, entry: `{key: 'k:{id}', table: t}`,
			says: []string{"some columns", "DROP TABLE public.t; ALTER PUBLICATION"}, mended: true, after: `UPDATE t SET id = 2`,
		},
		{
			fact:  "a publication without truncate and delete",
			setup: []string{`CREATE TABLE t (id int PRIMARY KEY)`, `CREATE PUBLICATION % FOR TABLE t WITH (publish = 'insert, update')`}, entry: `{key: 'k:{id}', table: t}`,
			says: []string{"delete and truncate", "SET (publish = 'insert, update, delete, truncate');"}, mended: true, after: `TRUNCATE t`,
		},
		{
			fact: "a publication that names partitions",
			setup: []string{`CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id)`, `CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (9)`,
				`CREATE PUBLICATION % FOR TABLE t`}, entry: `{key: 'k:{id}', table: t}`,
			says: []string{"names of its partitions", "SET (publish_via_partition_root = true);"}, mended: true, after: `INSERT INTO t VALUES (1)`,
		},
		{
			fact:  "a slot of somebody else",
			setup: []string{`CREATE TABLE t (id int PRIMARY KEY)`, `SELECT pg_create_physical_replication_slot('%')`}, entry: `{key: 'k:{id}', table: t}`,
			says: []string{"physical", "source.postgres.slot"},
		},
	}
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			t.Parallel()
			server, r := sharedPostgres(t, major), sharedRedis(t)
			for _, c := range cases {
				if c.from > major || c.until > 0 && c.until < major {
					continue
				}
				t.Run(c.fact, func(t *testing.T) {
					f := newFixtureOn(t, server, r)
					for _, statement := range c.setup {
						f.exec(strings.ReplaceAll(statement, "%", f.slot))
					}
					path, _ := writeConfig(t, f.config("  e: "+c.entry))
					for _, command := range []string{"run", "check"} {
						stdout, stderr, exit := unstaleCommand(t, command, "--config", path)
						if exit != 1 {
							t.Errorf("%s: exit %d, want 1", command, exit)
						}
						for _, says := range c.says {
							if !strings.Contains(stdout+stderr, says) {
								t.Errorf("%s does not say %q:\n%s%s", command, says, stdout, stderr)
							}
						}
					}
					published := f.scalar(`SELECT count(*)::text FROM pg_publication WHERE pubname = $1`, f.slot)
					if made := strings.Contains(strings.Join(c.setup, ";"), "PUBLICATION"); published != "0" && !made {
						t.Error("the table was published all the same")
					}
					if !c.mended {
						return
					}
					mend(t, f.conn, path)
					if stdout, _, exit := unstaleCommand(t, "check", "--config", path); exit != 0 {
						t.Errorf("after what it printed: exit %d\n%s", exit, stdout)
					}
					i := startInstance(t, f.config(quickSweeps("  e: "+c.entry)))
					i.waitStatus("streaming", func(s *admin.Status) bool { return s.State == apply.StateStreaming })
					f.exec(c.after)
					i.stop()
					f.exec(`SELECT pg_drop_replication_slot($1)`, f.slot)
				})
			}
		})
	}
}

// mend runs the statements that check prints, advice apart.
func mend(t *testing.T, conn *pgx.Conn, config string) {
	t.Helper()
	report := checkJSON(t, config)
	for _, finding := range report.Findings {
		if finding.Severity == "error" {
			execute(t, conn, finding.Mend...)
		}
	}
}

// checkReport is what check prints as JSON.
type checkReport struct {
	OK       bool      `json:"ok"`
	Findings []finding `json:"findings"`
}

type finding struct {
	Severity string   `json:"severity"`
	Subject  string   `json:"subject"`
	Text     string   `json:"text"`
	Mend     []string `json:"mend"`
	Then     string   `json:"then"`
}

func checkJSON(t *testing.T, config string) (report checkReport) {
	t.Helper()
	stdout, stderr, exit := unstaleCommand(t, "check", "--json", "--config", config)
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("%v\n%s%s", err, stdout, stderr)
	}
	if report.OK != (exit == 0) {
		t.Errorf("ok is %v, and exit %d", report.OK, exit)
	}
	return report
}

// Somebody changes what is published while the instance runs. Publications
// follow tables, not names, and nobody is told: the instance must find it by
// itself, and drop what it has missed.
func TestAPublicationThatChangesIsNoticed(t *testing.T) {
	const entries = "  t: {key: 't:{id}', table: t, lease: 500ms}"
	cases := []struct {
		fact   string
		setup  []string // after the table t
		happen []string // while it runs; then 't:1' must go
		says   string   // and is not ready until mend has run
		mend   []string
	}{
		{
			fact:   "the table is dropped and made again",
			happen: []string{`DROP TABLE t`, `CREATE TABLE t (id int PRIMARY KEY, n int)`, `INSERT INTO t VALUES (1, 7)`},
		},
		{
			fact:   "the table is replaced by another of its name",
			happen: []string{`CREATE TABLE t_new (LIKE t INCLUDING ALL)`, `INSERT INTO t_new VALUES (1, 7)`, `BEGIN; ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t; COMMIT`},
		},
		{
			fact:   "the table is taken out",
			happen: []string{`ALTER PUBLICATION % DROP TABLE t`, `UPDATE t SET n = 7`},
		},
		{
			// Between two looks at the catalog: afterwards everything seems as before.
			fact:   "the table is taken out and put back",
			happen: []string{`ALTER PUBLICATION % DROP TABLE t`, `UPDATE t SET n = 7`, `ALTER PUBLICATION % ADD TABLE t`},
		},
		{
			fact:   "an operation is not published for a moment",
			happen: []string{`ALTER PUBLICATION % SET (publish = 'insert')`, `UPDATE t SET n = 7`, `ALTER PUBLICATION % SET (publish = 'insert, update, delete, truncate')`},
		},
		{
			fact:   "the publication is dropped and made again",
			happen: []string{`DROP PUBLICATION %`, `UPDATE t SET n = 7`, `CREATE PUBLICATION % FOR TABLE t`},
		},
		{
			fact:   "a row filter is set",
			happen: []string{`ALTER PUBLICATION % SET TABLE t WHERE (id > 10)`, `UPDATE t SET n = 7`},
			says:   "row filter",
			mend:   []string{`BEGIN; ALTER PUBLICATION % DROP TABLE t; ALTER PUBLICATION % ADD TABLE t; COMMIT`},
		},
		{
			fact:   "operations are taken out",
			happen: []string{`ALTER PUBLICATION % SET (publish = 'insert')`, `UPDATE t SET n = 7`},
			says:   "publish = 'insert, update, delete, truncate'",
			mend:   []string{`ALTER PUBLICATION % SET (publish = 'insert, update, delete, truncate')`},
		},
		{
			fact:   "the table is unlogged, in a publication of all tables",
			setup:  []string{`CREATE PUBLICATION % FOR ALL TABLES WITH (publish_via_partition_root = true)`},
			happen: []string{`ALTER TABLE t SET UNLOGGED`, `UPDATE t SET n = 7`},
			says:   "SET LOGGED",
			mend:   []string{`ALTER TABLE t SET LOGGED`},
		},
		{
			fact:   "the table is unlogged for a moment, in a publication of all tables",
			setup:  []string{`CREATE PUBLICATION % FOR ALL TABLES WITH (publish_via_partition_root = true)`},
			happen: []string{`ALTER TABLE t SET UNLOGGED`, `UPDATE t SET n = 7`, `ALTER TABLE t SET LOGGED`},
		},
		{
			// A row of the child is read through t, and published as the child's.
			fact:   "another table inherits from it",
			happen: []string{`CREATE TABLE child () INHERITS (t)`, `INSERT INTO child VALUES (1, 7)`},
			says:   "inherit from it",
			mend:   []string{`DROP TABLE child`},
		},
	}
	for _, major := range databaseMajors {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			server, r := sharedPostgres(t, major), sharedRedis(t)
			for _, c := range cases {
				t.Run(c.fact, func(t *testing.T) {
					t.Parallel()
					f := newFixtureOn(t, server, r)
					f.t = t
					key := f.slot + ":1"
					do := func(statements []string) {
						for _, statement := range statements {
							execute(t, f.conn, strings.ReplaceAll(statement, "%", f.slot))
						}
					}
					do(append([]string{`CREATE TABLE t (id int PRIMARY KEY, n int)`, `INSERT INTO t VALUES (1, 0)`}, c.setup...))
					i := startInstance(t, f.config(strings.ReplaceAll(entries, "t:{id}", f.slot+":{id}")))
					i.waitReady()
					f.cache(key)
					do(c.happen)
					if c.says != "" {
						f.eventually("it says what mends it", func() bool { return i.said(c.says) > 0 })
						i.waitStatus("holding", func(s *admin.Status) bool { return s.State == apply.StateHolding })
						do(c.mend)
					}
					f.eventually(key+" is gone", func() bool { return !f.cached(key) })
					i.waitStatus("ready again", func(s *admin.Status) bool { return s.Ready })
					if f.cached(key) {
						t.Fatal(key + " is back")
					}

					f.cache(key)
					f.exec(`UPDATE t SET n = 8 WHERE id = 1`)
					f.barrier()
					if f.cached(key) {
						t.Error("afterwards a change does not drop its key")
					}
					i.stop()
					f.exec(`SELECT pg_drop_replication_slot($1)`, f.slot)
				})
			}
		})
	}
}

// A transaction writes while its table is out of the publication, and commits
// when the table is back and swept: its rows are never sent.
func TestATransactionThatOutlivesAChangeOfThePublication(t *testing.T) {
	t.Parallel()
	for _, major := range databaseMajors {
		f := newFixtureOn(t, sharedPostgres(t, major), sharedRedis(t))
		key := f.slot + ":1"
		execute(t, f.conn, `CREATE TABLE t (id int PRIMARY KEY, n int)`, `INSERT INTO t VALUES (1, 0)`)
		i := startInstance(t, f.config(fmt.Sprintf("  t: {key: '%s:{id}', table: t, lease: 500ms}", f.slot)))
		i.waitReady()
		f.cache(key)
		writer := connectTo(t, f.url)
		execute(t, f.conn, `ALTER PUBLICATION `+f.slot+` DROP TABLE t`)
		execute(t, writer, `BEGIN`, `UPDATE t SET n = 1`)
		execute(t, f.conn, `ALTER PUBLICATION `+f.slot+` ADD TABLE t`)
		f.eventually("swept", func() bool { return !f.cached(key) })
		i.waitStatus("ready", func(s *admin.Status) bool { return s.Ready })
		f.cache(key)
		execute(t, writer, `COMMIT`)
		f.eventually("swept again", func() bool { return !f.cached(key) })
		i.stop()
		f.exec(`SELECT pg_drop_replication_slot($1)`, f.slot)
	}
}
