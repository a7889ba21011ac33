package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/stack"
)

// A Fault breaks something under load, and returns when it is mended as far as
// it takes a person or a supervisor to mend it.
type Fault string

// The faults.
const (
	Kill            Fault = "kill"             // kill -9 of unstale, started again at once
	Terminate       Fault = "terminate"        // SIGTERM, started again
	RedisRestart    Fault = "redis restart"    // a clean end and a start, with an append-only file
	RedisKill       Fault = "redis kill"       // kill -9 and a start, with an append-only file
	RedisFlush      Fault = "redis flush"      // FLUSHALL
	PostgresRestart Fault = "postgres restart" // a fast shutdown and a start
	PostgresCrash   Fault = "postgres crash"   // an immediate shutdown, recovery at the start
	// Freeze stops unstale without ending it, and its stream is taken from it.
	// When it wakes up, with a batch in hand perhaps, another may own the stream.
	Freeze Fault = "freeze"
)

// AllFaults has Kill several times, since it is the one that may hit anything
// at any moment.
var AllFaults = []Fault{Kill, Kill, Kill, Kill, Terminate, Freeze, Freeze, RedisRestart, RedisKill, RedisFlush, PostgresRestart, PostgresCrash}

// Options of Run.
type Options struct {
	Binary  string // of unstale
	Servers *stack.Stack
	Dir     string // for the configuration
	Seed    uint64
	// Instances of unstale on the same slot. Default 1.
	Instances int
	// Faults to choose from.
	Faults []Fault
	// Run ends after so many faults, or after this time. One of them is set.
	Count int
	For   time.Duration
	// QuietEvery is after how many faults everything is compared. Default 10.
	QuietEvery int
	// Say hears what is done. Required.
	Say func(string)
}

// A Report says what happened.
type Report struct {
	Faults map[Fault]int
	// Ready is how many of the kills hit an instance that was ready, and Early
	// how many one that was not yet.
	Ready, Early int
	Quiets       int
	Leased       Share // sums over all quiets
	Plain        Share
	Commits      int64
}

func (r *Report) String() string {
	var faults []string
	for _, f := range slices.Sorted(maps.Keys(r.Faults)) {
		faults = append(faults, fmt.Sprintf("%d %s", r.Faults[f], f))
	}
	return fmt.Sprintf("%s (%d on a ready instance, %d before that); %d commits; compared %d times\nunder a lease: %s\nplain SET, the control: %s",
		strings.Join(faults, ", "), r.Ready, r.Early, r.Commits, r.Quiets, r.Leased, r.Plain)
}

// slot is the slot's name.
const slot = "chaos"

// commitsMax bounds the random number of commits between two faults.
const commitsMax = 400

// quietAfter is how many commits a working instance sees before the load ends.
const quietAfter = 500

// recoverMax bounds every wait for something to happen.
const recoverMax = 90 * time.Second

// Run breaks things until the count or the time is reached, and compares in
// between and at the end. The error says what was wrong with the cache, or what
// hindered the run.
func Run(ctx context.Context, options Options) (*Report, error) {
	if options.QuietEvery == 0 {
		options.QuietEvery = 10
	}
	options.Instances = max(options.Instances, 1)
	r := &run{Options: options, rng: rand.New(rand.NewPCG(options.Seed, 0)), report: &Report{Faults: map[Fault]int{}}}
	if err := r.begin(ctx); err != nil {
		return r.report, err
	}
	err := r.loop(ctx)
	for _, p := range r.processes {
		p.kill()
	}
	r.traffic.Close()
	if err != nil {
		err = fmt.Errorf("seed %d: %w", options.Seed, err)
		for _, p := range r.processes {
			err = fmt.Errorf("%w\nunstale said last:\n%s", err, p.logTail())
		}
	}
	return r.report, err
}

type run struct {
	Options
	rng       *rand.Rand
	report    *Report
	postgres  *stack.Postgres
	redis     *stack.Redis
	traffic   *Traffic
	processes []*process
}

func (r *run) begin(ctx context.Context) error {
	var err error
	if r.postgres, err = r.Servers.Postgres(ctx, stack.PostgresOptions{Major: 15}); err != nil {
		return err
	}
	r.redis, err = r.Servers.Redis(ctx, stack.RedisOptions{Settings: map[string]string{"appendonly": "yes", "appendfsync": "everysec"}})
	if err != nil {
		return err
	}
	r.traffic, err = NewTraffic(ctx, TrafficOptions{
		Database: r.postgres.URL(), Redis: &redis.Options{Addr: r.redis.Addr()}, Slot: slot, Seed: r.Seed,
	})
	if err != nil {
		return err
	}
	for range r.Instances {
		p, err := r.configure()
		if err != nil {
			return err
		}
		r.processes = append(r.processes, p)
	}
	return nil
}

