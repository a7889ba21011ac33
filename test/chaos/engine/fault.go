package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/unstale/unstale/test/proxy"
)

// A Fault breaks something under load, and returns when it is mended as far as
// it takes a person or a supervisor to mend it.
type Fault string

// The faults.
const (
	Kill            Fault = "kill"             // kill -9 of unstale, started again at once
	Terminate       Fault = "terminate"        // SIGTERM, started again
	Freeze          Fault = "freeze"           // a zombie, whose stream another may own when it wakes up
	RedisRestart    Fault = "redis-restart"    // a clean end and a start, with an append-only file
	RedisKill       Fault = "redis-kill"       // kill -9 and a start, without the last moments
	RedisFlush      Fault = "redis-flush"      // FLUSHALL
	RedisEvict      Fault = "redis-evict"      // too small for its keys, and throws some away
	RedisFull       Fault = "redis-full"       // too small, and refuses writes
	PostgresRestart Fault = "postgres-restart" // a fast shutdown and a start
	PostgresCrash   Fault = "postgres-crash"   // an immediate shutdown, recovery at the start
	Cut             Fault = "cut"              // connections of unstale break, and new ones
	HalfOpen        Fault = "half-open"        // they stay open, and what is sent is lost
	Delay           Fault = "delay"            // they are slow
	Standby         Fault = "standby"          // the synchronous standby stalls: commits are in the log and not visible
	DDL             Fault = "ddl"              // columns come and go
	Truncate        Fault = "truncate"
)

// inflict says how.
var inflict = map[Fault]func(*run, context.Context) error{
	Kill:         (*run).kill,
	Terminate:    (*run).terminate,
	Freeze:       (*run).freeze,
	RedisRestart: (*run).restartRedis,
	RedisKill:    (*run).killRedis,
	RedisFlush:   func(r *run, ctx context.Context) error { return r.rdb.FlushAll(ctx).Err() },
	RedisEvict:   (*run).evict,
	RedisFull:    (*run).fillRedis,
	PostgresRestart: func(r *run, ctx context.Context) error {
		return errors.Join(r.postgres.Stop(ctx), r.postgres.Start(ctx))
	},
	PostgresCrash: func(r *run, ctx context.Context) error {
		return errors.Join(r.postgres.StopImmediate(ctx), r.postgres.Start(ctx))
	},
	Cut: func(r *run, ctx context.Context) error {
		return r.between(ctx, func(p *proxy.Proxy) { p.Cut() }, (*proxy.Proxy).Heal)
	},
	HalfOpen: func(r *run, ctx context.Context) error {
		lose := (*proxy.Proxy).Swallow
		if r.rng.IntN(2) == 0 {
			lose = (*proxy.Proxy).Deafen
		}
		return r.between(ctx, lose, (*proxy.Proxy).Heal)
	},
	Delay: func(r *run, ctx context.Context) error {
		by := time.Duration(1+r.rng.IntN(30)) * time.Millisecond
		return r.between(ctx, func(p *proxy.Proxy) { p.Slow(by) }, func(p *proxy.Proxy) { p.Slow(0) })
	},
	Standby:  (*run).stall,
	DDL:      (*run).reshape,
	Truncate: (*run).truncate,
}

// AllFaults has every fault once, and those again that may hit anything at any
// moment.
func AllFaults() []Fault {
	all := []Fault{Kill, Kill, Freeze, HalfOpen}
	for fault := range inflict {
		all = append(all, fault)
	}
	slices.Sort(all) // a seed deals them the same each time
	return all
}

// ParseFaults reads names with commas between; "none" are none, "" are all.
func ParseFaults(text string) (faults []Fault, err error) {
	switch text {
	case "":
		return AllFaults(), nil
	case "none":
		return nil, nil
	}
	for name := range strings.SplitSeq(text, ",") {
		fault := Fault(strings.TrimSpace(name))
		if inflict[fault] == nil {
			known := slices.Compact(AllFaults())
			return nil, fmt.Errorf("no fault %q: there are %s", name, strings.Trim(fmt.Sprint(known), "[]"))
		}
		faults = append(faults, fault)
	}
	return faults, nil
}

// aWhile lasts a random number of commits.
func (r *run) aWhile(ctx context.Context) error {
	return r.traffic.AwaitCommits(ctx, r.rng.Int64N(commitsMax))
}

func (r *run) anyProcess() *process { return r.processes[r.rng.IntN(len(r.processes))] }

func (r *run) kill(context.Context) error {
	p := r.anyProcess()
	p.kill()
	return p.start()
}

func (r *run) terminate(ctx context.Context) error {
	p := r.anyProcess()
	return errors.Join(p.terminate(ctx), p.start())
}

// freeze stops unstale without ending it. Most often its stream is taken from it
// meanwhile: when it wakes up, with a batch in hand perhaps, another owns it.
func (r *run) freeze(ctx context.Context) error {
	p := r.anyProcess()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	var err error
	if r.rng.IntN(3) > 0 {
		err = r.execute(ctx, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active", slot)
	}
	return errors.Join(err, r.aWhile(ctx), p.cmd.Process.Signal(syscall.SIGCONT))
}

func (r *run) execute(ctx context.Context, statement string, arguments ...any) error {
	conn, err := pgx.Connect(ctx, r.postgres.URL())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, statement, arguments...)
	return err
}

func (r *run) restartRedis(ctx context.Context) error {
	if err := r.redis.Stop(ctx); err != nil {
		return err
	}
	return errors.Join(r.aWhile(ctx), r.redis.Start(ctx))
}

