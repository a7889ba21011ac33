package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/fill"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/kafkasource"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
)

const (
	// warmLook is how often warm looks how far a stream has been applied: less
	// often where there are more.
	warmLook = 5 * time.Millisecond
	// warmPause is how long nothing can be done for while all is well, roughly.
	warmPause = 2 * time.Second
	// warmSample is how many rows a dry run looks at.
	warmSample = 256

	warmMend = "start unstale run with this configuration, wait until unstale status says ready, and run unstale warm again"
	// warmAgain is for what a run with this configuration notices by itself: a right that
	// was granted, a view that was replaced.
	warmAgain = "run unstale warm again in ten seconds: a run with this configuration looks at the database every five; if it says the same then, " + warmMend
)

func newWarm() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "warm [ENTRY...]",
		Short: "Load whole entries into the cache, while everything runs",
		Long: `Warm loads the rows of entries into the cache: those that are named, or all whose
values the service writes (on_change: update, warm or refresh). It loads under
leases, as any reader does, so it can run at any time beside readers, changes and
'unstale run', and never leaves a value that is older than the database. What is
cached already is left alone.

Of an entry over a query a row is a result. Which keys there are follows from the
query, or is what warm_keys says; 'unstale plan --sql' shows it.

It goes in the order of the keys and notes in Redis how far it is: interrupted or
killed, the same command goes on there, unless the entry or its table has changed
since. Progress is kept for a week.

It is as fast as load.connections statements at once allow, each of at most 256
rows by their key; --rate makes it slower.

Exit code 1: it was interrupted, something stands in the way, or rows could not be
loaded; standard error says which.`,
		Example: `  unstale warm                      all entries that can be
  unstale warm product --rate 2000  one, at most 2,000 rows a second
  unstale warm --dry-run            how much there is to load`,
	}
	var options warmOptions
	flags := cmd.Flags()
	flags.Var(&rows{&options.rate}, "rate", "rows to load in a second, at most (default: no limit)")
	flags.BoolVar(&options.restart, "restart", false, "begin anew where an earlier warm was interrupted")
	flags.BoolVar(&options.dryRun, "dry-run", false, "count and estimate, write nothing")
	flags.BoolVar(&options.json, "json", false, "print the result as JSON on standard output")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		c, err := loadConfig(cmd)
		if err != nil {
			return err
		}
		wanted, err := entriesToWarm(c, names)
		if err != nil {
			return err
		}
		meter := newMeter(cmd.ErrOrStderr())
		options.named = len(names) > 0
		w, err := openWarm(cmd.Context(), c, wanted, options, meter)
		if err != nil {
			return err
		}
		defer w.close()
		if options.dryRun {
			return w.estimate(cmd.Context(), cmd.OutOrStdout())
		}
		return w.run(cmd.Context(), cmd.OutOrStdout())
	}
	return cmd
}

// rows is a number of rows as a flag.
type rows struct{ n *int }

func (r *rows) String() string {
	if r.n == nil || *r.n == 0 {
		return ""
	}
	return strconv.Itoa(*r.n)
}

func (*rows) Type() string { return "rows" }

func (r *rows) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return errors.New("want a number of rows, 1 or more; without --rate there is no limit")
	}
	*r.n = n
	return nil
}

type warmOptions struct {
	rate                  int
	restart, dryRun, json bool
	named                 bool // the entries are; else they are all that can be loaded
}

