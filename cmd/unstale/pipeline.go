package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/unstale/unstale/internal/admin"
	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/connect"
	"github.com/unstale/unstale/internal/database"
)

const (
	// pipelineEvery is how often the connector's slot is looked at.
	pipelineEvery = time.Second
	// unreadMax is how long nobody may read the slot before that is said: it takes as
	// long when a worker, or the server, is restarted.
	unreadMax = 30 * time.Second
	// unconfirmedMax is the same for a slot that is read and does not move. Connect
	// notes how far its connectors are once a minute.
	unconfirmedMax = 5 * time.Minute
	// unconfirmedBytes: an idle server writes a little by itself. Heartbeats write as
	// much in a few minutes.
	unconfirmedBytes = 16 << 10
)

// A pipelineWatch tells how far the topics are behind the database's log. When
// Debezium does not send, the topics have nothing to be read, and look as they do
// when there is nothing to send.
//
// The slot says it: somebody has to read it, and up to where it was sent the log is
// in the topics, or soon will be. A connector that is paused keeps its slot, and
// reads on until its queue is full: so it counts only while it runs. One whose
// records the brokers do not take, as of a topic that somebody has deleted, confirms
// nothing more: where it has a heartbeat, that is seen too. Records and their LSNs
// would not do: of tables that rest there are none.
type pipelineWatch struct {
	look func(context.Context) (database.SlotState, error) // nil: there is no database to ask
	// beats asks whether the connector has a heartbeat, so that its slot moves.
	beats     func(context.Context) (bool, error)
	logger    *slog.Logger
	slot      string
	connector string

	mu  sync.Mutex
	lag apply.Lag
	now admin.Pipeline
	// reached is up to where the log was read while the connector ran; known says
	// that the slot was seen.
	reached uint64
	known   bool
	// heard is what Connect said last.
	running  bool
	answered bool
	// unread is since when nobody reads the slot; zero: somebody does. still is since
	// when it stands at confirmed.
	unread, still time.Time
	confirmed     uint64
	unconfirmed   uint64 // bytes
	// askedBeat: it was asked for a heartbeat since it stands still; beat: it has one.
	askedBeat, beat bool
	said            string
}

// newPipelineWatch watches the connector of the configuration, and its slot where
// there is a database.
func newPipelineWatch(c *config.Config, client *connect.Client, logger *slog.Logger) (w *pipelineWatch, end func(), err error) {
	k := c.Source.Kafka.Connect
	w = &pipelineWatch{logger: logger, slot: k.Slot, connector: k.Connector}
	w.beats = func(ctx context.Context) (bool, error) {
		have, err := client.Config(ctx, k.Connector)
		return connect.Value(have, "heartbeat.interval.ms") != "0" && have["heartbeat.action.query"] != "", err
	}
	w.now = admin.Pipeline{Connector: k.Connector}
	if c.Database.URL == "" {
		return w, func() {}, nil
	}
	options, err := databaseConfig(c)
	if err != nil {
		return nil, nil, err
	}
	w.now.Slot = k.Slot
	var conn *pgx.Conn
	hangUp := func() {
		if conn != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = conn.Close(ctx) // it holds nothing
			conn = nil
		}
	}
	w.look = func(ctx context.Context) (state database.SlotState, err error) {
		if conn == nil {
			if conn, err = pgx.ConnectConfig(ctx, options); err != nil {
				return state, err
			}
		}
		if state, err = database.Slot(ctx, conn, w.slot); err != nil {
			hangUp()
		}
		return state, err
	}
	return w, hangUp, nil
}

// hear notes what each answer of Connect says.
func (w *pipelineWatch) hear(ask func(context.Context) (connect.Status, error)) func(context.Context) (connect.Status, error) {
	return func(ctx context.Context) (connect.Status, error) {
		status, err := ask(ctx)
		if !errors.Is(ctx.Err(), context.Canceled) { // then nobody was asked
			w.heard(status, err)
		}
		return status, err
	}
}

func (w *pipelineWatch) heard(s connect.Status, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answered, w.running, w.now.Reason = err == nil, s.Running(), ""
	switch {
	case errors.Is(err, connect.ErrNotFound):
		w.answered, w.now.State = true, "absent"
	case err != nil:
		w.now.State, w.now.Reason = "unreachable", err.Error()
	case s.Failed():
		w.now.State, w.now.Reason = string(connect.Failed), s.Reason()
	case s.Connector.State == connect.Running && !s.Running():
		w.now.State = "without a task"
		for _, t := range s.Tasks {
			w.now.State = string(t.State)
		}
	default:
		w.now.State = string(s.Connector.State)
	}
}

