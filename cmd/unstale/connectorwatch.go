package main

import (
	"context"
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
)

// A connectorWatch looks at the connector while run works: nothing comes through
// the topics any more when its task has failed, and nobody else would say so.
type connectorWatch struct {
	ask       func(context.Context) (connect.Status, error)
	restart   func(context.Context) error // nil: a person does
	logger    *slog.Logger
	connector string
	every     time.Duration

	failed atomic.Bool
	wait   time.Duration // before the next restart
	next   time.Time
	said   string
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

// hasFailed is a metric: 1 while the connector or its task has failed.
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
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	status, err := w.ask(ctx)
	if err != nil {
		return
	}
	if !status.Failed() {
		if w.failed.Swap(false) {
			w.logger.Info("the connector runs again", "connector", w.connector)
			w.said = ""
		}
		if status.Running() && now.After(w.next.Add(restartMax)) {
			w.wait = restartMin
		}
		return
	}
	w.failed.Store(true)
	if reason := status.Reason(); reason != w.said {
		w.said = reason
		mend := "unstale connector restart, when that is mended"
		if w.restart != nil {
			mend = "it is restarted, more and more seldom"
		}
		w.logger.Error("the connector has failed: no change comes until it runs again", "connector", w.connector, "reason", reason, "mend", mend)
	}
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
