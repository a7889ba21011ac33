package database

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/query"
)

// LoadConnections is the default of LoaderOptions.
const LoadConnections = 2

// LoadBytesMax bounds the values that one load answers with, so that of one row
// too. The log gives as much of a row.
const LoadBytesMax = 8 << 20

const (
	loadConnectTimeout = 5 * time.Second
	// loadAnswer is what is left of a load's time for the answer to arrive: the
	// server ends a statement earlier than we give up, and says so.
	loadAnswer = 20 * time.Millisecond
	// loadTimeout is that of a statement whose caller gives none.
	loadTimeout = time.Minute
)

// A Load says what the values of an entry are.
type Load struct {
	Table   Name
	Key     []string // columns, in the order of the key's placeholders
	Columns []string // of the value; nil: all
	Hash    bool     // the fields of the row; else one text, the row as JSON
	// Query, if not empty, is what is loaded in place of rows of a table: a SELECT that
	// has AskedFor(i) where the value of the i-th placeholder belongs. Its value is the
	// row as JSON, or, where there may be Many, an array of them. Absent: that there is no
	// row is the value null.
	Query  string
	Many   bool
	Absent bool
	// Keys is how the keys of Query are walked.
	Keys query.Keys
}

func (l *Load) what() string {
	if l.Query != "" {
		return "results of a query"
	}
	return "rows of " + l.Table.String()
}

// AskedFor is what stands in a Load's query for the text of a placeholder, counted from
// 0, as a value of a type.
func AskedFor(placeholder int, of string) string {
	return fmt.Sprintf("(unstale_asked.k%d::%s)", placeholder+1, of)
}

// LoaderOptions of a Loader. Zero values mean the defaults.
type LoaderOptions struct {
	// Connections is how many statements may run at once.
	Connections int
}

// A Loader reads rows of the primary by their keys, as the cache holds them. Each
// of its statements is a transaction of its own and only reads, so what it sees
// is what was committed before it began. It is safe for concurrent use.
type Loader struct {
	config *pgx.ConnConfig
	loads  []Load
	// free has the connections that nobody uses; nil is one to be made.
	free chan *loadConn

	mu       sync.Mutex
	expected *change.Origin
}

// An Unloadable is what is wrong with rows or their table, and not with the
// server: another try ends the same. It has the SQLSTATE that the server would
// say it with.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
type Unloadable struct{ state, text string }

// The states of an Unloadable.
const (
	cardinalityViolation = "21000"
	undefinedColumn      = "42703"
	programLimitExceeded = "54000"
)

func (u *Unloadable) Error() string { return u.text }

// SQLState is that of the class of error.
func (u *Unloadable) SQLState() string { return u.state }

// loadConn is one connection, and what it has prepared.
type loadConn struct {
	*pgx.Conn
	origin     change.Origin
	statements []*loadStatements // for each load; nil: not yet
	ofQuery    bool              // it plans as results of queries want it
}

type loadStatements struct {
	load, first, next string
	// order has, for each column of the walk, its place among the key's.
	order []int
}

// byIndex are the settings of statements that are for an index on the key: a plan for
// any array of keys, not for this very one, and no reading and sorting of the whole
// table because the index looks scattered.
var byIndex = map[string]string{
	"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_sort": "off", "jit": "off",
}

// FixTexts makes what a value looks like as text independent of how a role or database
// is set up: these are the settings of the stream.
func FixTexts(config *pgx.ConnConfig) {
	setParams(config, textSettings)
}

var textSettings = map[string]string{
	"timezone": "UTC", "datestyle": "ISO", "intervalstyle": "postgres", "bytea_output": "hex", "extra_float_digits": "1",
}

// setParams sets run-time parameters, whatever the spelling of those that the
// configuration has already: ?TimeZone= in an address would go to the server as well, and
// which of the two counts is chance.
func setParams(config *pgx.ConnConfig, params map[string]string) {
	for name := range config.RuntimeParams {
		if _, ours := params[strings.ToLower(name)]; ours {
			delete(config.RuntimeParams, name)
		}
	}
	maps.Copy(config.RuntimeParams, params)
}

