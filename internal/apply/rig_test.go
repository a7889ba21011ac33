package apply_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
	"github.com/unstale/unstale/internal/plan"
	"github.com/unstale/unstale/internal/value"
)

// A rig is a loop between a fake source, primary and master, in a bubble whose
// clock stands still unless everything waits. A goroutine that outlives the
// loop fails the test: the bubble does not end.
type rig struct {
	t        *testing.T
	source   *source
	gate     *gate
	catalog  *catalog
	sink     *sink
	observer *observer
	loader   *loader
	finder   *finder
	logs     *logs
	planner  *plan.Planner
	options  apply.Options

	loop *apply.Loop
	stop context.CancelFunc
	done chan error
}

const (
	userTemplate    = "user:{id}"
	productTemplate = "product:{id}"
)

// play runs test with a rig whose master was left by an earlier owner at
// position 100: no gap, nothing pending.
func play(t *testing.T, test func(r *rig)) {
	t.Helper()
	playWith(t, nil, test)
}

// playWith does so with more entries.
func playWith(t *testing.T, more []plan.Entry, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, logs: &logs{}, observer: &observer{}, done: make(chan error, 1)}
		var entries []plan.Entry
		for _, e := range []struct{ name, key, table string }{{"user", userTemplate, "users"}, {"product", productTemplate, "products"}, {"mail", "mail:{mail}", "mails"}} {
			template, err := guard.ParseTemplate(e.key)
			if err != nil {
				t.Fatal(err)
			}
			entries = append(entries, plan.Entry{Name: e.name, Key: template, Schema: "public", Table: e.table, Lease: guard.Lease})
		}
		for _, e := range []struct {
			name     string
			onChange plan.OnChange
			columns  []string
		}{{"warm", plan.Warm, []string{"id"}}, {"update", plan.Update, []string{"id"}}, {"long", plan.Warm, []string{"id", "note"}}} {
			template, err := guard.ParseTemplate(e.name + ":{id}")
			if err != nil {
				t.Fatal(err)
			}
			var shape value.Shape
			for _, column := range e.columns {
				shape.Columns = append(shape.Columns, value.Column{Name: column, Type: &value.Type{OID: 25}})
			}
			entries = append(entries, plan.Entry{Name: e.name, Key: template, Schema: "public", Table: e.name, Lease: guard.Lease, OnChange: e.onChange, TTL: time.Hour, Shape: shape})
		}
		r.planner = plan.New(append(entries, more...))
		r.source = &source{at: change.Attachment{Origin: origin, Streams: []change.Stream{{Name: "1:2:unstale", Confirmed: at(100)}}}, wake: make(chan struct{}, 1)}
		r.gate = &gate{running: map[uint64]bool{}, insert: 100}
		r.catalog = &catalog{now: guard.Fingerprints{
			"user":    {Key: userTemplate, Hash: "1"},
			"product": {Key: productTemplate, Hash: "1"},
		}}
		r.sink = &sink{t: t, sealed: map[string]bool{}, durable: 3 * time.Second, runID: "a", names: []string{"1:2:unstale"}}
		r.sink.mark = guard.Watermark{Lo: at(100), Settled: at(100), Origin: origin.String(), Fingerprints: r.catalog.now}
		r.loader, r.finder = &loader{}, &finder{}
		r.options = apply.Options{Observer: r.observer, Loader: r.loader, Finder: r.finder, Logger: slog.New(slog.NewTextHandler(r.logs, nil))}
		defer func() {
			if r.loop != nil {
				r.end()
			}
		}()
		test(r)
	})
}

var origin = change.Origin{System: 1, Database: 2, Timeline: 1, StartedAt: time.Unix(1, 0)}

func at(lsn uint64) change.Position { return change.Position{Timeline: 1, LSN: lsn} }

// start runs the loop and waits until it has nothing to do but wait.
func (r *rig) start() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	r.stop = cancel
	r.loop = apply.New(r.source, r.planner, r.gate, r.catalog, r.sink, r.options)
	go func() { r.done <- r.loop.Run(ctx) }()
	synctest.Wait()
}

