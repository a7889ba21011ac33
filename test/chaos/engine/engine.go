package engine

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/unstale/unstale/internal/stack"
	"github.com/unstale/unstale/test/proxy"
)

// Options of Run.
type Options struct {
	Binary  string // of unstale
	Servers *stack.Stack
	Dir     string // for the configuration
	Seed    uint64
	// Instances of unstale on the same slot. Default 1.
	Instances int
	// Faults to deal, each as often as it is there.
	Faults []Fault
	// Run ends after so many faults, or after this time. One of them is set.
	Count int
	For   time.Duration
	// QuietEvery is after how many faults everything is compared. Default 10.
	QuietEvery int
	// Whole runs every mode and every control.
	Whole bool
	// Say hears what is done. Required.
	Say func(string)
}

// A Report says what happened.
type Report struct {
	Verdict
	Faults map[Fault]int
	// Ready is how many of the faults hit an instance that was ready, and Early
	// how many one that was not yet.
	Ready, Early int
	Quiets       int
	Took         time.Duration
}

// Proof says why the run proves nothing; nil: it does.
func (r *Report) Proof() error { return r.proof(len(r.Faults) == 0) }

func (r *Report) String() string {
	var faults []string
	for _, f := range slices.Sorted(maps.Keys(r.Faults)) {
		faults = append(faults, fmt.Sprintf("%d %s", r.Faults[f], f))
	}
	return fmt.Sprintf("%s: %d on a ready instance, %d before that; compared %d times in %s\n%s",
		strings.Join(faults, ", "), r.Ready, r.Early, r.Quiets, r.Took.Round(time.Second), r.Verdict)
}

// slot is the slot's name.
const slot = "chaos"

const (
	// commitsMax bounds the random number of commits between two faults.
	commitsMax = 400
	// quietAfter is how many commits a working instance sees before the load ends.
	quietAfter = 300
	// recoverMax bounds every wait for something to happen.
	recoverMax = 90 * time.Second
)

// Run breaks things until the count or the time is reached, and compares in
// between and at the end. The error says what was wrong with the cache, or what
// hindered the run.
func Run(ctx context.Context, options Options) (*Report, error) {
	if options.QuietEvery == 0 {
		options.QuietEvery = 10
	}
	options.Instances = max(options.Instances, 1)
	r := &run{Options: options, rng: rand.New(rand.NewPCG(options.Seed, 0)), report: &Report{Faults: map[Fault]int{}}, added: map[string]int{}}
	defer r.end()
	began := time.Now()
	err := r.begin(ctx)
	if err == nil {
		err = r.loop(ctx)
	}
	r.report.Took = time.Since(began)
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
	rdb       *redis.Client // the nemesis' own
	traffic   *Traffic
	processes []*process
	deck      []Fault        // not dealt yet
	added     map[string]int // columns, by table
	reshaped  time.Time
}

func (r *run) begin(ctx context.Context) error {
	var err error
	if r.postgres, err = r.Servers.Postgres(ctx, stack.PostgresOptions{Major: 15, Settings: map[string]string{"max_connections": "300"}}); err != nil {
		return err
	}
	r.redis, err = r.Servers.Redis(ctx, stack.RedisOptions{Settings: map[string]string{
		"appendonly": "yes", "appendfsync": "everysec", "notify-keyspace-events": "Eg",
	}})
	if err != nil {
		return err
	}
	r.rdb = redis.NewClient(&redis.Options{Addr: r.redis.Addr()})
	load := TrafficOptions{Database: r.postgres.URL(), Redis: &redis.Options{Addr: r.redis.Addr()}, Slot: slot, Seed: r.Seed}
	if r.Whole {
		load.Whole, load.Writers, load.ReadPause = true, 6, 5*time.Millisecond
	}
	if r.traffic, err = NewTraffic(ctx, load); err != nil {
		return err
	}
	for range r.Instances {
		p, err := r.newProcess()
		if err != nil {
			return err
		}
		r.processes = append(r.processes, p)
	}
	return nil
}

func (r *run) end() {
	for _, p := range r.processes {
		p.kill()
		p.database.Close()
		p.redis.Close()
	}
	if r.traffic != nil {
		r.traffic.Close()
	}
	if r.rdb != nil {
		_ = r.rdb.Close()
	}
}

// newProcess writes the configuration of one instance, which reaches its servers
// by ways of its own.
func (r *run) newProcess() (*process, error) {
	database, err := proxy.New(r.postgres.Addr())
	if err != nil {
		return nil, err
	}
	cache, err := proxy.New(r.redis.Addr())
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := listener.Addr().String()
	listener.Close()
	config := filepath.Join(r.Dir, fmt.Sprintf("unstale-%d.yaml", len(r.processes)))
	text := fmt.Sprintf(`database: %s
redis: {url: "redis://%s", dial_timeout: 500ms, read_timeout: 500ms, write_timeout: 500ms}
source:
  postgres: {slot: %s, publication: chaos}
admin: {listen: %q}
entries:
%s`, strings.Replace(r.postgres.URL(), r.postgres.Addr(), database.Addr(), 1), cache.Addr(), slot, address, entries(r.traffic.lanes))
	return &process{binary: r.Binary, config: config, address: address, database: database, redis: cache}, os.WriteFile(config, []byte(text), 0o600)
}

// ready reports whether one of the instances keeps the cache now.
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

// deal takes the next fault from a shuffled deck of all of them.
func (r *run) deal() Fault {
	if len(r.deck) == 0 {
		r.deck = slices.Clone(r.Options.Faults)
		r.rng.Shuffle(len(r.deck), func(i, j int) { r.deck[i], r.deck[j] = r.deck[j], r.deck[i] })
	}
	fault := r.deck[0]
	r.deck = r.deck[1:]
	return fault
}

// oneFault waits for a random moment, which is so many commits away, and breaks
// something.
func (r *run) oneFault(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, recoverMax)
	defer cancel()
	commits := r.rng.Int64N(commitsMax)
	// In every second case the instance is let come up first, in the others it is
	// not given the time: a kill must hit one that works as well as one that only
	// begins.
	if r.rng.IntN(2) == 0 {
		commits /= 8
	} else {
		if err := r.awaitReady(ctx); err != nil {
			return err
		}
	}
	if err := r.traffic.AwaitCommits(ctx, commits); err != nil {
		return err
	}
	if len(r.Options.Faults) == 0 {
		return nil
	}
	if r.ready() {
		r.report.Ready++
	} else {
		r.report.Early++
	}
	fault := r.deal()
	r.traffic.note(string(fault))
	if err := inflict[fault](r, ctx); err != nil {
		return fmt.Errorf("%s: %w", fault, err)
	}
	r.traffic.note(string(fault) + " is over")
	r.report.Faults[fault]++
	return nil
}

// noticedAfter is when a change of a table that no row has told of is noticed,
// and what it made wrong is being swept.
const noticedAfter = 6 * time.Second

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
	pause(ctx.Done(), time.Until(r.reshaped.Add(noticedAfter)))
	if err := r.awaitReady(ctx); err != nil {
		return err
	}
	v, err := r.traffic.Quiet(ctx)
	r.report.Verdict = v
	if err != nil {
		return err
	}
	r.report.Quiets++
	r.Say(fmt.Sprintf("quiet: %d faults, %d commits, %d hits judged, everything compared", r.report.Ready+r.report.Early, v.Commits, v.Hits()))
	return v.Err()
}
