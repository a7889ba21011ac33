package config

import (
	"slices"
	"strings"
	"time"
)

// A setting is one key of the file. What the setting holds follows from the
// type that at points to; a setting without at is a mapping.
type setting struct {
	// path is the keys from the top, joined by dots; * is a name that the user
	// gives. A mapping stands before its keys.
	path string
	// doc says what the setting does, in one or more sentences.
	doc string
	// initial is the default, as it would be written. Empty: none.
	initial  string
	example  string
	required bool
	// unless is the path of a setting beside which it is not required.
	unless string
	enum   []string
	// min and max bound a number; nanoseconds for a duration.
	min, max int64
	// file: the value is the path of a file, relative to the configuration.
	file bool
	// short names the key that a plain value stands for where a mapping could
	// stand.
	short string
	// written: it is about values that the service writes, and has no meaning
	// for an entry that only invalidates.
	written bool
	// alone: the only element of a list may stand without the list.
	alone bool
	// of is what an entry must be over for the setting to have a meaning, some of
	// kinds; none: anything.
	of []string
	// check reads a text that has rules of its own.
	check func(value string) (string, *fault)
	// at is the place of the value. The entry is nil outside entries.
	at func(*Config, *Entry) any
}

// A fault is something wrong at a byte of a value.
type fault struct {
	offset     int
	text, mend string
}

// tableName is where the two parts of a table's name go.
type tableName struct{ schema, name *string }

// kinds are what an entry can be over. The settings of those names say it, and an
// entry has one of them.
var kinds = []string{"table", "query", "depends_on"}

// dependencyPath is the path of a table that an entry depends on.
const dependencyPath = "entries.*.depends_on.*"

// settings is the configuration file: every key in the order in which it is
// documented and printed.
var settings = slices.Concat(directSettings, kafkaSettings, entrySettings)

