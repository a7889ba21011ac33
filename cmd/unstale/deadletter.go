package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/deadletter"
	"github.com/unstale/unstale/internal/debezium"
	"github.com/unstale/unstale/internal/kafkasource"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/redissink"
)

// deadletterTimeout bounds the work on one letter, sweeps apart.
const deadletterTimeout = 30 * time.Second

func newDeadletter() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deadletter",
		Short: "List, show, retry and drop the changes that could not be applied",
		Long: `Deadletter lists the changes that could not be applied. When the service met them it
has dropped or swept whatever they could concern, so the cache is right without
them; they are kept so that a person can find out what wrote them.

Over Kafka they are in the topic source.kafka.deadletter_topic, as the records that
they were. Of the database's log only their place is kept, in Redis.`,
		Example: `  unstale deadletter
  unstale deadletter show 3
  unstale deadletter retry --all    read them again, drop their keys, and remove them
  unstale deadletter drop 3         remove it`,
		Args: noArgs,
	}
	asJSON := cmd.PersistentFlags().Bool("json", false, "print JSON")
	list := func(cmd *cobra.Command, _ []string) error {
		return withLetters(cmd, func(b *letterBox) error { return b.list(cmd.Context(), *asJSON) })
	}
	cmd.RunE = list
	retryAll, dropAll := false, false
	retry := &cobra.Command{
		Use:   "retry N... | --all",
		Short: "Read letters again, drop the keys of their changes, and remove them",
		Long: `Retry reads the record of a letter again, with what this release, the registry and
the database know today, drops the keys that its change concerns, and removes the
letter. It never writes a value, so it is safe at any time, beside a running
instance too.

Exit code 1: a letter still cannot be read. It is kept, and the reason is printed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withLetters(cmd, func(b *letterBox) error {
				return b.each(cmd.Context(), args, retryAll, *asJSON, b.retry)
			})
		},
	}
	retry.Flags().BoolVar(&retryAll, "all", false, "all letters")
	drop := &cobra.Command{
		Use:   "drop N... | --all",
		Short: "Remove letters",
		RunE: func(cmd *cobra.Command, args []string) error {
			return withLetters(cmd, func(b *letterBox) error {
				return b.each(cmd.Context(), args, dropAll, *asJSON, b.drop)
			})
		},
	}
	drop.Flags().BoolVar(&dropAll, "all", false, "all letters")
	retry.Args, drop.Args = numbersOrAll(&retryAll), numbersOrAll(&dropAll)
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List the letters", Args: noArgs, RunE: list},
		&cobra.Command{
			Use: "show N", Short: "Show all that is known of a letter",
			Args: func(_ *cobra.Command, args []string) error {
				if len(args) != 1 {
					return usageError{errors.New("show: want the number of one letter, as list has it")}
				}
				_, err := letterNumbers(args)
				return err
			},
			RunE: func(cmd *cobra.Command, args []string) error {
				return withLetters(cmd, func(b *letterBox) error { return b.show(cmd.Context(), args, *asJSON) })
			},
		},
		retry, drop,
	)
	return cmd
}

func numbersOrAll(all *bool) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if *all == (len(args) > 0) {
			return usageError{fmt.Errorf("%s: want the numbers of letters, as list has them, or --all", cmd.Name())}
		}
		_, err := letterNumbers(args)
		return err
	}
}

func letterNumbers(args []string) ([]int64, error) {
	var numbers []int64
	for _, arg := range args {
		n, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || n < 0 {
			return nil, usageError{fmt.Errorf("%q is no number of a letter", arg)}
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// letters are a store of them.
type letters interface {
	// List leaves out what records held.
	List(context.Context) ([]deadletter.Letter, error)
	Read(ctx context.Context, number int64) (deadletter.Letter, error)
	Remove(context.Context, deadletter.Letter) error
	Close()
}

// A letterBox is what the commands work with.
type letterBox struct {
	letters
	config *config.Config
	out    io.Writer
	client *redis.Client
	again  *retrier // nil until it is needed
}

// withLetters opens the store that the configuration has.
func withLetters(cmd *cobra.Command, do func(*letterBox) error) error {
	c, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	b := &letterBox{config: c, out: cmd.OutOrStdout()}
	if b.client, err = redisClient(c.Redis); err != nil {
		return err
	}
	defer b.client.Close()
	if c.Source.FromKafka {
		options, err := kafkaClient(c.Source.Kafka)
		if err != nil {
			return err
		}
		b.letters = deadletter.NewTopic(options, c.Source.Kafka.DeadletterTopic)
	} else {
		name, err := logStream(cmd.Context(), c)
		if err != nil {
			return err
		}
		b.letters = deadletter.NewStream(b.client, name)
	}
	defer b.Close()
	return do(b)
}

// logStream is the name of the stream of the database's log.
func logStream(ctx context.Context, c *config.Config) (string, error) {
	options, err := databaseConfig(c)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	gate := database.NewGate(options, database.Options{Logger: slog.New(slog.DiscardHandler)})
	defer gate.Close()
	origin, err := gate.Origin(ctx)
	if err != nil {
		return "", fmt.Errorf("database: %w", err)
	}
	return fmt.Sprintf("%d:%d:%s", origin.System, origin.Database, c.Source.Postgres.Slot), nil
}

// letterView is a letter as it is printed.
type letterView struct {
	Number  int64        `json:"number"`
	Time    time.Time    `json:"time"`
	Error   string       `json:"error"`
	Table   string       `json:"table,omitempty"`
	Entries []string     `json:"entries,omitempty"`
	Topic   string       `json:"topic,omitempty"`
	Part    *int32       `json:"partition,omitempty"`
	Offset  *int64       `json:"offset,omitempty"`
	Written *time.Time   `json:"written,omitempty"`
	Stream  string       `json:"stream,omitempty"`
	At      string       `json:"position,omitempty"`
	XID     uint32       `json:"transaction,omitempty"`
	Headers []headerView `json:"headers,omitempty"`
	Key     *bytesView   `json:"key,omitempty"`
	Value   *bytesView   `json:"value,omitempty"`
}

type headerView struct {
	Name string `json:"name"`
	bytesView
}

// bytesView has exactly one of its fields; none: null.
type bytesView struct {
	Text *string         `json:"text,omitempty"`
	Hex  string          `json:"hex,omitempty"`
	Avro json.RawMessage `json:"avro,omitempty"`
	// Schema is the id of that in the registry.
	Schema *uint32 `json:"schema,omitempty"`
}

func viewOf(l *deadletter.Letter) letterView {
	v := letterView{Number: l.Number, Time: l.Time.UTC(), Error: l.Reason, Table: l.Table, Entries: l.Entries}
	if r := l.Record; r != nil {
		written := r.Timestamp.UTC()
		v.Topic, v.Part, v.Offset, v.Written = r.Topic, &r.Partition, &r.Offset, &written
	} else {
		v.Stream, v.At, v.XID = l.Change.Stream, l.Change.Position, l.Change.XID
	}
	return v
}

func (v *letterView) origin() string {
	if v.Topic != "" {
		return fmt.Sprintf("%s, partition %d, offset %d", v.Topic, *v.Part, *v.Offset)
	}
	return cmp.Or(v.Table, "-")
}

func (b *letterBox) list(ctx context.Context, asJSON bool) error {
	found, err := b.List(ctx)
	if err != nil {
		return err
	}
	views := []letterView{}
	for i := range found {
		views = append(views, viewOf(&found[i]))
	}
	switch {
	case asJSON:
		return printJSON(b.out, views)
	case len(views) == 0:
		_, err := fmt.Fprintln(b.out, "no dead letters")
		return err
	}
	width := 0
	for i := range views {
		width = max(width, len(views[i].origin()))
	}
	for i := range views {
		v := &views[i]
		line := fmt.Sprintf("%6d  %s  %-*s  %s\n", v.Number, v.Time.Format(time.RFC3339), width, v.origin(), oneLine(v.Error))
		if _, err := io.WriteString(b.out, printable(line)); err != nil {
			return err
		}
	}
	return nil
}

// printable replaces what a terminal would obey.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if control(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

func control(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func (b *letterBox) show(ctx context.Context, args []string, asJSON bool) error {
	numbers, err := letterNumbers(args)
	if err != nil {
		return err
	}
	found, err := b.chosen(ctx, numbers, false)
	if err != nil {
		return err
	}
	l, err := b.Read(ctx, found[0].Number)
	if err != nil {
		return err
	}
	v := viewOf(&l)
	if r := l.Record; r != nil {
		for _, h := range r.Headers {
			v.Headers = append(v.Headers, headerView{h.Name, viewBytes(h.Value)})
		}
		key, value := b.viewMessage(ctx, r.Key), b.viewMessage(ctx, r.Value)
		v.Key, v.Value = &key, &value
	}
	if asJSON {
		return printJSON(b.out, v)
	}
	return printLetter(b.out, &v)
}

func printLetter(w io.Writer, v *letterView) error {
	var text strings.Builder
	line := func(name, format string, values ...any) {
		fmt.Fprintf(&text, "%-12s "+format+"\n", append([]any{name}, values...)...)
	}
	line("number", "%d", v.Number)
	line("time", "%s", v.Time.Format(time.RFC3339))
	line("error", "%s", v.Error)
	if v.Table != "" {
		line("table", "%s", v.Table)
	}
	if len(v.Entries) > 0 {
		line("entries", "%s", strings.Join(v.Entries, ", "))
	}
	if v.Topic == "" {
		line("stream", "%s", v.Stream)
		line("position", "%s", v.At)
		line("transaction", "%d", v.XID)
		_, err := io.WriteString(w, printable(text.String()))
		return err
	}
	line("topic", "%s", v.origin())
	line("written", "%s", v.Written.Format(time.RFC3339Nano))
	for _, h := range v.Headers {
		line("header", "%s: %s", h.Name, h.bytesView)
	}
	line("key", "%s", *v.Key)
	line("value", "%s", *v.Value)
	_, err := io.WriteString(w, printable(text.String()))
	return err
}

func (v bytesView) String() string {
	switch {
	case v.Avro != nil:
		return fmt.Sprintf("%s (Avro, schema %d)", v.Avro, *v.Schema)
	case v.Text != nil:
		return *v.Text
	case v.Hex != "":
		return fmt.Sprintf("%s (%d bytes, in hex)", v.Hex, len(v.Hex)/2)
	}
	return "null"
}

// viewBytes shows what is text as text, and all else in hex.
func viewBytes(b []byte) bytesView {
	text := string(b)
	switch {
	case b == nil:
		return bytesView{}
	case utf8.ValidString(text) && !strings.ContainsFunc(text, control):
		return bytesView{Text: &text}
	}
	return bytesView{Hex: hex.EncodeToString(b)}
}

// viewMessage shows a key or value, as JSON if it is Avro with a schema that can
// be had.
func (b *letterBox) viewMessage(ctx context.Context, message []byte) bytesView {
	var header sr.ConfluentHeader
	number, body, err := header.DecodeID(message)
	if err != nil || b.config.Source.Kafka.SchemaRegistry.URL == "" {
		return viewBytes(message)
	}
	id := uint32(number)
	ask, err := schemaRegistry(b.config.Source.Kafka.SchemaRegistry)
	if err != nil {
		return viewBytes(message)
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	text, err := ask(ctx, id)
	if err != nil {
		return viewBytes(message)
	}
	shown, err := avroJSON(text, body)
	if err != nil {
		return viewBytes(message)
	}
	return bytesView{Avro: shown, Schema: &id}
}

func avroJSON(text string, message []byte) (json.RawMessage, error) {
	schema, err := avro.Parse(text)
	if err != nil {
		return nil, err
	}
	var value any
	rest, err := schema.Decode(message, &value)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes behind its end", len(rest))
	}
	if err != nil {
		return nil, err
	}
	return schema.EncodeJSON(value)
}

// chosen returns the letters with these numbers, or all.
func (b *letterBox) chosen(ctx context.Context, numbers []int64, all bool) ([]deadletter.Letter, error) {
	found, err := b.List(ctx)
	if err != nil || all {
		return found, err
	}
	byNumber := map[int64]deadletter.Letter{}
	for _, l := range found {
		byNumber[l.Number] = l
	}
	var chosen []deadletter.Letter
	for _, n := range numbers {
		l, ok := byNumber[n]
		if !ok {
			return nil, fmt.Errorf("there is no dead letter %d: unstale deadletter list shows those that there are", n)
		}
		chosen = append(chosen, l)
		delete(byNumber, n)
	}
	return chosen, nil
}

// An outcome is what became of one letter.
type outcome struct {
	Number  int64    `json:"number"`
	Removed bool     `json:"removed"`
	Dropped []string `json:"dropped,omitempty"` // keys
	Swept   []string `json:"swept,omitempty"`   // entries
	// Reason is why it is kept.
	Reason string `json:"reason,omitempty"`
	// Said is what else there is to say.
	Said string `json:"said,omitempty"`
}

func (o outcome) String() string {
	var did []string
	if len(o.Dropped) > 0 {
		did = append(did, "dropped "+strings.Join(o.Dropped, ", "))
	}
	if len(o.Swept) > 0 {
		did = append(did, "swept "+strings.Join(o.Swept, ", "))
	}
	if o.Said != "" {
		did = append(did, o.Said)
	}
	if o.Removed {
		did = append(did, "removed")
	} else {
		did = append(did, "kept: "+oneLine(o.Reason))
	}
	return fmt.Sprintf("%6d  %s", o.Number, strings.Join(did, "; "))
}

// each does something to letters, and removes those with which it is done.
func (b *letterBox) each(ctx context.Context, args []string, all, asJSON bool, do func(context.Context, deadletter.Letter) (outcome, error)) error {
	numbers, err := letterNumbers(args)
	if err != nil {
		return err
	}
	found, err := b.chosen(ctx, numbers, all)
	if err != nil {
		return err
	}
	outcomes, kept := []outcome{}, false
	for _, l := range found {
		var o outcome
		o, err = do(ctx, l)
		if err == nil && o.Removed {
			err = b.Remove(ctx, l)
		}
		if err != nil {
			err = fmt.Errorf("dead letter %d: %w", l.Number, err)
			break
		}
		outcomes, kept = append(outcomes, o), kept || !o.Removed
		if !asJSON {
			fmt.Fprintln(b.out, o)
		}
	}
	switch {
	case asJSON:
		err = errors.Join(err, printJSON(b.out, outcomes))
	case err == nil && len(found) == 0:
		fmt.Fprintln(b.out, "no dead letters")
	}
	if err == nil && kept {
		return errSaid
	}
	return err
}

func (b *letterBox) drop(_ context.Context, l deadletter.Letter) (outcome, error) {
	return outcome{Number: l.Number, Removed: true}, nil
}

func (b *letterBox) retry(ctx context.Context, l deadletter.Letter) (outcome, error) {
	o := outcome{Number: l.Number}
	if l.Record == nil {
		o.Reason = "the database's log is not kept, so there is nothing to read again; what the change could concern was swept: unstale deadletter drop removes it"
		return o, nil
	}
	l, err := b.Read(ctx, l.Number)
	if err != nil {
		return o, err
	}
	if b.again == nil {
		if b.again, err = newRetrier(ctx, b.config, b.client); err != nil {
			return o, err
		}
	}
	err = b.again.retry(ctx, l.Record, &o)
	return o, err
}

// A retrier reads records again, and drops.
type retrier struct {
	decoder *debezium.Decoder
	planner *plan.Planner
	sink    *redissink.Sink
	ours    []string // names of our database; empty: any
}

func newRetrier(ctx context.Context, c *config.Config, client *redis.Client) (*retrier, error) {
	x, err := examineForRetry(ctx, c)
	if err != nil {
		return nil, err
	}
	planner := plan.New(x.entries)
	tables, err := newTables(c.Source.Kafka, x, planner)
	if err != nil {
		return nil, err
	}
	if c.Database.URL != "" {
		shapes := make(plan.Shapes, len(x.entries))
		for i := range x.entries {
			shapes[i] = x.entries[i].Shape
		}
		tables.describe(x.tables, shapes)
	}
	sink := redissink.New(client, redissink.Options{Entries: x.entries, SweepRate: c.Sweep.KeysPerSecond})
	return &retrier{tables.decoder, planner, sink, x.names()}, nil
}

func examineForRetry(ctx context.Context, c *config.Config) (*examination, error) {
	if c.Database.URL == "" {
		return examineAlone(c)
	}
	options, err := databaseConfig(c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// An entry that cannot be planned is held by who runs: it is swept again and again.
	return examineHolding(ctx, c, conn, true)
}

// retry drops what the change of a record concerns. The change was committed long
// ago, so whoever loads from now on sees it: one pass over the keyspace is enough
// where its keys are unknown.
func (r *retrier) retry(ctx context.Context, record *deadletter.Record, o *outcome) error {
	bounded, cancel := context.WithTimeout(ctx, deadletterTimeout)
	defer cancel()
	var event debezium.Event
	if err := r.decoder.Decode(bounded, record.Key, record.Value, &event); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		o.Reason = err.Error()
		return nil
	}
	c, ok := kafkasource.Late(&event, r.ours...)
	switch {
	case ok && c.Op == change.Undecodable:
		o.Reason = c.Reason
		return nil
	case !ok:
		o.Said, o.Removed = "it concerns no entry", true
		return nil
	}
	batch := plan.NewBatch()
	r.planner.Plan(&c, batch)
	if slices.ContainsFunc(batch.Sweeps, func(s plan.Sweep) bool { return s.Cause == plan.Reshaped }) {
		// Letters are of different days: that the table has other columns in this one
		// than in the last one is no news, and is said once.
		batch = plan.NewBatch()
		r.planner.Plan(&c, batch)
	}
	if err := r.sink.Drop(bounded, batch); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	for i := range batch.Len() {
		o.Dropped = append(o.Dropped, string(batch.Key(i)))
	}
	var templates []plan.Keys
	entries := r.planner.Entries()
	// What would be looked up, or is a part of an entry: this is seldom enough to sweep it
	// wholly.
	swept := make([]int, 0, len(batch.Sweeps))
	for _, sweep := range batch.Sweeps {
		swept = append(swept, sweep.Entry)
	}
	for _, q := range batch.Questions {
		swept = append(swept, r.planner.Lookups()[q.Lookup].Entry)
	}
	slices.Sort(swept)
	for _, number := range slices.Compact(swept) {
		e := &entries[number]
		templates = append(templates, plan.Keys{Template: e.Key, Shielded: e.Sets()})
		o.Swept = append(o.Swept, e.Name)
	}
	if len(templates) > 0 {
		if _, _, err := r.sink.Sweep(ctx, templates); err != nil {
			return fmt.Errorf("redis: %w", err)
		}
	}
	if len(o.Dropped)+len(o.Swept) == 0 {
		o.Said = "it has no key"
	}
	o.Removed = true
	return nil
}