// end stops the loop, which must come to its end.
func (r *rig) end() {
	r.t.Helper()
	r.stop()
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Errorf("Run returned %v, want nil", err)
		}
	case <-time.After(time.Hour):
		r.t.Fatal("Run does not return")
	}
	r.loop = nil
}

// pass lets time go by.
func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// relation has the planner compile a table whose first column is its primary
// key.
func (r *rig) relation(number int, name string, columns ...string) *change.Relation {
	relation := &change.Relation{Number: number, Schema: "public", Name: name, Identity: change.IdentityDefault}
	for i, column := range columns {
		relation.Columns = append(relation.Columns, change.Column{Name: column, Identifies: i == 0})
	}
	relation.Wanted = r.planner.Compile(relation)
	return relation
}

// rows are the inserts of one transaction into warm or update, and its end.
func (r *rig) rows(table string, xid uint32, lsn uint64, ids ...string) []change.Change {
	relation := r.relation(map[string]int{"warm": 3, "update": 4}[table], table, "id")
	changes := r.users(xid, lsn, ids...)
	for i := range ids {
		changes[i].Relation = relation
	}
	return changes
}

// long is the insert of one transaction into long, and its end.
func (r *rig) long(xid uint32, lsn uint64, id, note string) []change.Change {
	changes := r.users(xid, lsn, id)
	changes[0].Relation = r.relation(5, "long", "id", "note")
	changes[0].New.Values = append(changes[0].New.Values, change.Value{State: change.Text, Text: []byte(note)})
	return changes
}

// users are the inserts of one transaction, and its end.
func (r *rig) users(xid uint32, lsn uint64, ids ...string) []change.Change {
	relation := r.relation(0, "users", "id")
	var changes []change.Change
	for i, id := range ids {
		changes = append(changes, change.Change{
			Op: change.Insert, Relation: relation, XID: xid, LSN: lsn, Position: change.Position{Timeline: 1, LSN: lsn, Row: uint64(i + 1)},
			New: change.Row{Kind: change.Whole, Values: []change.Value{{State: change.Text, Text: []byte(id)}}},
		})
	}
	return append(changes, commit(xid, lsn+8))
}

// mail is an update that does not tell which key became stale.
func (r *rig) mail(xid uint32, lsn uint64) []change.Change {
	relation := r.relation(1, "mails", "id", "mail")
	return []change.Change{{
		Op: change.Update, Relation: relation, XID: xid, LSN: lsn, Position: change.Position{Timeline: 1, LSN: lsn, Row: 1},
		New: change.Row{Kind: change.Whole, Values: []change.Value{{State: change.Text, Text: []byte("a@x")}}},
	}, commit(xid, lsn+8)}
}

func (r *rig) truncate(xid uint32, lsn uint64) []change.Change {
	relation := r.relation(2, "products", "id")
	return []change.Change{{Op: change.Truncate, Relation: relation, XID: xid, LSN: lsn, Position: change.Position{Timeline: 1, LSN: lsn, Row: 1}}, commit(xid, lsn+8)}
}

func commit(xid uint32, lsn uint64) change.Change {
	return change.Change{Op: change.Commit, XID: xid, Position: at(lsn), CommittedAt: time.Now().UnixMicro()}
}

func idle(lsn uint64) change.Change { return change.Change{Op: change.Idle, Position: at(lsn)} }

// source is a stream that the test feeds.
type source struct {
	mu        sync.Mutex
	at        change.Attachment
	attach    func() error // before an attachment, if not nil
	changes   []change.Change
	more      func() *change.Change // when changes is empty, if not nil
	broken    error                 // what Next returns once
	attached  []time.Time
	read      int
	confirmed []confirmation
	closed    int
	wake      chan struct{}

	current change.Change
	texts   [][]byte // of current
}

