package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/connect"
	"github.com/unstale/unstale/internal/database"
)

// pipelineRig is a log that grows by 1000 bytes a second, and a slot.
type pipelineRig struct {
	*pipelineWatch
	now   time.Time
	state database.SlotState
	log   bytes.Buffer
}

func newPipelineRig() *pipelineRig {
	r := &pipelineRig{now: time.Unix(1_000_000, 0)}
	r.pipelineWatch = &pipelineWatch{slot: "shop", connector: "shop", logger: slog.New(slog.NewJSONHandler(&r.log, nil))}
	r.pipelineWatch.now.Connector, r.pipelineWatch.now.Slot = "shop", "shop"
	r.state = database.SlotState{Exists: true, Usable: true, Active: true, Flushed: 1 << 32, Confirmed: 1 << 32}
	r.tells("RUNNING", "RUNNING")
	return r
}

func (r *pipelineRig) tells(connector connect.State, tasks ...connect.State) {
	s := connect.Status{Connector: connect.Part{State: connector}}
	for _, state := range tasks {
		s.Tasks = append(s.Tasks, connect.Task{Part: connect.Part{State: state}})
	}
	r.heard(s, nil)
}

// pass lets time pass; each second, move changes the slot.
func (r *pipelineRig) pass(d time.Duration, move func(*database.SlotState)) {
	for end := r.now.Add(d); r.now.Before(end); {
		r.now = r.now.Add(pipelineEvery)
		r.state.Flushed += 1000
		if move != nil {
			move(&r.state)
		}
		r.state.Behind = int64(r.state.Flushed - r.state.Confirmed)
		r.see(r.now, r.state)
	}
}

func (r *pipelineRig) said() (said []string) {
	for line := range strings.Lines(r.log.String()) {
		var l struct{ Level, Msg string }
		_ = json.Unmarshal([]byte(line), &l)
		message, _, _ := strings.Cut(l.Msg, ":")
		said = append(said, l.Level+" "+message)
	}
	return said
}

// reads is a connector that is sent everything, and notes it once a minute.
func (r *pipelineRig) reads(s *database.SlotState) {
	s.Active, s.Sent = true, s.Flushed
	if r.now.Unix()%60 == 0 {
		s.Confirmed = s.Flushed
	}
}

// A connector that confirms once a minute is not a minute behind.
func TestAPipelineThatWorksIsNotBehind(t *testing.T) {
	r := newPipelineRig()
	r.pass(10*time.Minute, r.reads)
	if p := r.at(r.now); p.BehindBytes != 0 || p.BehindSeconds != 0 || p.Stalled() != "" || len(r.said()) > 0 {
		t.Errorf("it works, and is told to be %+v, with %q", p, r.said())
	}
	// Nor where the role may not see what was sent.
	r.pass(time.Minute, func(s *database.SlotState) { s.Sent = 0 })
	if p := r.at(r.now); p.BehindBytes != 0 {
		t.Errorf("what cannot be seen is taken for %d bytes", p.BehindBytes)
	}
}

