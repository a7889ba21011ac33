// Package demo shows what the service is for: a shop under load whose rows, and
// results of queries over them, are read through three caches at once, and what each of
// them answers.
//
// It owns the load, the two caches that Unstale is compared with, the checker that
// counts stale hits for all three, and the processes: the servers and the real `unstale
// run`, with an entry for each mode and some over queries. It promises that the three
// caches get the same reads, the same loads and the same changes, that a hit is called
// stale only where that is certain, and that nothing is left when Run returns.
package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/unstale/unstale"
	"github.com/unstale/unstale/internal/stack"
)

// Defaults of Options, and their limits.
const (
	ChangesPerSecond    = 200
	ChangesPerSecondMax = 5000
	Readers             = 40
	ReadersMax          = 1000
	LoadTime            = 5 * time.Millisecond
	LoadTimeMax         = 300 * time.Millisecond // far below the lease
)

const (
	// LongTTL is that of the two caches that are told of changes, ShortTTL that
	// of the one that is not.
	LongTTL  = time.Hour
	ShortTTL = 10 * time.Second

	// lease is the entries'. Loads take milliseconds here, and the first sweep
	// waits for a lease to pass.
	lease = time.Second

	databaseName    = "shop"
	poolConnections = 24
)

// Options of a Demo. Zero values mean the defaults.
type Options struct {
	// Executable is the unstale program whose `run` keeps the third cache.
	Executable string
	// For is how long the load lasts; zero: until the context ends.
	For time.Duration
	// ChangesPerSecond is how many rows are changed in a second, apart from the
	// one by which latency is measured.
	ChangesPerSecond int
	// Readers each read one row after the other, with a pause of 20 ms on
	// average.
	Readers int
	// LoadTime is what the application takes, on average, between its SELECT and
	// its write to the cache: the same for all three. Negative: nothing.
	LoadTime time.Duration
	// Kafka has changes reach the service through Debezium, Kafka and a schema
	// registry, started beside the others.
	Kafka bool
	// Say receives lines about what is going on until the load begins. Several
	// goroutines may call it.
	Say func(line string)
	// Show, if not nil, receives the state of things four times a second while
	// the load lasts. One goroutine calls it.
	Show func(Report)
}

// A Demo is one shop. It runs once.
type Demo struct {
	options Options
	shop    *shop
	servers Servers
	config  string // path

	pipeline *pipeline // nil: the service reads the database's log
	pool     *pgxpool.Pool
	redis    *redis.Client
	caches   [cacheCount]*cache
	service  *service
	keysSet  int64 // as the service has said last
	checker  *checker
	consumer *delConsumer
	canary   *canary
	began    time.Time // of the load
	changes  atomic.Int64
}

// New returns a demo. Run starts it.
func New(options Options) *Demo {
	return &Demo{options: options.withDefaults(), shop: newShop()}
}

func (o Options) withDefaults() Options {
	o.ChangesPerSecond = cmp.Or(o.ChangesPerSecond, ChangesPerSecond)
	o.Readers = cmp.Or(o.Readers, Readers)
	o.LoadTime = max(cmp.Or(o.LoadTime, LoadTime), 0)
	return o
}