// NewLoader returns a loader that will connect as config says. Its methods name
// a load by its number.
func NewLoader(config *pgx.ConnConfig, loads []Load, options LoaderOptions) *Loader {
	if options.Connections <= 0 {
		options.Connections = LoadConnections
	}
	config = config.Copy()
	FixTexts(config)
	setParams(config, map[string]string{
		"default_transaction_read_only": "on",
		// A table that somebody alters is waited for, not given up: this error
		// speaks of the server's state, that of a statement's time does not.
		"lock_timeout": "1s",
	})
	setParams(config, byIndex)
	l := &Loader{config: config, loads: loads, free: make(chan *loadConn, options.Connections)}
	for range options.Connections {
		l.free <- nil
	}
	return l
}

// Expect sets the server that rows must come from; any other is
// change.ErrOriginChanged from then on.
func (l *Loader) Expect(origin change.Origin) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expected = &origin
}

// Close ends the connections. Nothing may be running.
func (l *Loader) Close() {
	for range cap(l.free) {
		if conn := <-l.free; conn != nil {
			conn.close()
		}
		l.free <- nil
	}
}

func (c *loadConn) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // it holds nothing
}

// Load reads the rows that have these key values, in one statement that begins
// after the call. values has, for each key, the row as JSON, or its fields, name
// and value by turns and without those that are NULL; nothing where there is no
// such row. insert is a position of the log behind every commit that values
// show. On a standby it fails; where several rows have one key, or the values are
// longer than LoadBytesMax, it is an Unloadable.
func (l *Loader) Load(ctx context.Context, number int, keys [][]string) (values [][]string, insert uint64, err error) {
	load := &l.loads[number]
	arguments := make([]any, len(load.Key))
	for i := range load.Key {
		column := make([]string, len(keys))
		for k, key := range keys {
			column[k] = key[i]
		}
		arguments[i] = column
	}
	var unloadable *Unloadable // the connection is right nevertheless
	err = l.use(ctx, func(conn *loadConn) error {
		s, err := conn.prepare(ctx, load, number)
		if err != nil {
			return err
		}
		values, unloadable = make([][]string, len(keys)), nil
		var position string
		batch := &pgx.Batch{}
		conn.queueSettings(ctx, batch, load.Query != "")
		batch.Queue(s.load, arguments...).Query(func(rows pgx.Rows) error {
			var n int
			var value []string // nil: beyond the limit
			_, err := pgx.ForEachRow(rows, []any{&n, &value}, func() error {
				if values[n-1] != nil {
					unloadable = &Unloadable{cardinalityViolation, fmt.Sprintf("several rows have the same %s: make that unique again by an index, or use on_change: invalidate", strings.Join(load.Key, ", "))}
				}
				if value == nil {
					unloadable = &Unloadable{programLimitExceeded, fmt.Sprintf("longer than %d bytes: narrow the entry by columns, or use on_change: invalidate", LoadBytesMax)}
				}
				values[n-1] = value
				return nil
			})
			return err
		})
		// A standby refuses this. On the primary it is read behind the load, so
		// it is behind all that the load can have seen.
		batch.Queue("SELECT pg_current_wal_insert_lsn()::text").QueryRow(func(row pgx.Row) error { return row.Scan(&position) })
		if err := conn.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		conn.ofQuery = load.Query != ""
		insert, err = parseLSN([]byte(position))
		return err
	})
	if err == nil && unloadable != nil {
		err = unloadable
	}
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == cardinalityViolation && load.Query != "" && !load.Many {
		// PostgreSQL speaks of the subquery that loadQuery makes of the query; or of one in it.
		err = &Unloadable{cardinalityViolation, "the query has several rows for one key, and the entry rows: one: write rows: many, or LIMIT 1 in the query; or a subquery in it has several where one is wanted"}
	}
	if err != nil {
		return nil, 0, fmt.Errorf("load %d %s: %w", len(keys), load.what(), err)
	}
	return values, insert, nil
}