// configure writes the configuration of one instance.
func (r *run) configure() (*process, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := listener.Addr().String()
	listener.Close()
	config := filepath.Join(r.Dir, fmt.Sprintf("unstale-%d.yaml", len(r.processes)))
	text := fmt.Sprintf("database: %s\nredis: %s\nsource:\n  postgres: {slot: %s, publication: chaos}\nadmin: {listen: %q}\nentries:\n%s",
		r.postgres.URL(), r.redis.URL(), slot, address, Entries)
	return &process{binary: r.Binary, config: config, address: address}, os.WriteFile(config, []byte(text), 0o600)
}

// ready reports whether one of the instances is ready now.
func (r *run) ready() bool {
	return slices.ContainsFunc(r.processes, (*process).ready)
}

func (r *run) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !r.ready() {
		for _, p := range r.processes {
			if err := p.over(); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until an instance is ready: %w", ctx.Err())
		}
	}
	return nil
}

func (r *run) loop(ctx context.Context) error {
	for _, p := range r.processes {
		if err := p.start(); err != nil {
			return err
		}
	}
	began := time.Now()
	for n := 0; ; {
		r.traffic.Start()
		for {
			if r.Count > 0 && n == r.Count || r.For > 0 && time.Since(began) > r.For {
				return r.quiet(ctx)
			}
			if err := r.oneFault(ctx); err != nil {
				return err
			}
			if n++; n%r.QuietEvery == 0 && n != r.Count {
				break
			}
		}
		if err := r.quiet(ctx); err != nil {
			return err
		}
	}
}

// oneFault waits for a random moment, which is so many commits away, and breaks
// something.
func (r *run) oneFault(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, recoverMax)
	defer cancel()
	fault := r.Faults[r.rng.IntN(len(r.Faults))]
	commits := r.rng.Int64N(commitsMax)
	// In every second case the instance is let come up first: a kill must hit
	// one that works as well as one that only begins.
	settled := r.rng.IntN(2) == 0
	if settled {
		if err := r.awaitReady(ctx); err != nil {
			return err
		}
	}
	if err := r.traffic.AwaitCommits(ctx, commits); err != nil {
		return err
	}
	if r.ready() {
		r.report.Ready++
	} else {
		r.report.Early++
	}
	if err := r.inflict(ctx, fault); err != nil {
		return fmt.Errorf("%s: %w", fault, err)
	}
	r.report.Faults[fault]++
	return nil
}

func (r *run) inflict(ctx context.Context, fault Fault) error {
	p := r.processes[r.rng.IntN(len(r.processes))]
	switch fault {
	case Kill:
		p.kill()
		return p.start()
	case Terminate:
		return errors.Join(p.terminate(ctx), p.start())
	case Freeze:
		return r.freeze(ctx, p)
	case RedisRestart:
		if err := r.redis.Stop(ctx); err != nil {
			return err
		}
		return errors.Join(r.traffic.AwaitCommits(ctx, r.rng.Int64N(commitsMax)), r.redis.Start(ctx))
	case RedisKill:
		// The append-only file may lack what was written last. What had settled
		// may then be stale until that is found, which is at the next batch.
		if err := r.redis.Kill(); err != nil {
			return err
		}
		r.traffic.NewEra()
		return r.redis.Start(ctx)
	case RedisFlush:
		rdb := redis.NewClient(&redis.Options{Addr: r.redis.Addr()})
		defer rdb.Close()
		return rdb.FlushAll(ctx).Err()
	case PostgresRestart:
		return errors.Join(r.postgres.Stop(ctx), r.postgres.Start(ctx))
	case PostgresCrash:
		return errors.Join(r.postgres.StopImmediate(ctx), r.postgres.Start(ctx))
	}
	return errors.New("unknown fault")
}

func (r *run) freeze(ctx context.Context, p *process) error {
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, r.postgres.URL())
	if err == nil {
		_, err = conn.Exec(ctx, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active", slot)
		_ = conn.Close(ctx)
	}
	return errors.Join(err, r.traffic.AwaitCommits(ctx, r.rng.Int64N(commitsMax)), p.cmd.Process.Signal(syscall.SIGCONT))
}

// quiet ends the load and compares everything.
func (r *run) quiet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, recoverMax)
	defer cancel()
	if err := r.awaitReady(ctx); err != nil {
		return err
	}
	// Some time in which it works as it should, so that the load at the end is
	// that of a working cache.
	if err := r.traffic.AwaitCommits(ctx, quietAfter); err != nil {
		return err
	}
	v, err := r.traffic.Quiet(ctx)
	if err != nil {
		return err
	}
	r.report.Quiets++
	r.report.Commits = v.Commits
	add(&r.report.Leased, v.Leased)
	add(&r.report.Plain, v.Plain)
	r.Say(v.String())
	return v.Err()
}

// add takes over the counters, which run on, and adds up what was compared.
func add(sum *Share, s Share) {
	sum.Reads, sum.Hits, sum.Stale = s.Reads, s.Hits, s.Stale
	sum.Cached += s.Cached
	sum.Wrong += s.Wrong
}
