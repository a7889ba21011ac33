package database

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/change"
)

// A Finder runs lookups on the primary: statements that lead from changed rows to
// the keys of cached results, and those that find the members of indexes. It is safe for
// concurrent use.
type Finder struct {
	loader           *Loader
	lookups, members []string
}

// findConnections is how many statements may run at once: two that go on beside the
// stream, one that the stream waits for, and one for an index.
const findConnections = 4

// NewFinder returns a finder that will connect as config says. Each statement takes
// text arrays of equal length and returns texts; Find and Members name it by its number.
func NewFinder(config *pgx.ConnConfig, lookups, members []string) *Finder {
	return &Finder{loader: NewLoader(config, nil, LoaderOptions{Connections: findConnections}), lookups: lookups, members: members}
}

// Expect sets the server that keys must come from; any other is
// change.ErrOriginChanged from then on.
func (f *Finder) Expect(origin change.Origin) { f.loader.Expect(origin) }

// Close ends the connections. Nothing may be running.
func (f *Finder) Close() { f.loader.Close() }

// Find runs one lookup, in a transaction of its own that begins after the call, and
// calls each for every row that it returns, as the rows arrive. A row with a NULL is
// no key. insert is a position of the log behind every commit that the lookup has
// seen. On a standby it fails. What each has been called for before an error stands:
// the rows come again with the next try.
func (f *Finder) Find(ctx context.Context, lookup int, arguments [][]*string, each func(values [][]byte) error) (insert uint64, err error) {
	return f.find(ctx, f.lookups[lookup], arguments, each)
}

// Members finds those of one set of an index, named by values, in the same way.
func (f *Finder) Members(ctx context.Context, index int, values []string, each func(member [][]byte) error) (insert uint64, err error) {
	arguments := make([][]*string, len(values))
	for i := range values {
		arguments[i] = []*string{&values[i]}
	}
	return f.find(ctx, f.members[index], arguments, each)
}

func (f *Finder) find(ctx context.Context, statement string, arguments [][]*string, each func(values [][]byte) error) (insert uint64, err error) {
	given := make([]any, len(arguments))
	for i := range arguments {
		given[i] = arguments[i]
	}
	err = f.loader.use(ctx, func(conn *loadConn) error {
		var position string
		batch := &pgx.Batch{}
		batch.Queue("SELECT set_config('statement_timeout', '0', false)")
		batch.Queue(statement, given...).Query(func(rows pgx.Rows) error {
			for rows.Next() {
				if values := rows.RawValues(); whole(values) {
					if err := each(values); err != nil {
						return err
					}
				}
			}
			return rows.Err()
		})
		// Behind the lookup, so that it is behind all that it can have seen.
		batch.Queue("SELECT pg_current_wal_insert_lsn()::text").QueryRow(func(row pgx.Row) error { return row.Scan(&position) })
		if err := conn.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
		insert, err = parseLSN([]byte(position))
		return err
	})
	if err != nil && !change.OfServer(err) {
		return 0, fmt.Errorf("look up keys: %w: %w", change.ErrUnanswerable, err)
	}
	if err != nil {
		return 0, fmt.Errorf("look up keys: %w", err)
	}
	return insert, nil
}

func whole(values [][]byte) bool {
	for _, value := range values {
		if value == nil {
			return false
		}
	}
	return true
}
