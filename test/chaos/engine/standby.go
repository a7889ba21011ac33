package engine

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// A standby stands for the synchronous standby that many primaries have: it
// takes the log, and says so a moment later, as from another city. A commit
// is in the log before, and visible only after: the time between is what the
// gate is about. It comes and goes, since other primaries have none.
//
// Nothing of this is a trick: synchronous_commit is on in every session, and the
// server does what it does with any standby.
type standby struct {
	url     string
	stalled atomic.Bool // it takes the log, and says nothing
}

const standbyName = "standby"

// standbyDistance is how late it answers, at most.
const standbyDistance = 8 * time.Millisecond

// run follows the log until ctx ends, with a new connection whenever one breaks.
func (s *standby) run(ctx context.Context) {
	for pause(ctx.Done(), retryPause) {
		_ = s.attempt(ctx) // the server may be away
	}
}

func (s *standby) attempt(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return err
	}
	var start string
	err = conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()").Scan(&start)
	_ = conn.Close(ctx)
	if err != nil {
		return err
	}
	f, err := follow(ctx, s.url, "true", standbyName, "START_REPLICATION PHYSICAL "+start)
	if err != nil {
		return err
	}
	defer f.close()
	defer context.AfterFunc(ctx, f.close)()
	// What has come is confirmed by the next tick, all at once.
	var received atomic.Uint64
	done := make(chan struct{})
	defer close(done)
	go func() {
		for told := uint64(0); pause(done, 1+rand.N(standbyDistance)); {
			if now := received.Load(); now != told && !s.stalled.Load() {
				if f.confirm(now) != nil {
					return // next fails as well
				}
				told = now
			}
		}
	}()
	for {
		kind, lsn, data, err := f.next()
		if err != nil {
			return err
		}
		if kind == 'w' {
			received.Store(lsn + uint64(len(data)))
		}
	}
}

// standbyStays is how long the standby is asked for, or not, at most.
const standbyStays = 3 * time.Second

// weather lets the primary wait for the standby, and not, by turns.
func (s *standby) weather(ctx context.Context, random *rand.Rand) {
	session := &session{url: s.url}
	defer session.close()
	for names := standbyName; pause(ctx.Done(), time.Duration(random.Int64N(int64(standbyStays)))); {
		if s.require(ctx, session, names) != nil {
			continue // the server is away
		}
		if names == "" {
			names = standbyName
		} else {
			names = ""
		}
	}
}

func (s *standby) require(ctx context.Context, session *session, names string) error {
	return session.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'"); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, "SELECT pg_reload_conf()")
		return err
	})
}
