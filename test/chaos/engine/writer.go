package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// write makes one transaction after the other. Half of the writers look after each
// whether the cache has followed: the even ones have waited behind the barrier, one
// of the others has dropped the keys itself.
func (t *Traffic) write(end <-chan struct{}, random *rand.Rand, number int, invent func(*rand.Rand) *work) {
	s := &session{url: t.options.Database}
	defer s.close()
	for wait := t.options.Pause; pause(end, wait); {
		wait = t.options.Pause
		w := invent(random)
		done, err := t.commit(s, w)
		switch {
		case err != nil:
			t.lastWriteError.Store(err.Error())
			wait = retryPause
		case !done:
		case number%2 == 0:
			t.probe(s, w)
		case number == 1 && t.options.Whole:
			t.invalidate(s, w)
		}
	}
}

// A work is one transaction.
type work struct {
	locks []int // that it takes, ascending: so none waits for another in a circle
	// run carries it out, under the locks. Before anything can be seen it begins the
	// versions of what it changes, and describes them.
	run      func(ctx context.Context, tx pgx.Tx, tag int64) error
	rows     []int         // the ledgers of what it changes
	versions []int64       // of rows
	linger   time.Duration // before the end
	rollback bool
}

// A step changes one row, or two. It returns the stamp of column big in the row
// that it leaves behind, which is of version n.
type step struct {
	row, gone int // the rows that are there, and that are not there, behind it; -1 for none
	run       func(ctx context.Context, tx pgx.Tx, n int64) (big string, err error)
}

// invent thinks of a transaction: mostly an update or two, some deletions,
// insertions and moves to another key, some of it held open, some rolled back.
func (t *Traffic) invent(random *rand.Rand) *work {
	w := &work{}
	var steps []step
	if random.IntN(4) == 0 {
		w.linger = time.Duration(random.Int64N(int64(lingerMax)))
	}
	w.rollback = random.IntN(16) == 0
	count := 1
	switch random.IntN(64) {
	case 0:
		count = t.options.Rows / 2
	case 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16:
		count = 2
	}
	var rows []int
	for range count {
		row := t.families[itemRow].pick(random)
		if slices.Contains(rows, row) {
			continue
		}
		rows = append(rows, row)
		switch random.IntN(32) {
		case 0, 1, 2:
			steps = append(steps, remove(row))
		case 3:
			if to := t.families[itemRow].pick(random); !slices.Contains(rows, to) {
				rows = append(rows, to)
				steps = append(steps, move(row, to))
				continue
			}
			fallthrough
		default:
			steps = append(steps, put(row, random.IntN(4) == 0, random.IntN(4) == 0))
		}
	}
	t.inSteps(w, rows, steps)
	return w
}

// inSteps makes w a transaction that changes rows step by step.
func (t *Traffic) inSteps(w *work, rows []int, steps []step) {
	slices.Sort(rows)
	w.locks = rows
	w.run = func(ctx context.Context, tx pgx.Tx, _ int64) error {
		t.begin(w, rows)
		for _, step := range steps {
			if err := t.take(ctx, tx, w, step); err != nil {
				return err
			}
		}
		return nil
	}
}

// lingerMax is how long a transaction is held open, at most.
const lingerMax = 10 * time.Millisecond

// hotRows is how many values of a family share half of all reads and writes.
const hotRows = 8

// put inserts or updates a row; big: column big as well; draft: it writes the row
// as it will not be first. Whoever sees that sees a torn row.
func put(row int, big, draft bool) step {
	more := ""
	if big {
		more = ", big = excluded.big"
	}
	return step{row, -1, func(ctx context.Context, tx pgx.Tx, n int64) (stamped string, err error) {
		var text *string
		if row%bigEvery == 0 {
			stamped := stamp(row, n)
			text = &stamped
		}
		if draft {
			_, err := tx.Exec(ctx, `INSERT INTO items (id, version, note) VALUES ($1, $2, 'draft') ON CONFLICT (id) DO UPDATE SET version = excluded.version, note = excluded.note`, row, n)
			if err != nil {
				return "", err
			}
		}
		err = tx.QueryRow(ctx, `INSERT INTO items (id, version, note, big) VALUES ($1, $2, $2::bigint::text || repeat('x', 60), $3::text || repeat('x', 2500))
			ON CONFLICT (id) DO UPDATE SET version = excluded.version, note = excluded.note`+more+returning, row, n, text).Scan(&stamped)
		return stamped, err
	}}
}