type confirmation struct {
	at       time.Time
	position change.Position
	stream   int
}

func (s *source) Attach(ctx context.Context) (change.Attachment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attached = append(s.attached, time.Now())
	if err := ctx.Err(); err != nil {
		return change.Attachment{}, err
	}
	if s.attach != nil {
		if err := s.attach(); err != nil {
			return change.Attachment{}, err
		}
	}
	return s.at, nil
}

func (s *source) Next(ctx context.Context) (*change.Change, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if c, err := s.next(); c != nil || err != nil {
			return c, err
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
		}
	}
}

func (s *source) next() (*change.Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.broken; err != nil {
		s.broken = nil
		return nil, err
	}
	// A change is valid until the next call: whoever keeps it reads rubbish.
	for _, text := range s.texts {
		for i := range text {
			text[i] = '?'
		}
	}
	s.texts, s.current = nil, change.Change{}
	switch {
	case len(s.changes) > 0:
		s.current, s.changes = s.changes[0], s.changes[1:]
	case s.more != nil:
		s.current = *s.more()
	default:
		return nil, nil
	}
	s.read++
	for _, row := range []*change.Row{&s.current.Old, &s.current.New} {
		row.Values = slices.Clone(row.Values)
		for i := range row.Values {
			row.Values[i].Text = bytes.Clone(row.Values[i].Text)
			s.texts = append(s.texts, row.Values[i].Text)
		}
	}
	return &s.current, nil
}

func (s *source) Pending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.changes) > 0 || s.more != nil
}

func (s *source) Resume(context.Context, []change.Position) error { return nil }

func (s *source) Behind() (int64, time.Time) { return 0, time.Time{} }

func (s *source) Confirm(stream int, p change.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirmed = append(s.confirmed, confirmation{time.Now(), p, stream})
}

func (s *source) Close(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return ctx.Err()
}

// send delivers changes, and waits until the loop has nothing to do but wait.
func (r *rig) send(changes ...[]change.Change) {
	r.source.give(slices.Concat(changes...))
	synctest.Wait()
}

func (s *source) give(changes []change.Change) {
	s.mu.Lock()
	s.changes = append(s.changes, changes...)
	s.mu.Unlock()
	s.nudge()
}

func (s *source) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *source) fail(err error) {
	s.mu.Lock()
	s.broken = err
	s.mu.Unlock()
	s.nudge()
	synctest.Wait()
}

func (s *source) confirmations() []confirmation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.confirmed)
}

func (s *source) count() (read, attached int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read, len(s.attached)
}

// gate is a primary on which the transactions of running are not yet visible.
// It has begun transactions up to 1 << 20, or up to xmax, and says so if next is set.
type gate struct {
	mu       sync.Mutex
	running  map[uint64]bool
	xmax     uint64
	next     uint64
	unknown  bool // there is no primary
	insert   uint64
	err      error
	asked    int
	expected change.Origin
}

func (g *gate) Expect(o change.Origin) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expected = o
}

func (g *gate) Snapshot(ctx context.Context, s *change.Snapshot) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	if g.err != nil {
		return g.err
	}
	*s = change.Snapshot{XMin: 1 << 20, XMax: 1 << 20, Next: g.next, InsertLSN: g.insert}
	if g.xmax != 0 {
		s.XMin, s.XMax = g.xmax, g.xmax
	}
	if g.unknown {
		*s = change.Snapshot{Unknown: true}
		return ctx.Err()
	}
	for xid := range g.running {
		s.XIP = append(s.XIP, xid)
		s.XMin = min(s.XMin, xid)
	}
	slices.Sort(s.XIP)
	return ctx.Err()
}

func (g *gate) set(update func(*gate)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	update(g)
}

func (g *gate) questions() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked
}

type catalog struct {
	mu  sync.Mutex
	now guard.Fingerprints
	// shapes are given with the next look.
	shapes    plan.Shapes
	unplanned map[string]string
	err       error
	replan    error
}