var directSettings = []setting{
	{
		path:     "database",
		doc:      "The primary: a postgres:// URL, a key=value connection string, or a mapping. The server itself: neither a standby nor a pooler.",
		example:  "${DATABASE_URL}",
		required: true,
		unless:   "source.kafka",
		short:    "url",
	},
	{
		path:     "database.url",
		doc:      "postgres:// URL or key=value connection string. Everything that libpq's connection strings know for TLS and hosts works here too.",
		example:  "postgres://unstale@db.example.com:5432/shop",
		required: true,
		check:    checkDatabaseURL,
		at:       func(c *Config, _ *Entry) any { return &c.Database.URL },
	},
	{
		path:    "database.password_file",
		doc:     "File that holds the password; one newline at its end is cut.",
		example: "/run/secrets/database-password",
		file:    true,
		at:      func(c *Config, _ *Entry) any { return &c.Database.PasswordFile },
	},
	{
		path: "database.tls",
		doc:  "TLS to the database. Left out: what the URL says, else TLS if the server offers it.",
	},
	{
		path:    "database.tls.mode",
		doc:     "libpq's sslmode. Default: verify-full where ca_file is given, else that of the URL, else prefer.",
		example: "verify-full",
		enum:    []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"},
		at:      func(c *Config, _ *Entry) any { return &c.Database.TLS.Mode },
	},
	{
		path:    "database.tls.ca_file",
		doc:     "PEM file of the authorities that may have signed the server's certificate.",
		example: "ca.pem",
		file:    true,
		at:      func(c *Config, _ *Entry) any { return &c.Database.TLS.CAFile },
	},
	{
		path:    "database.tls.cert_file",
		doc:     "PEM file of the client's certificate; needs key_file.",
		example: "client.pem",
		file:    true,
		at:      func(c *Config, _ *Entry) any { return &c.Database.TLS.CertFile },
	},
	{
		path:    "database.tls.key_file",
		doc:     "PEM file of the key of the client's certificate; needs cert_file.",
		example: "client.key",
		file:    true,
		at:      func(c *Config, _ *Entry) any { return &c.Database.TLS.KeyFile },
	},
	{
		path:    "database.tls.server_name",
		doc:     "Name that the server's certificate must have, where it is not the host of the URL.",
		example: "db.example.com",
		at:      func(c *Config, _ *Entry) any { return &c.Database.TLS.ServerName },
	},
	{
		path:    "database.connect_timeout",
		doc:     "How long one attempt to connect may take; rounded up to whole seconds.",
		initial: "10s",
		min:     int64(time.Second),
		max:     int64(10 * time.Minute),
		at:      func(c *Config, _ *Entry) any { return &c.Database.ConnectTimeout },
	},
	{
		path:     "redis",
		doc:      "The cache: a redis:// or rediss:// (TLS) URL, or a mapping.",
		example:  "${REDIS_URL}",
		required: true,
		short:    "url",
	},
	{
		path:     "redis.url",
		doc:      "redis://[user[:password]@]host[:port][/database]; rediss:// for TLS.",
		example:  "rediss://cache.example.com:6379",
		required: true,
		check:    checkRedisURL,
		at:       func(c *Config, _ *Entry) any { return &c.Redis.URL },
	},
	{
		path:    "redis.username",
		doc:     "ACL user. Default: that of the URL, else Redis's default user.",
		example: "unstale",
		at:      func(c *Config, _ *Entry) any { return &c.Redis.Username },
	},
	{
		path:    "redis.password",
		doc:     "Password; better taken from the environment or from a file.",
		example: "${REDIS_PASSWORD}",
		at:      func(c *Config, _ *Entry) any { return &c.Redis.Password },
	},
	{
		path:    "redis.password_file",
		doc:     "File that holds the password; one newline at its end is cut.",
		example: "/run/secrets/redis-password",
		file:    true,
		at:      func(c *Config, _ *Entry) any { return &c.Redis.PasswordFile },
	},
	{
		path: "redis.tls",
		doc:  "TLS to Redis; needs a rediss:// URL. Left out: the authorities of the system are trusted.",
	},
	{
		path:    "redis.tls.ca_file",
		doc:     "PEM file of the authorities that may have signed the server's certificate.",
		example: "ca.pem",
		file:    true,
		at:      func(c *Config, _ *Entry) any { return &c.Redis.TLS.CAFile },
	},
	{
		path:    "redis.tls.cert_file",
		doc:     "PEM file of the client's certificate; needs key_file.",
		example: "client.pem",
		file:    true,
		at:      func(c *Config, _ *Entry) any { return &c.Redis.TLS.CertFile },
	},
	{
		path:    "redis.tls.key_file",
		doc:     "PEM file of the key of the client's certificate; needs cert_file.",
		example: "client.key",
		file:    true,
		at:      func(c *Config, _ *Entry) any { return &c.Redis.TLS.KeyFile },
	},
	{
		path:    "redis.tls.server_name",
		doc:     "Name that the server's certificate must have, where it is not the host of the URL.",
		example: "cache.example.com",
		at:      func(c *Config, _ *Entry) any { return &c.Redis.TLS.ServerName },
	},
	{
		path:    "redis.dial_timeout",
		doc:     "How long one attempt to connect may take.",
		initial: "5s",
		min:     int64(time.Millisecond),
		max:     int64(10 * time.Minute),
		at:      func(c *Config, _ *Entry) any { return &c.Redis.DialTimeout },
	},
	{
		path:    "redis.read_timeout",
		doc:     "How long to wait for a reply before the connection is given up and the batch is sent again.",
		initial: "3s",
		min:     int64(time.Millisecond),
		max:     int64(10 * time.Minute),
		at:      func(c *Config, _ *Entry) any { return &c.Redis.ReadTimeout },
	},
	{
		path:    "redis.write_timeout",
		doc:     "How long sending may block before the connection is given up and the batch is sent again.",
		initial: "3s",
		min:     int64(time.Millisecond),
		max:     int64(10 * time.Minute),
		at:      func(c *Config, _ *Entry) any { return &c.Redis.WriteTimeout },
	},
	{
		path: "source",
		doc:  "Where changes come from. Left out: PostgreSQL, with the defaults below.",
	},
	{
		path: "source.postgres",
		doc:  "A logical replication slot of the database itself. Not beside kafka.",
	},
	{
		path:    "source.postgres.slot",
		doc:     "Replication slot; created if it is not there. One for each deployment: two services on one slot take it from each other.",
		initial: "unstale",
		check:   checkSlot,
		at:      func(c *Config, _ *Entry) any { return &c.Source.Postgres.Slot },
	},
	{
		path:    "source.postgres.publication",
		doc:     "Publication; created if it is not there, with the tables that the entries need.",
		initial: "unstale",
		check:   checkPublication,
		at:      func(c *Config, _ *Entry) any { return &c.Source.Postgres.Publication },
	},
	{
		path:    "source.postgres.url",
		doc:     "Connection for replication, where it differs from database, for instance in its address: it must lead to the same server. The password, TLS files and timeout of database hold for it too.",
		example: "postgres://unstale@db-direct.example.com:5432/shop",
		check:   checkDatabaseURL,
		at:      func(c *Config, _ *Entry) any { return &c.Source.Postgres.URL },
	},
	{
		path:    "source.postgres.failover",
		doc:     "Create the slot so that standbys keep a copy of it (PostgreSQL 17 and later; ignored before).",
		initial: "true",
		at:      func(c *Config, _ *Entry) any { return &c.Source.Postgres.Failover },
	},
}