const returning = ` RETURNING coalesce(split_part(big, 'x', 1), '')`

func remove(row int) step {
	return step{-1, row, func(ctx context.Context, tx pgx.Tx, _ int64) (string, error) {
		_, err := tx.Exec(ctx, "DELETE FROM items WHERE id = $1", row)
		return "", err
	}}
}

// move gives a row the key of another. It fails, and so does its transaction,
// where the one is not there or the other is.
func move(row, to int) step {
	return step{to, row, func(ctx context.Context, tx pgx.Tx, n int64) (big string, err error) {
		err = tx.QueryRow(ctx, "UPDATE items SET id = $2, version = $3, note = $3::bigint::text || repeat('x', 60) WHERE id = $1"+returning, row, to, n).Scan(&big)
		return big, err
	}}
}

// commit carries out w and keeps the log of it. It reports whether w was committed.
func (t *Traffic) commit(s *session, w *work) (done bool, err error) {
	tag := t.tags.Add(1)
	// A transaction is never cut short, so that none is under way after the
	// writers have ended.
	sent := false
	err = s.do(context.Background(), func(ctx context.Context, conn *pgx.Conn) error {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback(ctx) }() // nothing after a commit
		if err := lock(ctx, tx, w.locks, tag); err != nil {
			return err
		}
		if err := w.run(ctx, tx, tag); err != nil {
			return err
		}
		if w.linger > 0 {
			pause(t.ctx.Done(), w.linger)
		}
		if w.rollback {
			return nil
		}
		sent = true
		return tx.Commit(ctx)
	})
	done = sent && err == nil
	if sent && err != nil {
		if done, err = t.resolve(s, w.locks, tag); err != nil {
			return false, err // it is over: nobody will ask
		}
	}
	if w.versions == nil {
		return false, err
	}
	now := t.oracle.now()
	for i, row := range w.rows {
		if done {
			t.oracle.ledgers[row].commit(w.versions[i], now)
		} else {
			t.oracle.undone(row, w.versions[i])
		}
	}
	if done {
		t.commits.Add(1)
		for _, row := range w.rows {
			t.familyOf(row).changes.Add(1)
		}
	}
	return done, err
}

// begin begins the next version of rows, under their locks.
func (t *Traffic) begin(w *work, rows []int) {
	now := t.oracle.now()
	w.rows = rows
	for _, row := range rows {
		w.versions = append(w.versions, t.oracle.ledgers[row].begin(now))
	}
}

// lock takes locks until the end of the transaction, which PostgreSQL brings about
// only when its commit is visible, and leaves the tag of the transaction.
func lock(ctx context.Context, tx pgx.Tx, locks []int, tag int64) error {
	if _, err := tx.Exec(ctx, "INSERT INTO outcomes VALUES ($1)", tag); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, takeLocks, locks)
	return err
}

const takeLocks = "SELECT pg_advisory_xact_lock(i) FROM unnest($1::int[]) i"

// take takes one step and notes what it leaves behind.
func (t *Traffic) take(ctx context.Context, tx pgx.Tx, w *work, step step) error {
	version := func(row int) int64 { return w.versions[slices.Index(w.rows, row)] }
	if step.gone >= 0 {
		t.oracle.ledgers[step.gone].describe(version(step.gone), true, "")
	}
	n := int64(0)
	if step.row >= 0 {
		n = version(step.row)
	}
	big, err := step.run(ctx, tx, n)
	if err == nil && step.row >= 0 {
		t.oracle.ledgers[step.row].describe(n, false, big)
	}
	return err
}