func (c *catalog) Look(context.Context) (apply.Look, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	look := apply.Look{Fingerprints: c.now, Shapes: c.shapes, Unplanned: c.unplanned}
	c.shapes = nil
	return look, c.err
}

func (c *catalog) Replan(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.replan
}

func (c *catalog) set(update func(*catalog)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	update(c)
}

// written is a batch as the master has it.
type written struct {
	at       time.Time
	keys     string // those that are SET with their value and position
	until    time.Time
	end      change.Position
	settled  change.Position
	note     *guard.Note
	sweeping bool
	stream   int
	seen     change.Sequence
	restores []string // keys that are written if there is nothing
}

// sink is a master that keeps what was written.
type sink struct {
	t       *testing.T
	mu      sync.Mutex
	mark    guard.Watermark
	durable time.Duration
	runID   string
	// names are those of the streams; others are the watermarks of all but the
	// first.
	names  []string
	others []guard.Watermark

	owned   int
	batches []written
	swept   []sweep
	// named are the steps with names, and the sweeps by them; sealed are the templates
	// whose names are complete.
	named  []string
	sealed map[string]bool
	err    error // what Write and Probe return
	// refuse decides, if not nil, how many batches are taken and what is said.
	refuse func(batches []*plan.Batch) (int, error)
	// blocked holds writes back until it is closed, if not nil.
	blocked chan struct{}
	probes  int
	// unanswered are the batches behind the last error, as they were given.
	unanswered []written
	attempts   []time.Time // of writes
	sweeping   func(pass int)
	apply      func(b *plan.Batch) // does what a batch does to indexes, if not nil
}

// passTime is how long one pass of a sweep takes.
const passTime = 2 * time.Second

type sweep struct {
	at        time.Time
	templates string
}

func (s *sink) Own(ctx context.Context, streams []string) ([][]guard.Watermark, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(streams, s.names) {
		s.t.Errorf("streams %q", streams)
	}
	s.owned++
	s.mark.Epoch++
	s.unanswered = nil
	marks := [][]guard.Watermark{{s.mark}}
	for i := range s.names[1:] {
		s.others[i].Epoch++
		marks = append(marks, []guard.Watermark{s.others[i]})
	}
	return marks, ctx.Err()
}