var entrySettings = []setting{
	{
		path: "entries",
		doc: "The cached keys, a family of them under each name. A name is letters, digits, _ and -, at most 63 of them; " +
			"metrics, logs and plans show it.",
		example:  "{product: {key: \"product:{id}\", table: products}}",
		required: true,
	},
	{
		path: "entries.*",
		doc:  "One family of keys.",
	},
	{
		path:     "entries.*.key",
		doc:      "Key template. {column} is the row's value; {{ and }} are literal braces. Quote a template that begins with a brace.",
		example:  "product:{id}",
		required: true,
		check:    checkKey,
		at:       func(_ *Config, e *Entry) any { return &e.Key },
	},
	{
		path: "entries.*.table",
		doc: "Table, as in SQL: products, shop.products, or '\"Weird Table\"' with quotes of YAML around those of SQL. " +
			"Without a schema, the search_path of the connection decides; without database it is public.",
		example: "products",
		of:      []string{"table"},
		at:      func(_ *Config, e *Entry) any { return tableName{&e.Schema, &e.Table} },
	},
	{
		path: "entries.*.query",
		doc: "In place of a table: the SELECT whose result is cached, with one @parameter for each placeholder of the key. " +
			"What each change does to the keys is derived from it; unstale plan shows it. Tables without a schema are found by the search_path of the connection.",
		example: "SELECT p.id, p.name, c.name AS category FROM products p JOIN categories c ON c.id = p.category_id WHERE p.id = @id",
		of:      []string{"query"},
		at:      func(_ *Config, e *Entry) any { return &e.Query },
	},
	{
		path: "entries.*.depends_on",
		doc: "In place of a table: the tables of which the application makes the value, whatever it does with them. Under the name of each stands how a changed row leads to the keys. " +
			"Everything that a value shows must be there: a table that is missing is one whose changes leave stale values. unstale plan shows what follows; unstale plan --depends-on writes it for a query.",
		example: "{products: id, reviews: product_id}",
		of:      []string{"depends_on"},
	},
	{
		path:  dependencyPath,
		doc:   "A table, as in SQL. A column or a list of columns is its key. A key of the entry without a placeholder needs none of key, lookup and sweep: products: {}.",
		short: "key",
	},
	{
		path:    dependencyPath + ".key",
		doc:     "The column, or columns, of the row whose values are those of the key's placeholders, in the order of the placeholders.",
		example: "[shop_id, order_id]",
		alone:   true,
		at:      func(_ *Config, e *Entry) any { return &e.dependency().Key },
	},
	{
		path: dependencyPath + ".lookup",
		doc: "In place of key: a SELECT that finds the values of the key's placeholders, in their order, for a changed row: @column is its column of that name, before the change and after it. " +
			"It runs on the primary once the change is visible, for many rows at once. Nothing is derived from the tables that it reads: where their changes lead other rows to a key, name them in depends_on too.",
		example: "SELECT id FROM products WHERE category_id = @id",
		at:      func(_ *Config, e *Entry) any { return &e.dependency().Lookup },
	},
	{
		path:    dependencyPath + ".columns",
		doc:     "The columns that matter: an update that touches neither them nor those that lead to the keys does nothing, if the table has REPLICA IDENTITY FULL. Left out: all.",
		example: "[name]",
		at:      func(_ *Config, e *Entry) any { return &e.dependency().Columns },
	},
	{
		path:    dependencyPath + ".sweep",
		doc:     "In place of key: every change drops every key of the entry. It needs allow_sweep: true.",
		initial: "false",
		at:      func(_ *Config, e *Entry) any { return &e.dependency().Sweep },
	},
	{
		path:    "entries.*.rows",
		doc:     "How many rows the query's result has, for who loads it: of no use with on_change: invalidate. one: the value is row_to_json of it, and there is none where there is no row. many: a JSON array of those, in the query's order.",
		initial: "one",
		enum:    []string{"one", "many"},
		written: true,
		of:      []string{"query"},
		at:      func(_ *Config, e *Entry) any { return &e.Rows },
	},
	{
		path: "entries.*.lookup",
		doc: "Where a change of one table is told which rows of another it concerns, for the keys. database: the primary is asked. " +
			"index: sets in Redis answer, which the service builds as they are asked for and keeps up from the log; what they cannot answer the database does, and unstale plan says why. Not with source.kafka.",
		initial: string(LookupDatabase),
		enum:    []string{string(LookupDatabase), string(LookupIndex)},
		of:      []string{"query"},
		at:      func(_ *Config, e *Entry) any { return &e.Lookup },
	},
	{
		path:    "entries.*.cache_absent",
		doc:     "Cache that there is no row, as the JSON value null: with rows: one. The application's own readers are to cache the same. Not with on_change: invalidate.",
		initial: "false",
		written: true,
		of:      []string{"query"},
		at:      func(_ *Config, e *Entry) any { return &e.CacheAbsent },
	},
	{
		path: "entries.*.refresh_max",
		doc: "How many of the keys that a changed row leads to by a lookup are loaded again: the first that the lookup finds; rows that are looked up together share what they have. Those beyond it, all with 0, are only dropped, and readers load them. " +
			"A key that the row has in its own columns is always loaded. Not with on_change: invalidate.",
		initial: "1000",
		max:     1_000_000,
		written: true,
		of:      []string{"query"},
		at:      func(_ *Config, e *Entry) any { return &e.RefreshMax },
	},
	{
		path: "entries.*.warm_keys",
		doc: "The keys that unstale warm loads: a SELECT whose columns are the values of the key's placeholders, in their order. " +
			"Left out: it is derived from the query; unstale plan --sql shows it. Not with on_change: invalidate.",
		example: "SELECT id FROM customers WHERE active",
		written: true,
		of:      []string{"query"},
		at:      func(_ *Config, e *Entry) any { return &e.WarmKeys },
	},
	{
		path:    "entries.*.allow_sweep",
		doc:     "Take a query, or depends_on, of which some changes concern every key, or every key with some values: each of those changes drops them all. Without it such an entry is refused.",
		initial: "false",
		of:      []string{"query", "depends_on"},
		at:      func(_ *Config, e *Entry) any { return &e.AllowSweep },
	},
	{
		path: "entries.*.on_change",
		doc: "What a change of the row does to its key. invalidate drops it: the next reader loads it. " +
			"update writes the new row if the key is cached. warm writes it, cached or not: every row lives in the cache. " +
			"refresh drops the key, and the service loads the row again.",
		initial: "invalidate",
		enum:    []string{string(Invalidate), string(Update), string(Warm), string(Refresh)},
		at:      func(_ *Config, e *Entry) any { return &e.OnChange },
	},
	{
		path:    "entries.*.columns",
		doc:     "The columns that a written value has, as the table has them, in the table's order. Left out: all. Not with on_change: invalidate.",
		example: "[id, name, price]",
		written: true,
		of:      []string{"table"},
		at:      func(_ *Config, e *Entry) any { return &e.Columns },
	},
	{
		path:    "entries.*.format",
		doc:     "What a written value is. json: a string, exactly row_to_json(t)::text of PostgreSQL. hash: a Redis hash with a field for each column that is not NULL. Not with on_change: invalidate.",
		initial: "json",
		enum:    []string{"json", "hash"},
		written: true,
		of:      []string{"table"},
		at:      func(_ *Config, e *Entry) any { return &e.Format },
	},
	{
		path:    "entries.*.ttl",
		doc:     "How long a written value stays in Redis. Each key's own is up to a tenth shorter, so that they do not all end at once. A changed one holds for what is written from then on. Not with on_change: invalidate.",
		initial: "24h",
		min:     int64(time.Second),
		max:     int64(5 * 365 * 24 * time.Hour),
		written: true,
		at:      func(_ *Config, e *Entry) any { return &e.TTL },
	},
	{
		path:    "entries.*.lease",
		doc:     "How long a load by the service itself may take (refresh, warm, update): until then readers of the key wait for it. Readers have their own, in the client.",
		initial: "3s",
		min:     int64(100 * time.Millisecond),
		max:     int64(30 * time.Second),
		at:      func(_ *Config, e *Entry) any { return &e.Lease },
	},
	{
		path: "sweep",
		doc:  "What a sweep (every key of an entry is dropped: at the first start, after a TRUNCATE or a gap) may cost Redis.",
	},
	{
		path:    "sweep.keys_per_second",
		doc:     "Keys of the whole Redis that a sweep looks at in a second.",
		initial: "100000",
		min:     100,
		max:     100_000_000,
		at:      func(c *Config, _ *Entry) any { return &c.Sweep.KeysPerSecond },
	},
	{
		path: "load",
		doc:  "What the service itself may load from the database, for the entries with on_change: refresh, warm or update.",
	},
	{
		path:    "load.rows_per_second",
		doc:     "Rows that are loaded in a second, by all connections together.",
		initial: "5000",
		min:     1,
		max:     10_000_000,
		at:      func(c *Config, _ *Entry) any { return &c.Load.RowsPerSecond },
	},
	{
		path:    "load.connections",
		doc:     "Connections to the database that load at the same time.",
		initial: "2",
		min:     1,
		max:     64,
		at:      func(c *Config, _ *Entry) any { return &c.Load.Connections },
	},
	{
		path: "admin",
		doc:  "The HTTP server for /healthz, /readyz, /metrics and /status.",
	},
	{
		path:    "admin.listen",
		doc:     "Address as host:port; off turns the server off. It has no authentication: keep it on loopback or in a private network.",
		initial: "127.0.0.1:9187",
		check:   checkListen,
		at:      func(c *Config, _ *Entry) any { return &c.Admin.Listen },
	},
	{
		path: "log",
		doc:  "The log, on standard error.",
	},
	{
		path:    "log.level",
		doc:     "The least level that is logged. Normal operation is silent at info.",
		initial: "info",
		enum:    []string{"debug", "info", "warn", "error"},
		at:      func(c *Config, _ *Entry) any { return &c.Log.Level },
	},
	{
		path:    "log.format",
		doc:     "text for people, json for machines.",
		initial: "text",
		enum:    []string{"text", "json"},
		at:      func(c *Config, _ *Entry) any { return &c.Log.Format },
	},
}