// resolve finds out what became of a COMMIT that was not answered: the tag is
// there, or it is not, once the transaction has let go of its locks.
func (t *Traffic) resolve(s *session, locks []int, tag int64) (done bool, err error) {
	for {
		err := s.do(t.ctx, func(ctx context.Context, conn *pgx.Conn) error {
			if _, err := conn.Exec(ctx, takeLocks, locks); err != nil {
				return err
			}
			return conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM outcomes WHERE tag = $1)", tag).Scan(&done)
		})
		if err == nil {
			return done, nil
		}
		if !pause(t.ctx.Done(), retryPause) {
			return false, fmt.Errorf("what became of transaction %d: %w", tag, err)
		}
	}
}

// probeMax is how long a careful writer waits for the barrier before it goes on.
const probeMax = time.Second

// probe waits until the cache has followed w, and looks whether it has.
func (t *Traffic) probe(s *session, w *work) {
	era := t.oracle.era.Load()
	t.probeBehind(s, w, era, barrierClock, t.barrier)
	if t.consumer != nil {
		t.probeBehind(s, w, era, consumerClock, t.awaitConsumer)
	}
}

func (t *Traffic) probeBehind(s *session, w *work, era int64, clock int, wait func(context.Context, *session) error) {
	ctx, cancel := context.WithTimeout(t.ctx, probeMax)
	defer cancel()
	if wait(ctx, s) != nil {
		return
	}
	for _, l := range t.lanes {
		if l.clock != clock {
			continue
		}
		t.lookAt(ctx, l, w, era, func(row int, version int64, cached bool) {
			if t.oracle.gone(row, version) {
				return
			}
			l.probes.Add(1)
			if cached {
				l.kept.Add(1)
			}
		})
	}
}

// invalidate drops the keys of w where Unstale writes values, and looks whether an
// older one comes back.
func (t *Traffic) invalidate(s *session, w *work) {
	ctx, cancel := context.WithTimeout(t.ctx, probeMax)
	defer cancel()
	era := t.oracle.era.Load()
	position, err := t.position(ctx, s)
	for _, l := range t.lanes {
		// What keeps the older one away is a side key: see Evicting.
		if l.control || !l.keeps || t.oracle.evicting.Load() || err != nil {
			continue
		}
		_, keys := l.of(w)
		if err = t.client.Invalidate(ctx, position, keys...); err == nil {
			t.lookAt(ctx, l, w, era, func(int, int64, bool) {})
		}
	}
}

// of returns what of w is in a lane: places in w.rows, and keys.
func (l *lane) of(w *work) (at []int, keys []string) {
	for i, row := range w.rows {
		if l.has(row) {
			at, keys = append(at, i), append(keys, l.key(row))
		}
	}
	return at, keys
}

// lookAt looks at the keys of w in a lane that shows nothing older any more, and tells
// each of them.
func (t *Traffic) lookAt(ctx context.Context, l *lane, w *work, era int64, each func(row int, version int64, cached bool)) {
	at, keys := l.of(w)
	if len(keys) == 0 {
		return
	}
	texts, err := l.cached(ctx, t.rdb, keys)
	for n, i := range at {
		cached := err == nil && texts[n] != nil
		if cached {
			t.oracle.probed(l, w.rows[i], w.versions[i], era, texts[n])
		}
		each(w.rows[i], w.versions[i], cached)
	}
}

// Truncate empties a table, as one more writer: that of the rows, or that of the
// members.
func (t *Traffic) Truncate(ctx context.Context, members bool) error {
	s := &session{url: t.options.Database}
	defer s.close()
	w := &work{}
	if members {
		w.locks = allPlaces()
		w.run = func(ctx context.Context, tx pgx.Tx, tag int64) error {
			r := &related{Traffic: t, tx: tx, tag: tag}
			if err := r.empty(ctx); err != nil {
				return err
			}
			return r.describe(ctx, w)
		}
	} else {
		rows := numbered(0, t.options.Rows)
		var steps []step
		for _, row := range rows {
			steps = append(steps, step{-1, row, func(ctx context.Context, tx pgx.Tx, _ int64) (string, error) {
				if row > 0 {
					return "", nil // the first has emptied it
				}
				_, err := tx.Exec(ctx, "TRUNCATE items")
				return "", err
			}})
		}
		t.inSteps(w, rows, steps)
	}
	_, err := t.commit(s, w)
	return err
}