// entriesToWarm checks the names; none means every entry that can be loaded.
func entriesToWarm(c *config.Config, names []string) ([]string, error) {
	var can []string
	for _, e := range c.Entries {
		if e.OnChange != config.Invalidate {
			can = append(can, e.Name)
		}
	}
	var wanted []string
	for _, name := range names {
		i := slices.IndexFunc(c.Entries, func(e config.Entry) bool { return e.Name == name })
		switch {
		case i < 0:
			return nil, usageError{fmt.Errorf("no entry %q in %s; the entries that can be loaded: %s", name, c.File(), orNone(can))}
		case c.Entries[i].OnChange == config.Invalidate:
			return nil, config.Problems{c.Problem(c.Entries[i].Path("on_change"),
				fmt.Sprintf("entry %s is only invalidated: its values are the application's own, so only the application can load them", name),
				"on_change: refresh (or, for a table, update or warm) makes a value the row itself, or the query's result")}.Err()
		case !slices.Contains(wanted, name):
			wanted = append(wanted, name)
		}
	}
	if len(names) > 0 {
		return wanted, nil
	}
	if len(can) == 0 {
		return nil, fmt.Errorf("nothing to load: every entry in %s is only invalidated, so its values are the application's own; on_change: refresh (or, for a table, update or warm) makes a value the row itself, or the query's result", c.File())
	}
	return can, nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// A warm is what the command works with.
type warm struct {
	options  warmOptions
	meter    *meter
	client   *redis.Client
	loader   *database.Loader
	leases   *redissink.Leases
	warmer   *fill.Warmer
	entries  []plan.Entry
	loads    []database.Load
	numbers  []int // of the entries to load
	streams  []warmStream
	topics   kafkasource.Options // where the streams are partitions
	home     string              // of what is noted of its progress, as a stream
	origin   change.Origin
	today    guard.Fingerprints
	applied  atomic.Uint64
	notReady error         // why what is loaded would not stay
	role     string        // that loads
	swept    []atomic.Bool // by entry: a sweep has taken what was loaded, or may have
	// Of the entry at hand: how far it was, when something was done last, and how
	// long this run has been at work.
	begunAt fill.Progress
	last    time.Time
	worked  time.Duration
	rows    int64 // of the entry at hand, about
}

// openWarm looks at both servers.
func openWarm(ctx context.Context, c *config.Config, names []string, options warmOptions, meter *meter) (_ *warm, err error) {
	// For a person who looks on: without the time, whatever the level of run.
	logger := slog.New(slog.NewTextHandler(meter, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	if c.Database.URL == "" {
		return nil, fmt.Errorf("%s: there is no database to load rows from: give `database` the address of the primary; without one, a copy of the rows that the connector makes fills the entries", c.File())
	}
	databaseConfig, err := databaseConfig(c)
	if err != nil {
		return nil, err
	}
	w := &warm{options: options, meter: meter}
	if w.client, err = redisClient(c.Redis); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	conn, err := pgx.ConnectConfig(ctx, databaseConfig)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	x, err := examine(ctx, c, conn)
	if err == nil {
		err = standsInTheWay(x.problems)
	}
	if err == nil {
		err = refuseRedis(ctx, c, w.client)
	}
	if err != nil {
		return nil, err
	}
	w.entries, w.role, w.loads = x.entries, conn.Config().User, x.loads()
	if err := w.choose(c, x, names); err != nil {
		return nil, err
	}

	catalog := &catalog{config: databaseConfig, needs: x.needs, entries: x.entries, logger: slog.New(slog.DiscardHandler)}
	defer catalog.close(context.WithoutCancel(ctx))
	look, err := catalog.Look(ctx)
	if errors.Is(err, change.ErrUnpublished) {
		return nil, &change.Refusal{Problem: fmt.Sprintf("no unstale run has prepared the database: %v", err), Mend: warmMend}
	}
	if err != nil {
		return nil, err
	}
	w.today = look.Fingerprints
	gate := database.NewGate(databaseConfig, database.Options{Logger: logger})
	defer gate.Close()
	if w.origin, err = gate.Origin(ctx); err != nil {
		return nil, err
	}
	w.leases, w.swept = redissink.NewLeases(w.client), make([]atomic.Bool, len(w.entries))
	idle := ""
	if c.Source.FromKafka {
		idle, err = w.findTopics(ctx, c, x)
	} else {
		idle, err = w.findSlot(ctx, c, conn)
	}
	if err != nil {
		return nil, err
	}
	marks, err := w.leases.Watermarks(ctx, w.names())
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	w.notReady = w.stays(marks)
	if w.notReady == nil && idle != "" && !options.dryRun {
		meter.say(fmt.Sprintf("no unstale run reads %s: nothing that is loaded gets lost or old, since the next one begins with the changes from now on; until it runs, readers see what is loaded now", idle))
	}
	for i, mark := range marks {
		if mark != nil {
			w.streams[i].epoch = mark.Epoch
		}
	}

	w.loader = database.NewLoader(databaseConfig, w.loads, database.LoaderOptions{Connections: c.Load.Connections})
	w.loader.Expect(w.origin)
	w.warmer = fill.NewWarmer(x.entries, w.loader, w.loader, w.leases, fill.WarmOptions{
		RowsPerSecond: options.rate,
		Workers:       2 * c.Load.Connections,
		Applied:       w.applied.Load,
		Claim:         w.claim,
		Observer:      nobody{},
		Logger:        logger,
		Save:          w.save,
		Show:          w.show,
	})
	return w, nil
}

// choose finds the entries to load. Of one over a query the keys must be known: who names
// it is told, otherwise the others are loaded.
func (w *warm) choose(c *config.Config, x *examination, names []string) error {
	var unknown config.Problems
	for _, name := range names {
		number := slices.IndexFunc(w.entries, func(e plan.Entry) bool { return e.Name == name })
		if wrong, ok := x.derived[number].wrongKeys(); ok {
			unknown = append(unknown, wrong)
			continue
		}
		if why := x.derived[number].noKeys; why != "" {
			unknown = append(unknown, c.Problem(c.Entries[number].Path("query"), fmt.Sprintf("nobody knows which keys entry %s has: %s", name, why),
				"write warm_keys: a SELECT whose columns are the values of "+w.entries[number].Key.String()))
			continue
		}
		w.numbers = append(w.numbers, number)
	}
	if w.options.named || len(w.numbers) == 0 {
		return unknown.Err()
	}
	for _, p := range unknown {
		w.meter.say(p.String() + "\n")
	}
	return nil
}

// A warmStream is one that run reads.
type warmStream struct {
	change.Stream
	said  string // what people call it
	epoch int64  // of the watermark when this began
}

func (w *warm) names() []string {
	names := make([]string, len(w.streams))
	for i := range w.streams {
		names[i] = w.streams[i].Name
	}
	return names
}

// findSlot looks at the slot that run reads, and returns what it is called if
// nobody does.
func (w *warm) findSlot(ctx context.Context, c *config.Config, conn *pgx.Conn) (idle string, err error) {
	name := c.Source.Postgres.Slot
	slot, err := database.Slot(ctx, conn, name)
	if err != nil {
		return "", err
	}
	st := warmStream{said: "slot " + name}
	st.Name = fmt.Sprintf("%d:%d:%s", w.origin.System, w.origin.Database, name)
	st.Confirmed = change.Position{Timeline: w.origin.Timeline, LSN: slot.Confirmed}
	if !slot.Usable {
		st.Gap = "is gone or can no longer be read"
	}
	w.streams, w.home = []warmStream{st}, st.Name
	if !slot.Active {
		idle = st.said
	}
	return idle, nil
}

// findTopics looks at the partitions that the instances of run share, and returns
// what their group is called if there is none.
func (w *warm) findTopics(ctx context.Context, c *config.Config, x *examination) (idle string, err error) {
	if w.topics.Client, err = kafkaClient(c.Source.Kafka); err != nil {
		return "", err
	}
	w.topics.Group = c.Source.Kafka.Group
	w.topics.Topics, w.topics.Pattern = kafkaTopics(c.Source.Kafka, x.tableNames())
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	found, consumed, err := kafkasource.Standings(ctx, w.topics)
	if err != nil {
		return "", fmt.Errorf("kafka: %w", err)
	}
	if len(found) == 0 {
		return "", &change.Refusal{Problem: "there is no topic yet, so no unstale run has begun to read", Mend: "start the connector, which makes the topic of a table with its first row; then " + warmMend}
	}
	for _, s := range found {
		st := warmStream{Stream: s.Stream, said: fmt.Sprintf("partition %d of %s", s.Partition, s.Topic)}
		if st.Gap != "" {
			st.Gap = "is not what the group has read"
		}
		w.streams = append(w.streams, st)
	}
	w.home = fmt.Sprintf("kafka:%d:%d:%s", w.origin.System, w.origin.Database, w.topics.Group)
	if !consumed {
		idle = "as group " + w.topics.Group
	}
	return idle, nil
}

// claim is what the first stream says of the entries: each owner of a stream sweeps
// all keys of an entry behind the note that it is another one, so any stream will do.
func (w *warm) claim() guard.Claim {
	return guard.Claim{Stream: w.streams[0].Name, Fingerprints: w.today}
}

// stays returns why the next start of run would drop what is loaded now. marks are
// those of the streams, read behind them; nil: there is none.
func (w *warm) stays(marks []*guard.Watermark) error {
	for i, mark := range marks {
		st, problem, mend := &w.streams[i], "", warmMend
		switch {
		case mark == nil || mark.Lo.IsZero():
			problem = fmt.Sprintf("no unstale run has worked with this Redis and %s yet: its first start drops every key of the entries", st.said)
		case st.Gap != "":
			problem = fmt.Sprintf("%s %s: changes since are missing, and the next start of unstale run drops every key of the entries", st.said, st.Gap)
		case mark.Origin != w.origin.String():
			problem = fmt.Sprintf("the database has restarted, or is another one, since unstale run has worked last: its next start drops every key of the entries (was %s, is %s)", mark.Origin, w.origin)
		case st.Confirmed.Compare(mark.Lo) > 0:
			problem = fmt.Sprintf("%s has passed what Redis has: changes are missing, and the next start of unstale run drops every key of the entries", st.said)
		}
		for _, number := range w.numbers {
			e := &w.entries[number]
			switch {
			case problem != "":
			case mark.Fingerprints[e.Name] != w.today[e.Name]:
				problem = fmt.Sprintf("entry %s is not what unstale run has taken up: it drops every key of it when it notices", e.Name)
				mend = warmAgain
			case sweeps(mark, mark.Epoch, e.Key.String()):
				problem = fmt.Sprintf("entry %s is being swept: every key of it is dropped", e.Name)
			}
		}
		if problem != "" {
			return &change.Refusal{Problem: problem, Mend: mend}
		}
	}
	return nil
}

func (w *warm) close() {
	if w.loader != nil {
		w.loader.Close()
	}
	w.client.Close()
}

// A warmResult is what became of one entry.
type warmResult struct {
	Entry string `json:"entry"`
	Done  bool   `json:"done"`
	Rows  int    `json:"rows"`
	fill.Tally
	Resumed bool `json:"resumed"`
	Swept   bool `json:"swept"` // meanwhile: what was loaded before is gone
	// Earlier are the rows that earlier runs have done. Seconds are those of this
	// one, without its pauses.
	Earlier int     `json:"earlier_rows"`
	Seconds float64 `json:"seconds"`
}

// run loads the entries, one behind the other.
func (w *warm) run(ctx context.Context, out io.Writer) error {
	if w.notReady != nil {
		return w.notReady
	}
	following, endFollowing := context.WithCancel(context.WithoutCancel(ctx))
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		w.follow(following)
	}()
	var results []warmResult
	var err error
	for _, number := range w.numbers {
		var result warmResult
		result, err = w.load(ctx, number)
		results = append(results, result)
		if !w.options.json {
			fmt.Fprintln(out, result)
		}
		if err != nil {
			err = w.stopped(number, err)
			break
		}
	}
	endFollowing()
	<-followed
	switch gone := w.gone(results); {
	case gone == nil:
	case err == nil || errors.Is(err, context.Canceled):
		err = gone
	default:
		err = errors.Join(err, gone)
	}
	if w.options.json {
		if err := printJSON(out, map[string]any{"entries": results}); err != nil {
			return err
		}
	}
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted: the same command goes on where this one stopped")
	}
	for _, result := range results {
		if err == nil && result.Full > 0 {
			err = fmt.Errorf("%s: %s rows were loaded and refused, since Redis is full: raise its maxmemory, or keep fewer values; then run unstale warm %s --restart", result.Entry, thousands(int64(result.Full)), result.Entry)
		}
		if err == nil && result.Failed > 0 {
			err = fmt.Errorf("%s: %s rows could not be loaded; the first reason is said above", result.Entry, thousands(int64(result.Failed)))
		}
	}
	return err
}

// gone notes which entries were swept while they were loaded, or behind that, has
// them begun anew by the next warm, and says so.
func (w *warm) gone(results []warmResult) error {
	// What has begun a sweep since the last look says so too.
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	w.look(ctx)
	if w.grown(ctx) {
		for i := range w.swept {
			w.swept[i].Store(true)
		}
	}
	var names []string
	for i := range results {
		number := w.numbers[i]
		if results[i].Swept = w.swept[number].Load(); results[i].Swept {
			names = append(names, results[i].Entry)
			// Where that does not work, --restart does it.
			_ = w.leases.SaveProgress(ctx, w.home, results[i].Entry, "")
		}
	}
	if len(names) == 0 {
		return nil
	}
	return &change.Refusal{
		Problem: fmt.Sprintf("swept meanwhile: %s; what was loaded before is gone", strings.Join(names, ", ")),
		Mend:    "when unstale status says ready, run the same command with --restart",
	}
}

// grown reports whether there are partitions that there were not: whoever has taken
// them over has swept every entry.
func (w *warm) grown(ctx context.Context) bool {
	if len(w.topics.Topics) == 0 {
		return false
	}
	found, _, err := kafkasource.Standings(ctx, w.topics)
	return err == nil && len(found) > len(w.streams)
}

// unreadable names the right that an error misses; nil if it is of another kind.
func (w *warm) unreadable(number int, err error) error {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || refused.Code != "42501" {
		return nil
	}
	e := &w.entries[number]
	if e.Query != "" {
		return &change.Refusal{
			Problem: fmt.Sprintf("%s: role %s may not read all that the query does (%s)", e.Name, w.role, refused.Message),
			Mend:    "unstale check names the right that is missing",
		}
	}
	return &change.Refusal{
		Problem: fmt.Sprintf("%s: role %s may not read %s.%s (%s)", e.Name, w.role, e.Schema, e.Table, refused.Message),
		Mend:    strings.Join(database.GrantRead(database.Name{Schema: e.Schema, Table: e.Table}, w.role), " "),
	}
}

// stopped says what to do about an entry that was not loaded to its end.
func (w *warm) stopped(number int, err error) error {
	entry := w.entries[number].Name
	if unreadable := w.unreadable(number, err); unreadable != nil {
		return unreadable
	}
	switch {
	case errors.Is(err, fill.ErrSuperseded):
		return &change.Refusal{
			Problem: fmt.Sprintf("entry %s is not what it was when this began: its table has changed, or unstale run has taken it up with another configuration; what is loaded from now on would be of the old one", entry),
			Mend:    warmMend,
		}
	case errors.Is(err, change.ErrOriginChanged):
		return fmt.Errorf("%s: %w\n  %s", entry, err, warmMend)
	}
	return fmt.Errorf("%s: %w\n  the same command goes on where this one stopped", entry, err)
}

// load loads one entry.
func (w *warm) load(ctx context.Context, number int) (warmResult, error) {
	e := &w.entries[number]
	result := warmResult{Entry: e.Name}
	// A sweep that has not ended is seen again.
	w.swept[number].Store(false)
	from, err := w.progress(ctx, number)
	if err != nil {
		return result, err
	}
	if w.rows, err = w.loader.Estimate(ctx, number); err != nil {
		return result, err
	}
	if result.Resumed = from.After != nil; result.Resumed {
		w.meter.say(fmt.Sprintf("%s: going on behind %s, %s rows are done; --restart begins anew", e.Name, e.Key.Key(from.After...), thousands(int64(from.Keys()))))
	}
	w.begunAt, w.last, w.worked = from, time.Now(), 0
	end, err := w.warmer.Run(ctx, number, from)
	w.meter.clear()
	result.Done, result.Rows, result.Tally = end.Done, end.Keys(), end.Tally
	result.Earlier, result.Seconds = from.Keys(), w.work().Seconds()
	return result, err
}

// note is how far an entry has come, as it is kept in Redis. What makes it
// another entry makes it one to begin anew. Other sweeps, for a gap or for unknown
// keys, do not: what they have dropped --restart loads.
type note struct {
	Fingerprint guard.Fingerprint `json:"entry"`
	Origin      string            `json:"origin"`
	Keys        string            `json:"keys,omitempty"` // how they are listed
	fill.Progress
}

// keys tells how the keys of an entry over a query are listed from any other way.
func (w *warm) keys(number int) string {
	if w.loads[number].Keys.All == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(w.loads[number].Keys.All))
	return hex.EncodeToString(sum[:8])
}