// Each way in which nothing comes any more: how far that is behind shows at once,
// in bytes and in seconds, and after a while it is said, once.
func TestAPipelineThatIsDownIsBehind(t *testing.T) {
	gone := func(s *database.SlotState) { s.Active, s.Sent = false, 0 }
	for _, tt := range []struct {
		name    string
		tell    func(*pipelineRig)
		slot    func(*pipelineRig) func(*database.SlotState)
		stalled string
		said    []string
	}{
		{"Connect is killed", func(r *pipelineRig) { r.heard(connect.Status{}, errors.New("refused")) },
			func(*pipelineRig) func(*database.SlotState) { return gone }, "slot shop: nobody reads it", []string{"WARN nobody reads the connector's slot"}},
		// Its log reader goes on until its queue is full.
		{"paused", func(r *pipelineRig) { r.tells(connect.Paused, connect.Paused) },
			func(*pipelineRig) func(*database.SlotState) {
				return func(s *database.SlotState) { s.Sent = s.Flushed }
			}, "connector shop is PAUSED", nil},
		{"failed", func(r *pipelineRig) { r.tells(connect.Running, connect.Failed) },
			func(*pipelineRig) func(*database.SlotState) { return gone }, "connector shop is FAILED", []string{"WARN nobody reads the connector's slot"}},
		{"it runs, and does not come back to the slot", func(*pipelineRig) {},
			func(*pipelineRig) func(*database.SlotState) { return gone }, "slot shop: nobody reads it", []string{"WARN nobody reads the connector's slot"}},
		{"the slot is dropped", func(*pipelineRig) {}, func(*pipelineRig) func(*database.SlotState) {
			return func(s *database.SlotState) { *s = database.SlotState{Flushed: s.Flushed} }
		}, "slot shop: it does not exist", []string{"WARN the connector's slot does not exist"}},
	} {
		r := newPipelineRig()
		r.pass(time.Minute, r.reads)
		tt.tell(r)
		r.pass(40*time.Second, tt.slot(r))
		p := r.at(r.now)
		if p.BehindBytes != 40_000 || p.BehindSeconds != 40 || p.Stalled() != tt.stalled {
			t.Errorf("%s: %d bytes and %.0f s behind, stalled because %q", tt.name, p.BehindBytes, p.BehindSeconds, p.Stalled())
		}
		if diff := cmp.Diff(tt.said, r.said()); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", tt.name, diff)
		}
		// And back.
		r.tells("RUNNING", "RUNNING")
		r.state.Exists, r.state.Usable = true, true
		r.pass(time.Minute, r.reads)
		if p := r.at(r.now); p.BehindBytes != 0 || p.Stalled() != "" {
			t.Errorf("%s: it works again, and is %+v", tt.name, p)
		}
	}
}

// A restart of a worker is not worth a line.
func TestAPauseOfThePipelineIsNotSaid(t *testing.T) {
	r := newPipelineRig()
	r.pass(time.Minute, r.reads)
	r.pass(unreadMax-5*time.Second, func(s *database.SlotState) { s.Active, s.Sent = false, 0 })
	r.pass(time.Minute, r.reads)
	if len(r.said()) > 0 {
		t.Errorf("it says %q", r.said())
	}
}

// A slot that is read and does not move may be one of tables that rest: that is no
// lag, but fills the server's disk.
func TestASlotThatDoesNotMoveIsSaid(t *testing.T) {
	r := newPipelineRig()
	r.pass(time.Hour, func(s *database.SlotState) { s.Sent = s.Flushed })
	if diff := cmp.Diff([]string{"WARN the connector's slot is read and does not move"}, r.said()); diff != "" {
		t.Error(diff)
	}
	if p := r.at(r.now); p.BehindBytes != 0 || p.Stalled() != "" || p.Text == "" {
		t.Errorf("it is told to be %+v", p)
	}
}

// With a heartbeat it would move: then nothing of what is read gets to the brokers.
func TestASlotThatDoesNotMoveInSpiteOfAHeartbeatIsBehind(t *testing.T) {
	r := newPipelineRig()
	r.beats = func(context.Context) (bool, error) { return true, nil }
	sent := func(s *database.SlotState) { s.Sent = s.Flushed }
	r.pass(unconfirmedMax+30*time.Second, sent)
	if !r.isStill(r.now) {
		t.Fatal("nobody asks for a heartbeat")
	}
	r.askBeat(t.Context())
	r.pass(time.Minute, sent)
	if p := r.at(r.now); p.BehindBytes != 390_000 || p.BehindSeconds < 370 || p.Stalled() == "" {
		t.Errorf("it is told to be %+v", p)
	}
	r.pass(2*time.Minute, r.reads)
	if p := r.at(r.now); p.BehindBytes != 0 || p.Stalled() != "" {
		t.Errorf("it moves again, and is %+v", p)
	}
}

// Another server, whose log is younger, is not behind by what is not there.
func TestALogThatWasSetBackBeginsAnew(t *testing.T) {
	r := newPipelineRig()
	r.pass(time.Minute, r.reads)
	r.state = database.SlotState{Exists: true, Usable: true, Flushed: 1 << 20, Confirmed: 1 << 20}
	r.pass(10*time.Second, nil)
	if p := r.at(r.now); p.BehindBytes != 10_000 {
		t.Errorf("it is %d bytes behind, want 10000", p.BehindBytes)
	}
}