// Next walks the keys of a table in the order of their index, or those of a query in
// that of their values: it returns those of at most limit rows behind the key after, or
// the first if that is nil. Rows with a NULL in the key have none.
func (l *Loader) Next(ctx context.Context, number int, after []string, limit int) (keys [][]string, err error) {
	load := &l.loads[number]
	if len(load.Key) == 0 { // there is one key
		if after == nil {
			keys = [][]string{{}}
		}
		return keys, nil
	}
	err = l.use(ctx, func(conn *loadConn) error {
		s, err := conn.prepare(ctx, load, number)
		if err != nil {
			return err
		}
		keys = nil
		statement, arguments := s.first, []any{limit}
		if after != nil {
			statement = s.next
			for _, i := range s.order {
				arguments = append(arguments, after[i])
			}
		}
		batch := &pgx.Batch{}
		conn.queueSettings(ctx, batch, false)
		batch.Queue(statement, arguments...).Query(func(rows pgx.Rows) (err error) {
			keys, err = pgx.CollectRows(rows, pgx.RowTo[[]string])
			return err
		})
		if err := conn.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		conn.ofQuery = false
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("walk the keys of %s: %w", load.what(), err)
	}
	return keys, nil
}

// queueSettings sets how long the statement behind it may run, and how it is planned.
func (c *loadConn) queueSettings(ctx context.Context, batch *pgx.Batch, ofQuery bool) {
	batch.Queue("SELECT set_config('statement_timeout', $1, false)", serverTimeout(ctx))
	if c.ofQuery != ofQuery {
		batch.Queue(planningStatement, onOff(ofQuery), planCacheMode(ofQuery))
	}
}

// serverTimeout is the statement_timeout, in milliseconds, of who gives up when
// ctx ends.
func serverTimeout(ctx context.Context) string {
	left := loadTimeout
	if deadline, ok := ctx.Deadline(); ok {
		left = max(time.Until(deadline)-loadAnswer, time.Millisecond)
	}
	return strconv.FormatInt(left.Milliseconds(), 10)
}

// Estimate is how many rows the planner expects the table to have, or how many keys the
// query.
func (l *Loader) Estimate(ctx context.Context, number int) (rows int64, err error) {
	var plans []struct {
		Plan struct {
			Rows int64 `json:"Plan Rows"`
		}
	}
	load := &l.loads[number]
	if len(load.Key) == 0 {
		return 1, nil
	}
	all := load.Keys.All
	if load.Query == "" {
		all = "SELECT FROM " + load.Table.SQL()
	}
	err = l.use(ctx, func(conn *loadConn) error {
		return conn.QueryRow(ctx, "EXPLAIN (FORMAT JSON) "+all).Scan(&plans)
	})
	if err != nil {
		return 0, fmt.Errorf("estimate how many %s there are: %w", load.what(), err)
	}
	return plans[0].Plan.Rows, nil
}

// use runs do on a connection. If it may be the connection that is wrong, the next
// one is new, so that it reads the catalog again and its server is looked at.
func (l *Loader) use(ctx context.Context, do func(*loadConn) error) error {
	var conn *loadConn
	select {
	case <-ctx.Done():
		return ctx.Err()
	case conn = <-l.free:
	}
	defer func() { l.free <- conn }()
	kept := conn != nil
	err := l.attempt(ctx, &conn, do)
	if err != nil && kept && ctx.Err() == nil && !keeps(err) {
		// One that has been idle may be dead without anybody having said so, lead to
		// the server of an earlier attachment, or have statements for a table that
		// was altered since.
		err = l.attempt(ctx, &conn, do)
	}
	return err
}

// keeps reports that the connection, and what it has prepared, are right after err:
// the server has refused a statement for what it met in rows, or for its time.
// 0A000 (a plan for a row of another type) and class 42 (columns, types, rights)
// may be said of what was prepared for a table that was altered since.
func keeps(err error) bool {
	if _, ok := errors.AsType[*Unloadable](err); ok {
		return true
	}
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return ok && refused.SeverityUnlocalized == "ERROR" && !strings.HasPrefix(refused.Code, "0A") && !strings.HasPrefix(refused.Code, "42")
}

func (l *Loader) attempt(ctx context.Context, conn **loadConn, do func(*loadConn) error) (err error) {
	defer func() {
		if err != nil && *conn != nil && (!keeps(err) || (*conn).IsClosed()) {
			(*conn).close()
			*conn = nil
		}
	}()
	if *conn == nil {
		if *conn, err = l.connect(ctx); err != nil {
			return err
		}
	}
	l.mu.Lock()
	expected := l.expected
	l.mu.Unlock()
	if expected != nil {
		if err := differs((*conn).origin, *expected); err != nil {
			return err
		}
	}
	return do(*conn)
}

// prepare returns the statements of a load, for its table as it was when the
// connection asked first.
func (c *loadConn) prepare(ctx context.Context, load *Load, number int) (s *loadStatements, err error) {
	if c.statements[number] == nil {
		c.statements[number], err = prepareLoad(ctx, c.Conn, load)
	}
	return c.statements[number], err
}

func (l *Loader) connect(ctx context.Context) (*loadConn, error) {
	ctx, cancel := context.WithTimeout(ctx, loadConnectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, l.config)
	if err != nil {
		return nil, err
	}
	// A connection leads to one run of one server for as long as it lasts.
	id, err := readIdentity(ctx, conn.PgConn())
	if err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return &loadConn{Conn: conn, origin: id.Origin, statements: make([]*loadStatements, len(l.loads))}, nil
}

// loadCatalog lists the columns in attnum order with their types, as this
// session would write them, and the columns of each unique index.
const loadCatalog = `
SELECT array_agg(a.attname::text ORDER BY a.attnum), array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum),
       (SELECT coalesce(json_agg((SELECT json_agg(c.attname ORDER BY k.place)
                                  FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
                                  JOIN pg_attribute c ON c.attrelid = i.indrelid AND c.attnum = k.number
                                  WHERE k.place <= i.indnkeyatts) ORDER BY i.indisprimary DESC, i.indexrelid), '[]')
        FROM pg_index i WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL)
FROM pg_attribute a WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped`

// prepareLoad writes the statements of a load for the table as it is now.
func prepareLoad(ctx context.Context, conn *pgx.Conn, load *Load) (*loadStatements, error) {
	if load.Query != "" {
		s := &loadStatements{load: loadQuery(load), first: load.Keys.First, next: load.Keys.Next}
		for i := range load.Key {
			s.order = append(s.order, i)
		}
		return s, nil
	}
	var columns, types []string
	var indexes [][]string
	if err := conn.QueryRow(ctx, loadCatalog, load.Table.SQL()).Scan(&columns, &types, &indexes); err != nil {
		return nil, fmt.Errorf("look at the columns: %w", err)
	}
	typeOf := map[string]string{}
	for i, column := range columns {
		typeOf[column] = types[i]
	}
	for _, column := range slices.Concat(load.Key, load.Columns) {
		if typeOf[column] == "" {
			return nil, &Unloadable{undefinedColumn, fmt.Sprintf("%s has no column %s: add it, or correct the entry", load.Table, column)}
		}
	}

	// The walk follows an index, which may have the columns in another order.
	order := load.Key
	for _, index := range indexes {
		if len(index) == len(load.Key) && !slices.ContainsFunc(load.Key, func(c string) bool { return !slices.Contains(index, c) }) {
			order = index
			break
		}
	}
	// A name that is no column's, since that would be meant instead of the row.
	t := "t"
	for typeOf[t] != "" || typeOf[t+"_"] != "" {
		t += "t"
	}
	s := &loadStatements{}
	var arrays, asked, matches, sorted, notNull, after []string
	for i, column := range load.Key {
		name, given := t+"."+quote(column), fmt.Sprintf("asked.k%d", i+1)
		arrays = append(arrays, fmt.Sprintf("$%d::text[]", i+1))
		asked = append(asked, fmt.Sprintf("k%d", i+1))
		// Equal is not the same: 'A' = 'a' in citext and in some collations, and
		// the key is of one of them. format() writes a value as the log does, which
		// a cast to text does not for all types.
		matches = append(matches, fmt.Sprintf(`%s = %s::%s AND format('%%s', %s) = %s COLLATE "C"`, name, given, typeOf[column], name, given))
	}
	for i, column := range order {
		sorted = append(sorted, t+"."+quote(column))
		notNull = append(notNull, t+"."+quote(column)+" IS NOT NULL")
		after = append(after, fmt.Sprintf("$%d::text::%s", i+2, typeOf[column]))
		s.order = append(s.order, slices.Index(load.Key, column))
	}
	keys := make([]string, len(load.Key))
	for i, column := range load.Key {
		keys[i] = fmt.Sprintf("format('%%s', %s.%s)", t, quote(column))
	}

	row := "row_to_json(" + t + ")"
	if load.Columns != nil {
		var narrowed []string
		for _, column := range columns {
			if slices.Contains(load.Columns, column) {
				narrowed = append(narrowed, t+"."+quote(column))
			}
		}
		row = fmt.Sprintf("row_to_json((SELECT %s FROM (SELECT %s) %s))", t+"_", strings.Join(narrowed, ", "), t+"_")
	}
	value := "ARRAY[" + row + "::text]"
	if load.Hash {
		value = fmt.Sprintf("ARRAY(SELECT unnest(ARRAY[e.key, e.value]) FROM json_each_text(%s) e WHERE e.value IS NOT NULL)", row)
	}

	s.load = limited(fmt.Sprintf("SELECT asked.n::int AS n, %s AS value FROM unnest(%s) WITH ORDINALITY AS asked(%s, n) JOIN %s %s ON %s",
		value, strings.Join(arrays, ", "), strings.Join(asked, ", "), load.Table.SQL(), t, strings.Join(matches, " AND ")))
	walk := func(condition string) string {
		return fmt.Sprintf("SELECT ARRAY[%s] FROM %s %s WHERE %s%s ORDER BY %s LIMIT $1",
			strings.Join(keys, ", "), load.Table.SQL(), t, strings.Join(notNull, " AND "), condition, strings.Join(sorted, ", "))
	}
	s.first = walk("")
	s.next = walk(fmt.Sprintf(" AND (%s) > (%s)", strings.Join(sorted, ", "), strings.Join(after, ", ")))
	return s, nil
}

// limited has the values of a load, numbered, while all up to them are within the
// limit: a long one must not even reach us. A value is made once.
func limited(values string) string {
	return fmt.Sprintf("SELECT n, CASE WHEN sum(octet_length(array_to_string(value, ''))) OVER (ROWS UNBOUNDED PRECEDING) <= %d THEN value END"+
		" FROM (%s OFFSET 0) loaded", LoadBytesMax, values)
}

// loadQuery writes the statement of a load of query results.
func loadQuery(load *Load) string {
	value := "row_to_json(unstale_row)::text"
	if load.Many {
		value = "'[' || coalesce(string_agg(" + value + ", ','), '') || ']'"
	}
	var arrays, asked []string
	for i := range load.Key {
		arrays, asked = append(arrays, fmt.Sprintf("$%d::text[]", i+1)), append(asked, fmt.Sprintf("k%d", i+1))
	}
	from := "(SELECT 1 AS n) AS unstale_asked" // a key without placeholders
	if len(load.Key) > 0 {
		from = fmt.Sprintf("unnest(%s) WITH ORDINALITY AS unstale_asked(%s, n)", strings.Join(arrays, ", "), strings.Join(asked, ", "))
	}
	absent := "NULL" // no value
	if load.Absent {
		absent = "'null'"
	}
	// In a scalar subquery two rows are an error, and a query's own order holds.
	return limited(fmt.Sprintf("SELECT n::int AS n, ARRAY[value] AS value FROM (SELECT unstale_asked.n, coalesce((SELECT %s FROM (\n%s\n) AS unstale_row), %s) AS value FROM %s) AS valued WHERE value IS NOT NULL",
		value, load.Query, absent, from))
}

// planningStatement has statements planned for the keys at hand, or for any array of
// them and by index alone: see NewLoader.
const planningStatement = `SELECT set_config('enable_seqscan', $1, false), set_config('enable_sort', $1, false), set_config('plan_cache_mode', $2, false)`

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func planCacheMode(query bool) string {
	if query {
		return "auto"
	}
	return "force_generic_plan"
}