func (w *warm) progress(ctx context.Context, number int) (fill.Progress, error) {
	e := &w.entries[number]
	text, err := w.leases.Progress(ctx, w.home, e.Name)
	if err != nil {
		return fill.Progress{}, fmt.Errorf("read how far it has come: %w", err)
	}
	var found note
	if text == "" || json.Unmarshal([]byte(text), &found) != nil || w.options.restart {
		return fill.Progress{}, nil
	}
	if found.Fingerprint != w.today[e.Name] || found.Origin != w.origin.String() || found.Keys != w.keys(number) || len(found.After) != len(e.Key.Columns()) {
		w.meter.say(fmt.Sprintf("%s: beginning anew: the entry, its tables or the database is not what it was when this was interrupted", e.Name))
		return fill.Progress{}, nil
	}
	return found.Progress, nil
}

func (w *warm) save(ctx context.Context, number int, p fill.Progress) error {
	e := &w.entries[number]
	if p.Done || p.After == nil || w.swept[number].Load() {
		return w.leases.SaveProgress(ctx, w.home, e.Name, "")
	}
	text, err := json.Marshal(note{w.today[e.Name], w.origin.String(), w.keys(number), p})
	if err != nil {
		return err
	}
	return w.leases.SaveProgress(ctx, w.home, e.Name, string(text))
}