// run looks until ctx ends.
func (w *pipelineWatch) run(ctx context.Context) {
	if w.look == nil {
		return
	}
	tick := time.NewTicker(pipelineEvery)
	defer tick.Stop()
	for {
		asked := time.Now()
		bounded, cancel := context.WithTimeout(ctx, checkTimeout)
		state, err := w.look(bounded)
		if err == nil { // else the loop, which needs the database too, says it
			if w.see(asked, state); w.isStill(asked) {
				w.askBeat(bounded)
			}
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// isStill reports whether the slot is read and has not moved for long.
func (w *pipelineWatch) isStill(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now.Read && now.Sub(w.still) >= unconfirmedMax && !w.askedBeat
}

// askBeat tells a connector that gets nothing to the brokers from one whose tables
// rest.
func (w *pipelineWatch) askBeat(ctx context.Context) {
	beat, err := w.beats(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.askedBeat, w.beat = err == nil, err == nil && beat
}

// see notes what the slot is like.
func (w *pipelineWatch) see(now time.Time, s database.SlotState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Flushed < w.reached {
		// Another server, or one that was set back.
		w.lag, w.reached = apply.Lag{}, 0
	}
	w.known = true
	w.lag.Sample(now, s.Flushed)
	w.now.Read, w.now.Text = s.Active, ""
	if s.Active && (w.running || !w.answered) {
		// Where the role does not see what was sent, whoever reads is taken to be there.
		sent := s.Sent
		if sent == 0 {
			sent = s.Flushed
		}
		w.reached = max(w.reached, sent)
	}
	w.reached = max(w.reached, s.Confirmed)
	if s.Confirmed != w.confirmed || !s.Active || s.Behind < unconfirmedBytes {
		w.confirmed, w.still = s.Confirmed, now
		w.askedBeat, w.beat = false, false
	}
	w.unconfirmed = uint64(max(s.Behind, 0))
	if s.Active {
		w.unread = time.Time{}
	} else if w.unread.IsZero() {
		w.unread = now
	}

	message, mend := "", ""
	switch unread := !w.unread.IsZero(); {
	case unread && !s.Exists:
		w.now.Text = "it does not exist"
		message = "the connector's slot does not exist: no change comes"
		mend = "unstale connector status says more; if the connector has another slot, write it into source.kafka.connect.slot"
	case unread && !s.Usable:
		w.now.Text = "the server has thrown away log that it needs"
		message = "the server has thrown away log that the connector's slot needs: no change comes"
		mend = fmt.Sprintf("SELECT pg_drop_replication_slot('%s'), and the connector begins anew", w.slot)
	case unread:
		w.now.Text = "nobody reads it"
		message = "nobody reads the connector's slot: no change comes, and what is cached grows old"
		mend = "unstale connector status says more; if the connector copies the rows that there are (its snapshot), this ends by itself"
	case now.Sub(w.still) >= unconfirmedMax:
		w.now.Text = fmt.Sprintf("it is read, and was not moved for %s: the server keeps %d bytes of its log for it", now.Sub(w.still).Round(time.Second), s.Behind)
		message = "the connector's slot is read and does not move: either no change reaches the topics, or no table of the connector changes and it has no heartbeat"
		mend = "look at the log of Kafka Connect, and whether the topics are there; unstale connector apply sets the heartbeat"
	}
	w.now.Stuck = w.beat
	switch {
	case message == "":
		if w.said != "" {
			w.logger.Info("the connector's slot is read and moves again", "slot", w.slot)
		}
		w.said = ""
	case message != w.said && (w.unread.IsZero() || now.Sub(w.unread) >= unreadMax):
		w.said = message
		bytes, age := w.lag.Behind(now, w.reached)
		if w.unread.IsZero() {
			bytes, age = w.unconfirmed, now.Sub(w.still)
		}
		w.logger.Warn(message, "slot", w.slot, "connector", w.connector, "behind_bytes", bytes, "behind", age.Round(time.Second), "mend", mend)
	}
}

// pipeline is what status and metrics show.
func (w *pipelineWatch) pipeline() admin.Pipeline { return w.at(time.Now()) }

func (w *pipelineWatch) at(moment time.Time) admin.Pipeline {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now
	if w.known {
		bytes, age := w.lag.Behind(moment, w.reached)
		now.BehindBytes, now.BehindSeconds = bytes, age.Seconds()
		if w.beat {
			now.BehindBytes, now.BehindSeconds = w.unconfirmed, moment.Sub(w.still).Seconds()
		}
	}
	return now
}