func (s *sink) Write(ctx context.Context, batches []*plan.Batch) (int, error) {
	s.mu.Lock()
	blocked := s.blocked
	s.mu.Unlock()
	if blocked != nil {
		select {
		case <-blocked:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts = append(s.attempts, time.Now())
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var given []written
	for _, b := range batches {
		var keys, restores []string
		for i := range b.Len() {
			key := string(b.Key(i))
			if b.Effect(i) == plan.Restore {
				restores = append(restores, key)
			}
			if text, lsn := b.Value(i); b.Effect(i) >= plan.Set {
				key = fmt.Sprintf("%s=%s@%d", key, text, lsn)
			}
			keys = append(keys, key)
		}
		given = append(given, written{keys: strings.Join(keys, " "), until: b.Until, end: b.End, settled: b.Settled, note: b.Note, sweeping: len(b.Sweeps) > 0, stream: b.Stream, seen: b.Seen, restores: restores})
	}
	// Redis may have applied what it did not answer: it must be the same again.
	for i, want := range s.unanswered {
		if i >= len(given) {
			s.t.Errorf("%d of the %d batches without an answer were sent again", len(given), len(s.unanswered))
			break
		}
		if diff := cmp.Diff(want, given[i], cmp.AllowUnexported(written{})); diff != "" {
			s.t.Errorf("a batch that was sent again is another (-want +got):\n%s", diff)
		}
	}
	n, err := len(batches), s.err
	if s.refuse != nil {
		n, err = s.refuse(batches)
	} else if err != nil {
		n = 0
	}
	s.unanswered = slices.Clone(given[n:])
	for _, b := range batches[:n] {
		if s.apply != nil {
			s.apply(b)
		}
	}
	for _, w := range given[:n] {
		w.at = time.Now()
		mark := &s.mark
		if w.stream > 0 {
			mark = &s.others[w.stream-1]
		}
		if len(s.batches) > 0 && mark.Lo.Compare(w.end) > 0 && w.note == nil {
			s.t.Errorf("the position went back from %s to %s", mark.Lo, w.end)
		}
		s.batches = append(s.batches, w)
		mark.Lo, mark.Settled = w.end, w.settled
		if w.note != nil {
			mark.Origin, mark.Ungated, mark.Fingerprints, mark.Sweeps = w.note.Origin, w.note.Ungated, w.note.Fingerprints, w.note.Sweeps
		}
		if w.seen != (change.Sequence{}) {
			mark.Seen = w.seen
		}
	}
	return n, err
}

func (s *sink) Probe(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.probes++
	return s.err
}

func (s *sink) Sweep(ctx context.Context, templates []plan.Keys) (scanned, dropped int, err error) {
	var texts []string
	for _, t := range templates {
		text := t.String()
		if t.Part != nil {
			text = t.Part.String()
		}
		if len(t.Indexes) > 0 {
			text += fmt.Sprintf("+%v", t.Indexes)
		}
		texts = append(texts, text)
	}
	s.mu.Lock()
	s.swept = append(s.swept, sweep{time.Now(), strings.Join(texts, " ")})
	sweeping, pass := s.sweeping, len(s.swept)
	err = s.err
	s.mu.Unlock()
	select {
	case <-time.After(passTime):
	case <-ctx.Done():
	}
	if sweeping != nil {
		sweeping(pass)
	}
	return 1000, 1, errors.Join(err, ctx.Err())
}

// SweepNamed sweeps what has a seal.
func (s *sink) SweepNamed(ctx context.Context, keys []plan.Keys) (left []plan.Keys, scanned, dropped int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if s.sealed[k.String()] {
			text := k.String()
			if k.Part != nil {
				text = k.Part.String()
			}
			s.named = append(s.named, "names of "+text)
		} else {
			left = append(left, k)
		}
	}
	return left, 10, 1, s.err
}

func (s *sink) Collect(ctx context.Context, keys []plan.Keys, token string) error {
	return s.step(ctx, keys, "collect", token)
}

func (s *sink) Collected(ctx context.Context, keys []plan.Keys, token string) error {
	return s.step(ctx, keys, "collected", token)
}

func (s *sink) Seal(ctx context.Context, keys []plan.Keys) error {
	return s.step(ctx, keys, "seal", "")
}

func (s *sink) step(_ context.Context, keys []plan.Keys, step, token string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	for i := range keys {
		// Each step finds the draft of the one before.
		if before := map[string]string{"collect": "", "collected": "collect", "seal": "collected"}[step]; keys[i].Draft != before {
			return fmt.Errorf("%s: the draft is %q", step, keys[i].Draft)
		}
		keys[i].Draft = step
		s.named = append(s.named, step+" "+keys[i].String())
		if step == "seal" {
			s.sealed[keys[i].String()] = true
		}
	}
	return nil
}

// wide are sweeps of all keys of templates.
func wide(templates ...string) []guard.Sweep {
	sweeps := make([]guard.Sweep, len(templates))
	for i, template := range templates {
		sweeps[i].Key = template
	}
	return sweeps
}

func (s *sink) RunID(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runID, s.err
}

func (s *sink) DurableAfter(context.Context) (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable, nil
}

func (s *sink) set(update func(*sink)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	update(s)
}

func (s *sink) watermark() guard.Watermark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mark
}

func (s *sink) sweeps() []sweep {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.swept)
}

func (s *sink) steps() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	steps := strings.Join(s.named, ", ")
	s.named = nil
	return steps
}

func (s *sink) all() []written {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.batches)
}

func (s *sink) owners() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owned
}

// drops are the keys dropped so far, in order.
func (r *rig) drops() []string {
	keys := []string{}
	for _, w := range r.sink.all() {
		keys = append(keys, strings.Fields(w.keys)...)
	}
	return keys
}