// lostMax is what an append-only file that is synced every second may lack.
const lostMax = time.Second

// killRedis ends Redis as a power cut would: what was written in the last second
// may be missing from the file. What had settled may then be stale until that is
// found, which is at the next batch.
func (r *run) killRedis(ctx context.Context) error {
	began := time.Now()
	file, size := r.appendOnlyFile()
	if err := r.traffic.AwaitCommits(ctx, 1+r.rng.Int64N(100)); err != nil {
		return err
	}
	if err := r.redis.Kill(); err != nil {
		return err
	}
	r.traffic.NewEra()
	if again, now := r.appendOnlyFile(); again == file && now > size && time.Since(began) < lostMax {
		if err := os.Truncate(file, size+r.rng.Int64N(now-size)); err != nil {
			return err
		}
	}
	return r.redis.Start(ctx)
}

// appendOnlyFile is the file that Redis appends to, and its size.
func (r *run) appendOnlyFile() (path string, size int64) {
	files, _ := filepath.Glob(filepath.Join(r.redis.Dir(), "data", "appendonlydir", "*.incr.aof"))
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && (path == "" || len(file) > len(path) || len(file) == len(path) && file > path) {
			path, size = file, info.Size()
		}
	}
	return path, size
}

// evict makes Redis throw keys away for a while: values, leases, the shields of
// the protocol and its watermark.
func (r *run) evict(ctx context.Context) error {
	r.traffic.Evicting()
	policy := []string{"allkeys-lru", "allkeys-random", "volatile-ttl"}[r.rng.IntN(3)]
	err := r.rdb.ConfigSet(ctx, "maxmemory-policy", policy).Err()
	gone, errInfo := r.memory(ctx, "stats", "evicted_keys")
	err = errors.Join(err, errInfo)
	for pinch := int64(16 << 10); err == nil; pinch *= 2 {
		var used, now int64
		if used, err = r.memory(ctx, "memory", "used_memory"); err != nil {
			break
		}
		if err = r.rdb.ConfigSet(ctx, "maxmemory", strconv.FormatInt(max(1, used-pinch), 10)).Err(); err != nil {
			break
		}
		if err = r.traffic.AwaitCommits(ctx, 20); err != nil {
			break
		}
		if now, err = r.memory(ctx, "stats", "evicted_keys"); now > gone || pinch > used {
			break
		}
	}
	if err == nil {
		err = r.aWhile(ctx)
	}
	return errors.Join(err, r.rdb.ConfigSet(ctx, "maxmemory", "0").Err(), r.traffic.Evicted(ctx))
}

// memory reads one number of INFO.
func (r *run) memory(ctx context.Context, section, name string) (int64, error) {
	info, err := r.rdb.Info(ctx, section).Result()
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(info, name+":")
	number, _, _ := strings.Cut(after, "\r\n")
	return strconv.ParseInt(number, 10, 64)
}

func (r *run) fillRedis(ctx context.Context) error {
	return errors.Join(
		r.rdb.ConfigSet(ctx, "maxmemory-policy", "noeviction").Err(),
		r.rdb.ConfigSet(ctx, "maxmemory", "1").Err(),
		r.aWhile(ctx),
		r.rdb.ConfigSet(ctx, "maxmemory", "0").Err())
}

// between does something to one instance's way to PostgreSQL, to Redis, or to
// both, and mends it a while later.
func (r *run) between(ctx context.Context, hurt, mend func(*proxy.Proxy)) error {
	p := r.anyProcess()
	ways := [][]*proxy.Proxy{{p.database}, {p.redis}, {p.database, p.redis}}[r.rng.IntN(3)]
	for _, way := range ways {
		hurt(way)
	}
	err := r.aWhile(ctx)
	for _, way := range ways {
		mend(way)
	}
	return err
}

// stallMax is for how long the standby says nothing.
const stallMax = time.Second

func (r *run) stall(ctx context.Context) error {
	s := r.traffic.standby
	if s == nil {
		return errors.New("there is no standby in this load")
	}
	s.stalled.Store(true)
	pause(ctx.Done(), time.Duration(r.rng.Int64N(int64(stallMax))))
	s.stalled.Store(false)
	return nil
}

// columnsMax bounds how many columns reshape adds.
const columnsMax = 3

// lockTimeout: a statement that waits for the table holds up everybody.
const lockTimeout = "SET lock_timeout = '500ms'; "

// reshape adds a column to a table, or drops it, while rows are written.
func (r *run) reshape(ctx context.Context) error {
	table := "items"
	if r.Whole && r.rng.IntN(3) == 0 {
		table = []string{"members", "groups", "fans"}[r.rng.IntN(3)]
	}
	added := r.added[table]
	var statement string
	switch {
	case added == columnsMax || added > 0 && r.rng.IntN(2) == 0:
		statement = fmt.Sprintf("ALTER TABLE %s DROP COLUMN extra%d", table, added)
		r.added[table]--
	default:
		r.added[table]++
		statement = fmt.Sprintf("ALTER TABLE %s ADD COLUMN extra%d int DEFAULT %d", table, added+1, r.rng.IntN(1000))
	}
	defer func() { r.reshaped = time.Now() }()
	for {
		err := r.execute(ctx, lockTimeout+statement)
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "55P03" { // lock_not_available
			return err
		}
	}
}

func (r *run) truncate(ctx context.Context) error {
	return r.traffic.Truncate(ctx, r.Whole && r.rng.IntN(2) == 0)
}
