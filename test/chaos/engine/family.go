package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// A kind says what a lane caches.
type kind int

const (
	itemRow     kind = iota // a row of items
	memberPage              // a member with its group and its region
	memberList              // the members of a group
	settingPage             // a member with a setting that is in each of them
	fanPage                 // a fan with its star, one of very many
	kinds
)

// A family has all values of one kind, of which each has a ledger: the value with
// number n that with number first+n.
type family struct {
	first, count int
	changes      atomic.Int64 // of its values
	// text is SQL: what there is of the value with number n, as text.
	text string
}

// families are laid out one behind the other: the rows, and with related the results
// of queries.
func families(rows int, related bool) (f [kinds]*family) {
	f[itemRow] = &family{count: rows, text: one("SELECT * FROM items WHERE id = @id")}
	if related {
		f[memberPage] = &family{count: memberCount, text: one(pageQuery)}
		f[memberList] = &family{count: groupCount, text: many(listQuery)}
		f[settingPage] = &family{count: memberCount, text: one(settingQuery)}
		f[fanPage] = &family{count: fansRead, text: one(fanQuery)}
	}
	for k := 1; k < len(f) && f[k] != nil; k++ {
		f[k].first = f[k-1].first + f[k-1].count
	}
	return f
}

// one is the text of a result of one row at most, many that of any number: what the
// service writes as well.
func one(query string) string {
	return `coalesce((SELECT row_to_json(r)::text FROM (` + ofNumber(query) + `) r), '` + absent + `')`
}

func many(query string) string {
	return `(SELECT '[' || coalesce(string_agg(row_to_json(r)::text, ','), '') || ']' FROM (` + ofNumber(query) + `) r)`
}

func ofNumber(query string) string { return strings.ReplaceAll(query, "@id", "n") }

// number is that of a ledger in its family.
func (f *family) number(row int) int { return row - f.first }

func (f *family) has(row int) bool { return row >= f.first && row < f.first+f.count }

// pick chooses a value: a few of them often, each of them now and then.
func (f *family) pick(random *rand.Rand) int {
	if random.IntN(2) == 0 {
		return f.first + random.IntN(min(hotRows, f.count))
	}
	return f.first + random.IntN(f.count)
}

// load reads a value, and how far the log is written: that is asked behind the
// snapshot in which the value is read, so it is no less than what the value shows.
func (f *family) load(ctx context.Context, conn *pgx.Conn, row int) (text []byte, lsn int64, err error) {
	err = conn.QueryRow(ctx, `SELECT `+f.text+`, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint FROM (VALUES ($1::int)) v(n)`, f.number(row)).Scan(&text, &lsn)
	return text, lsn, err
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, arguments ...any) (pgx.Rows, error)
}

// texts reads the values with these numbers, as they should be cached.
func (f *family) texts(ctx context.Context, conn querier, numbers []int) ([]string, error) {
	found, err := conn.Query(ctx, `SELECT `+f.text+` FROM unnest($1::int[]) WITH ORDINALITY v(n, place) ORDER BY place`, numbers)
	if err != nil {
		return nil, fmt.Errorf("read values: %w", err)
	}
	return pgx.CollectRows(found, pgx.RowTo[string])
}