func (r *rig) wantDrops(want ...string) {
	r.t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), r.drops()); diff != "" {
		r.t.Errorf("drops (-want +got):\n%s", diff)
	}
}

// loader is asked to load keys.
type loader struct {
	mu     sync.Mutex
	keys   []string
	forgot int
}

func (l *loader) Request(entry int, key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys = append(l.keys, key)
}

func (l *loader) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys = nil
	l.forgot++
}

func (r *rig) wantLoads(want ...string) {
	r.t.Helper()
	r.loader.mu.Lock()
	defer r.loader.mu.Unlock()
	if diff := cmp.Diff(append([]string{}, want...), append([]string{}, r.loader.keys...)); diff != "" {
		r.t.Errorf("loads (-want +got):\n%s", diff)
	}
}

// finder answers lookups with what find gives.
type finder struct {
	mu    sync.Mutex
	find  func(ctx context.Context, arguments [][]*string, each func(values [][]byte) error) (insert uint64, err error)
	asked []string // the arguments of each statement

	members func(ctx context.Context, values []string, each func([][]byte) error) (insert uint64, err error)
	built   []string // the values of each set that was asked for
}

func (f *finder) Find(ctx context.Context, lookup int, arguments [][]*string, each func(values [][]byte) error) (insert uint64, err error) {
	var texts []string
	for _, column := range arguments {
		for _, text := range column {
			if text == nil {
				texts = append(texts, "NULL")
			} else {
				texts = append(texts, *text)
			}
		}
	}
	f.mu.Lock()
	f.asked = append(f.asked, strings.Join(texts, " "))
	find := f.find
	f.mu.Unlock()
	return find(ctx, arguments, each)
}

// Members finds those that the test has set, for any set.
func (f *finder) Members(ctx context.Context, index int, values []string, each func(member [][]byte) error) (insert uint64, err error) {
	f.mu.Lock()
	f.built = append(f.built, strings.Join(values, " "))
	members := f.members
	f.mu.Unlock()
	return members(ctx, values, each)
}

func (f *finder) set(find func(ctx context.Context, arguments [][]*string, each func(values [][]byte) error) (insert uint64, err error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.find = find
}

func (f *finder) statements() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

type observer struct {
	mu        sync.Mutex
	gated     []int // snapshots of each group
	held      map[string]int
	gaps      []string
	requested []string
	passes    int
	changes   int
	latencies []time.Duration
	// lookups are how many questions indexes have answered, and how many the database.
	lookups [2]int
	built   int
}

func (o *observer) LookedUp(entry string, index, database int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lookups[0] += index
	o.lookups[1] += database
}

func (o *observer) Built(entry string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.built++
}

func (o *observer) Written(w apply.Written) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changes += w.Changes
	o.latencies = append(o.latencies, w.Latencies...)
}

func (o *observer) Gated(waited time.Duration, snapshots int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gated = append(o.gated, snapshots)
}

func (o *observer) Held(server string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.held == nil {
		o.held = map[string]int{}
	}
	o.held[server]++
}

func (o *observer) Gap(cause string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gaps = append(o.gaps, cause)
}

func (o *observer) Sweep(entry, cause string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requested = append(o.requested, entry+" "+cause)
}

func (o *observer) Swept(scanned, dropped int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.passes++
}

func (o *observer) get(read func(*observer)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	read(o)
}

// logs keeps what was logged.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

func (r *rig) wantLogged(text string, want int) {
	r.t.Helper()
	if got := r.logs.count(text); got != want {
		r.t.Errorf("%q was logged %d times, want %d; the log:\n%s", text, got, want, r.logs.text.String())
	}
}

func (r *rig) wantStatus(what string, got, want any) {
	r.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func ids(from, to int) []string {
	var list []string
	for i := from; i < to; i++ {
		list = append(list, fmt.Sprint(i))
	}
	return list
}
