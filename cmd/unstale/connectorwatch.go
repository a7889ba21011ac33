package main

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/connect"
)

const (
	// connectorEvery is how often run looks at its connector.
	connectorEvery = 5 * time.Second
	// restartMin and restartMax bound how long run waits before it restarts what has
	// failed: the connector may fail again at once, and each start costs the database
	// a connection.
	restartMin = 10 * time.Second
	restartMax = 10 * time.Minute
	// unclearMax is how long Connect may not say how the connector is, or say that it
	// neither runs nor has failed, before that is said: it takes as long when a worker
	// is restarted.
	unclearMax = time.Minute
)

// A connectorWatch looks at the connector while run works: nothing comes through
// the topics any more when its task has failed, and nobody else would say so.
type connectorWatch struct {
	ask       func(context.Context) (connect.Status, error)
	restart   func(context.Context) error // nil: a person does
	logger    *slog.Logger
	connector string
	every     time.Duration

	failed  atomic.Bool
	wait    time.Duration // before the next restart
	next    time.Time
	unclear time.Time // since when nobody knows how it is; zero: it is known
	said    string    // what was said last; empty: it runs, as far as anybody was told
}

func newConnectorWatch(c *config.Config, client *connect.Client, logger *slog.Logger) *connectorWatch {
	name := c.Source.Kafka.Connect.Connector
	w := &connectorWatch{
		ask:       func(ctx context.Context) (connect.Status, error) { return client.Status(ctx, name) },
		logger:    logger,
		connector: name,
		every:     connectorEvery,
		wait:      restartMin,
	}
	if c.Source.Kafka.Connect.Restart {
		w.restart = func(ctx context.Context) error { return client.RestartFailed(ctx, name) }
	}
	return w
}

// hasFailed is a metric: 1 while the connector or its task has failed, or there is
// none of its name.
func (w *connectorWatch) hasFailed() bool { return w.failed.Load() }

// run looks until ctx ends.
func (w *connectorWatch) run(ctx context.Context) {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		w.look(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look asks once. A Connect that does not answer says nothing about its connector,
// which may go on all the same.
func (w *connectorWatch) look(ctx context.Context, now time.Time) {
	bounded, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	status, err := w.ask(bounded)
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, connect.ErrNotFound):
		w.unclear = time.Time{}
		w.failed.Store(true)
		w.say(slog.LevelError, "there is no such connector: no change comes until there is one", "",
			"mend", "unstale connector apply makes it; or write the name of yours into source.kafka.connect.connector")
	case err != nil:
		w.unsure(now, "Kafka Connect does not say how the connector is: when it has failed nobody is told", "err", err)
	case status.Failed():
		w.unclear = time.Time{}
		w.failed.Store(true)
		w.hasFailedWith(bounded, status.Reason(), now)
	case status.Running():
		w.unclear = time.Time{}
		w.failed.Store(false)
		if w.said != "" {
			w.said = ""
			w.logger.Info("the connector runs", "connector", w.connector)
		}
		if now.After(w.next.Add(restartMax)) {
			w.wait, w.next = restartMin, time.Time{}
		}
	case status.Connector.State == connect.Paused || status.Connector.State == connect.Stopped:
		w.unclear = time.Time{}
		w.failed.Store(false)
		w.say(slog.LevelWarn, "somebody has halted the connector: no change comes until it is resumed", string(status.Connector.State),
			"state", status.Connector.State, "mend", "unstale connector resume")
	default: // it starts, or its workers share out their tasks
		w.unsure(now, "the connector does not run, and has not failed: no change comes", "state", status.Connector.State, "tasks", len(status.Tasks),
			"mend", "the log of Kafka Connect says why")
	}
}

// say says something once, for as long as nothing else is to be said.
func (w *connectorWatch) say(level slog.Level, message, reason string, more ...any) {
	if now := message + reason; now != w.said {
		w.said = now
		w.logger.Log(context.Background(), level, message, append([]any{"connector", w.connector}, more...)...)
	}
}

// unsure says what is no answer when it has been none for a while.
func (w *connectorWatch) unsure(now time.Time, message string, more ...any) {
	if w.unclear.IsZero() {
		w.unclear = now
	}
	if now.Sub(w.unclear) >= unclearMax {
		w.say(slog.LevelWarn, message, "", more...)
	}
}

// hasFailedWith says why, and restarts what has failed if that is wanted.
func (w *connectorWatch) hasFailedWith(ctx context.Context, reason string, now time.Time) {
	mend := "unstale connector restart, when that is mended"
	if w.restart != nil {
		mend = "it is restarted, more and more seldom"
	}
	w.say(slog.LevelError, "the connector has failed: no change comes until it runs again", reason, "reason", reason, "mend", mend)
	if w.restart == nil || now.Before(w.next) {
		return
	}
	if w.next.IsZero() {
		w.next = now.Add(w.wait)
		return
	}
	w.wait = min(2*w.wait, restartMax)
	w.next = now.Add(w.wait)
	if err := w.restart(ctx); err != nil {
		w.logger.Warn("restart the connector", "connector", w.connector, "err", err)
	}
}