// Run starts the servers and the service, puts them under load until Options.For
// is over or ctx ends, and takes everything down again. That ctx ends is no
// error. The report is nil if the load never began.
func (d *Demo) Run(ctx context.Context) (report *Report, err error) {
	servers := stack.New(stack.Options{Say: d.options.Say})
	defer func() {
		if ctx.Err() != nil && report == nil {
			err = nil // whatever was cut short had not begun in earnest
		}
		err = errors.Join(err, servers.Close())
	}()

	d.say("starting a PostgreSQL and a Redis of its own")
	postgres, cache, err := startServers(ctx, servers)
	if err != nil {
		return nil, err
	}
	d.servers = Servers{PostgreSQL: postgres.Name(), Redis: cache.Name()}
	d.config = filepath.Join(cache.Dir(), "unstale.yaml")
	url := postgres.DatabaseURL(databaseName)

	d.say("filling the shop: %s", d.shop)
	if err := d.shop.create(ctx, postgres.URL(), url); err != nil {
		return nil, fmt.Errorf("fill the shop: %w", err)
	}
	if err := d.connect(ctx, url, cache.URL()); err != nil {
		return nil, err
	}
	defer d.redis.Close()
	defer d.pool.Close()

	d.service = newService(d.options.Executable, d.config, filepath.Join(cache.Dir(), "unstale.log"))
	source := ""
	if d.options.Kafka {
		d.say("starting Kafka, a schema registry, and Kafka Connect with Debezium")
		if d.pipeline, err = startPipeline(ctx, servers); err != nil {
			return nil, err
		}
		defer d.pipeline.close()
		source = d.pipeline.source()
	}
	configuration, err := d.service.configure(url, cache.URL(), source)
	if err != nil {
		return nil, fmt.Errorf("configure the service: %w", err)
	}
	if d.pipeline != nil {
		d.say("unstale connector apply --config %s", d.config)
		if err := d.pipeline.apply(ctx, d.options.Executable, d.config); err != nil {
			return nil, err
		}
	}
	d.say("unstale run --config %s", d.config)
	for line := range strings.Lines(configuration) {
		d.say("    %s", strings.TrimSuffix(line, "\n"))
	}

	// The load ends first, then the service, then the servers: nobody has to
	// hold on for something that is gone.
	serving, endServing := context.WithCancel(context.WithoutCancel(ctx))
	work, working := errgroup.WithContext(ctx)
	work.Go(func() error { return d.service.run(serving) })
	work.Go(func() (err error) {
		defer endServing()
		// Both consumers follow the stream before anything changes.
		if err := d.consumer.attach(working); err != nil {
			return err
		}
		defer d.consumer.close(working)
		if err := d.service.waitReady(working, d.say); err != nil {
			return err
		}
		report, err = d.underLoad(working)
		return err
	})
	err = work.Wait() // report is there only now
	return report, err
}

func (d *Demo) say(format string, arguments ...any) {
	if d.options.Say != nil {
		d.options.Say(fmt.Sprintf(format, arguments...))
	}
}

func startServers(ctx context.Context, servers *stack.Stack) (postgres *stack.Postgres, cache *stack.Redis, err error) {
	starting, ctx := errgroup.WithContext(ctx)
	starting.Go(func() (err error) {
		postgres, err = servers.Postgres(ctx, stack.PostgresOptions{})
		return err
	})
	starting.Go(func() (err error) {
		// The canary hears of a key when Redis drops or sets it.
		cache, err = servers.Redis(ctx, stack.RedisOptions{Settings: map[string]string{"notify-keyspace-events": "Kg$"}})
		return err
	})
	err = starting.Wait()
	return postgres, cache, err
}

// connect makes what the load goes through.
func (d *Demo) connect(ctx context.Context, databaseURL, redisURL string) error {
	redisOptions, err := redis.ParseURL(redisURL)
	if err != nil {
		return err
	}
	poolConfig, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return err
	}
	poolConfig.MaxConns = poolConnections
	if d.consumer, err = newDELConsumer(databaseURL); err != nil {
		return err
	}
	if d.pool, err = pgxpool.NewWithConfig(ctx, poolConfig); err != nil {
		return err
	}
	d.redis = redis.NewClient(redisOptions)
	client, err := unstale.New(d.redis, unstale.Options{TTL: LongTTL, Lease: lease})
	if err != nil {
		return err
	}
	d.caches = [cacheCount]*cache{
		ttlOnly:       newCache("ttl:", plainRead(d.redis, ShortTTL)),
		delAfterEvent: newCache(delPrefix, plainRead(d.redis, LongTTL)),
		coherent:      newCache("", clientRead(client)),
	}
	d.checker = newChecker(d.shop, d.pool, func(ctx context.Context, position string, lsn uint64) error {
		if d.pipeline != nil {
			return d.pipeline.settled(ctx, d.service, lsn)
		}
		return client.Barrier(ctx, position)
	}, d.consumer)
	d.canary = newCanary(d.pool, d.redis)
	return nil
}