// root is the file as a whole.
var root = &setting{path: ""}

// name is the last key of the path.
func (s *setting) name() string { return s.path[strings.LastIndexByte(s.path, '.')+1:] }

// isOf reports whether the setting has a meaning for an entry over kind.
func (s *setting) isOf(kind string) bool { return len(s.of) == 0 || slices.Contains(s.of, kind) }

// isKind reports whether the setting says what an entry is over.
func (s *setting) isKind() bool { return slices.Contains(s.of, s.name()) }

// isList reports whether the setting holds several values.
func (s *setting) isList() bool {
	if s.at == nil {
		return false
	}
	_, ok := s.at(new(Config), new(Entry)).(*[]string)
	return ok
}

// children are the keys of a mapping, in order.
func (s *setting) children() []*setting {
	var found []*setting
	prefix := s.path
	if prefix != "" {
		prefix += "."
	}
	for i := range settings {
		name, ok := strings.CutPrefix(settings[i].path, prefix)
		if ok && name != "" && !strings.Contains(name, ".") {
			found = append(found, &settings[i])
		}
	}
	return found
}

// child is the key of that name, or the one that takes any name.
func (s *setting) child(name string) *setting {
	for _, c := range s.children() {
		if n := c.name(); n == name || n == "*" {
			return c
		}
	}
	return nil
}

// isSecret reports whether nothing of the text may be shown. Of a URL only the
// password is hidden, unless it is too broken to find that.
func (s *setting) isSecret(text string) bool {
	switch s.at(new(Config), new(Entry)).(type) {
	case *Secret:
		return true
	case *URL:
		return looksSecret(text)
	}
	return false
}