func (w *warm) show(number int, p fill.Progress) {
	w.meter.show(w.entries[number].Name, int64(p.Keys()), int64(w.begunAt.Keys()), w.rows, w.work())
}

// work is how long this run has been at work, if something is done now. What
// takes longer than warmPause was an outage.
func (w *warm) work() time.Duration {
	now := time.Now()
	w.worked += min(now.Sub(w.last), warmPause)
	w.last = now
	return w.worked
}

// follow keeps up with what the stream has applied. While Redis is away that is
// not known, and every value gets a shield.
func (w *warm) follow(ctx context.Context) {
	tick := time.NewTicker(time.Duration(len(w.streams)) * warmLook)
	defer tick.Stop()
	for {
		w.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sample loads the first of these rows, as many as one load can answer with; none
// if that is not even the first.
func (w *warm) sample(ctx context.Context, number int, keys [][]string) ([][]string, error) {
	for ; len(keys) > 0; keys = keys[:len(keys)/2] {
		rows, _, err := w.loader.Load(ctx, number, keys)
		if _, tooMuch := errors.AsType[*database.Unloadable](err); !tooMuch {
			return rows, err
		}
	}
	return nil, nil
}

// look reads how far the stream has been applied, and what is being swept. Over
// topics the first is not known: an offset is no place in the log.
func (w *warm) look(ctx context.Context) {
	marks, err := w.leases.Watermarks(ctx, w.names())
	if err != nil {
		w.applied.Store(0)
		return
	}
	lsn := uint64(0)
	if mark := marks[0]; mark != nil && mark.Lo.Timeline == w.origin.Timeline {
		lsn = mark.Lo.LSN
	}
	w.applied.Store(lsn)
	for i, mark := range marks {
		for _, number := range w.numbers {
			if sweeps(mark, w.streams[i].epoch, w.entries[number].Key.String()) {
				w.swept[number].Store(true)
			}
		}
	}
}

// sweeps reports whether a watermark, which was of an epoch before, says that the
// keys of a template are being swept, or that it is another one: Redis was emptied,
// or is one that has lost writes, and the entries are swept. A later epoch alone is
// a service that has started again.
func sweeps(mark *guard.Watermark, epoch int64, key string) bool {
	return mark == nil || mark.Epoch < epoch || slices.ContainsFunc(mark.Sweeps, func(s guard.Sweep) bool { return s.Key == key })
}

// A warmEstimate is what a dry run says of one entry.
type warmEstimate struct {
	Entry   string  `json:"entry"`
	Rows    int64   `json:"rows"`  // about
	Bytes   int64   `json:"bytes"` // of values, about
	Sampled int     `json:"sampled"`
	Cached  int64   `json:"cached"`            // of those
	Seconds float64 `json:"seconds,omitempty"` // at --rate
	After   string  `json:"after,omitempty"`   // the key behind which it would go on
	Done    int     `json:"done"`              // rows that are done before
}

// estimate looks at the first rows of each entry.
func (w *warm) estimate(ctx context.Context, out io.Writer) error {
	var found []warmEstimate
	for _, number := range w.numbers {
		e := &w.entries[number]
		got := warmEstimate{Entry: e.Name}
		var err error
		if got.Rows, err = w.loader.Estimate(ctx, number); err != nil {
			if unreadable := w.unreadable(number, err); unreadable != nil {
				return unreadable
			}
			return err
		}
		values, err := w.loader.Next(ctx, number, nil, warmSample)
		if err != nil {
			return err
		}
		if len(values) < warmSample {
			got.Rows = int64(len(values))
		}
		rows, err := w.sample(ctx, number, values)
		if err != nil {
			return err
		}
		if got.Sampled = len(rows); got.Sampled > 0 {
			keys := make([]string, len(rows))
			for i, row := range rows {
				keys[i] = e.Key.Key(values[i]...)
				got.Bytes += int64(len(strings.Join(row, "")))
			}
			got.Bytes = got.Bytes * got.Rows / int64(len(rows))
			if got.Cached, err = w.leases.Cached(ctx, keys); err != nil {
				return err
			}
		}
		from, err := w.progress(ctx, number)
		if err != nil {
			return err
		}
		if got.Done = from.Keys(); from.After != nil {
			got.After = e.Key.Key(from.After...)
		}
		if w.options.rate > 0 {
			got.Seconds = float64(max(0, got.Rows-int64(got.Done))) / float64(w.options.rate)
		}
		found = append(found, got)
	}
	if w.options.json {
		if err := printJSON(out, map[string]any{"entries": found}); err != nil {
			return err
		}
	} else {
		for _, got := range found {
			fmt.Fprintln(out, got)
		}
	}
	return w.notReady
}

func (e warmEstimate) String() string {
	text := fmt.Sprintf("%s: about %s rows", e.Entry, thousands(e.Rows))
	switch {
	case e.Sampled > 0:
		text += fmt.Sprintf(", %s of values; of the first %d, %d are cached", size(e.Bytes), e.Sampled, e.Cached)
	case e.Rows > 0:
		text += "; the first of them cannot be loaded"
	}
	if e.After != "" {
		text += fmt.Sprintf("; goes on behind %s, %s rows are done", e.After, thousands(int64(e.Done)))
	}
	if e.Seconds > 0 {
		text += fmt.Sprintf("; %s at this rate", roughly(time.Duration(e.Seconds*float64(time.Second))))
	}
	return text
}

func (r warmResult) String() string {
	took := roughly(time.Duration(r.Seconds * float64(time.Second)))
	text := fmt.Sprintf("%s: %s rows in %s", r.Entry, thousands(int64(r.Rows)), took)
	if r.Earlier > 0 {
		text = fmt.Sprintf("%s: %s rows, %s of them by earlier runs, the others in %s", r.Entry, thousands(int64(r.Rows)), thousands(int64(r.Earlier)), took)
	}
	if now := r.Rows - r.Earlier; now > 0 && r.Seconds >= 1 {
		text += fmt.Sprintf(" (%s rows/s)", thousands(int64(float64(now)/r.Seconds)))
	}
	for _, part := range []struct {
		keys int
		text string
	}{
		{r.Stored, "loaded"}, {r.Cached, "cached already"}, {r.Refused, "changed meanwhile"}, {r.Absent, "deleted meanwhile"},
		{r.Busy, "left to readers"}, {r.Failed, "not loaded"}, {r.Full, "refused by a full Redis"},
	} {
		if part.keys > 0 {
			text += fmt.Sprintf(", %s %s", thousands(int64(part.keys)), part.text)
		}
	}
	return text
}

// nobody observes: the command prints what it counts.
type nobody struct{}

func (nobody) Filled(string, fill.Tally) {}
func (nobody) Dropped(string)            {}
func (nobody) Held(string)               {}
