package apply_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
)

// playTopics is play with two partitions of a topic, which an earlier owner has
// left at offset 10 of 20.
func playTopics(t *testing.T, test func(r *rig)) {
	t.Helper()
	play(t, func(r *rig) {
		r.sink.names = []string{"kafka:t:0:g", "kafka:t:1:g"}
		r.sink.mark.Lo, r.sink.mark.Settled = offset(10), offset(10)
		r.sink.others = []guard.Watermark{r.sink.mark}
		r.source.at.Streams = nil
		for _, name := range r.sink.names {
			r.source.at.Streams = append(r.source.at.Streams, change.Stream{Name: name, Confirmed: offset(0), Begin: offset(10), End: offset(20)})
		}
		test(r)
	})
}

func offset(n uint64) change.Position { return change.Position{Timeline: change.Offsets, LSN: n} }

// in puts changes into a partition, the first of them at an offset, with the
// sequences of their places in the log.
func in(stream int, first uint64, changes []change.Change) []change.Change {
	for i := range changes {
		c := &changes[i]
		if c.Op != change.Commit && c.Op != change.Restart && c.Op != change.Idle {
			first++
			if c.Scan == change.Streamed {
				c.Sequence = change.Sequence{Commit: c.LSN, LSN: c.LSN}
			}
		}
		c.Stream, c.Position = stream, offset(first)
	}
	return changes
}

// marks are where the watermarks stand.
func (r *rig) marks() (lo, settled [2]uint64) {
	r.sink.mu.Lock()
	defer r.sink.mu.Unlock()
	for i, mark := range []guard.Watermark{r.sink.mark, r.sink.others[0]} {
		lo[i], settled[i] = mark.Lo.LSN, mark.Settled.LSN
	}
	return lo, settled
}

func (r *rig) wantMarks(what string, lo, settled [2]uint64) {
	r.t.Helper()
	gotLo, gotSettled := r.marks()
	if gotLo != lo || gotSettled != settled {
		r.t.Errorf("%s: the watermarks stand at %d, settled at %d; want %d, %d", what, gotLo, gotSettled, lo, settled)
	}
}

// Each stream has its own place, in Redis and where it is confirmed.
func TestStreamsMoveApart(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.start()
		r.send(in(0, 20, r.users(700, 200, "1", "2")), in(1, 30, r.users(701, 210, "3")), in(0, 22, r.users(702, 220, "4")))
		r.wantDrops("user:1", "user:2", "user:3", "user:4")
		r.wantMarks("written", [2]uint64{23, 31}, [2]uint64{23, 31})
		r.pass(10 * time.Second)
		last := map[int]uint64{}
		for _, c := range r.source.confirmations() {
			last[c.stream] = c.position.LSN
		}
		if diff := cmp.Diff(map[int]uint64{0: 23, 1: 31}, last); diff != "" {
			r.t.Errorf("confirmed (-want +got):\n%s", diff)
		}
	})
}

// A stream that was read to its old end has caught up, and all must.
func TestEveryStreamMustCatchUp(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.start()
		if r.ready() {
			r.t.Error("ready before anything was read")
		}
		r.send(in(0, 19, r.users(700, 200, "1")))
		if r.ready() {
			r.t.Error("ready, and one of two has not caught up")
		}
		r.send(in(1, 19, r.users(701, 210, "2")))
		if !r.ready() {
			r.t.Error("not ready")
		}
	})
}

// A sweep holds back what the stream that has asked for it has settled, and is
// noted there; the other goes on.
func TestASweepIsNotedByTheStreamThatAsked(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.start()
		r.send(in(0, 19, r.users(700, 200, "1")), in(1, 19, r.users(701, 210, "2")))
		r.send(in(1, 20, r.truncate(702, 220)), in(0, 20, r.users(703, 230, "3")))
		r.wantMarks("while it runs", [2]uint64{21, 21}, [2]uint64{21, 20})
		r.sink.set(func(s *sink) {
			if len(s.mark.Sweeps) != 0 || len(s.others[0].Sweeps) != 1 || s.others[0].Sweeps[0].Key != productTemplate {
				r.t.Errorf("pending: %v and %v", s.mark.Sweeps, s.others[0].Sweeps)
			}
		})
		r.pass(sweepTime + time.Second)
		wantSweep(r, time.Time{}, productTemplate)
		r.wantMarks("behind it", [2]uint64{21, 21}, [2]uint64{21, 21})
		r.sink.set(func(s *sink) {
			if len(s.mark.Sweeps)+len(s.others[0].Sweeps) != 0 {
				r.t.Errorf("still pending: %v and %v", s.mark.Sweeps, s.others[0].Sweeps)
			}
		})
	})
}

// What an earlier owner left pending in one stream is swept, once, and noted there
// until it has ended.
func TestAPendingSweepOfOneStreamIsResumed(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.sink.others[0].Sweeps = wide(productTemplate)
		r.sink.others[0].Settled = offset(8)
		r.start()
		r.wantMarks("while it runs", [2]uint64{10, 10}, [2]uint64{10, 8})
		r.pass(sweepTime + time.Second)
		wantSweep(r, time.Time{}, productTemplate)
		r.wantMarks("behind it", [2]uint64{10, 10}, [2]uint64{10, 10})
	})
}

// A connector that was killed sends again what it had sent, under new offsets. What
// is older than what a partition has seen only drops. What is as old may be the
// next row of one COPY.
func TestWhatAConnectorSendsAgainOnlyDrops(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.start()
		r.pass(time.Second)
		r.send(in(1, 20, r.users(700, 300, "0")))
		r.send(in(0, 20, r.rows("warm", 700, 250, "a")), in(1, 21, r.rows("warm", 701, 250, "b")),
			in(1, 22, r.rows("warm", 702, 300, "c")), in(1, 23, r.rows("warm", 703, 310, "d")), in(1, 24, r.rows("warm", 704, 305, "e")))
		r.wantDrops("user:0", `warm:a={"id":"a"}@250`, "warm:b", `warm:c={"id":"c"}@300`, `warm:d={"id":"d"}@310`, "warm:e")
		r.wantLoads("warm:b", "warm:e")
		r.sink.set(func(s *sink) {
			if got := s.others[0].Seen; got.LSN != 310 {
				r.t.Errorf("seen %v, want 310: it must not go back", got)
			}
		})
	})
}

// What a topic has at hand may end in the middle of a transaction, which then writes
// the same row once more: the first state was never committed. So what is last at
// hand drops, and is loaded; what another transaction follows is SET.
func TestATransactionThatMayGoOnSetsNothing(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.start()
		r.pass(time.Second)
		whole, cut := in(0, 20, r.rows("warm", 700, 250, "1")), in(0, 21, r.rows("warm", 701, 260, "1", "2"))
		cut[2].Cut = true
		r.send(whole, in(1, 20, r.rows("warm", 700, 250, "3")), cut)
		r.wantDrops(`warm:1={"id":"1"}@250`, `warm:3={"id":"3"}@250`, "warm:1", "warm:2")
		r.wantLoads("warm:1", "warm:2")
		// And it did go on.
		r.send(in(0, 23, r.rows("warm", 701, 265, "2")))
		r.wantDrops(`warm:1={"id":"1"}@250`, `warm:3={"id":"3"}@250`, "warm:1", "warm:2", `warm:2={"id":"2"}@265`)
	})
}

// What somebody has set back comes again: its keys are dropped, none is SET, and
// the watermark stays where it was.
func TestARewoundStreamOnlyDrops(t *testing.T) {
	playTopics(t, func(r *rig) {
		for i := range r.source.at.Streams {
			r.source.at.Streams[i].Begin, r.source.at.Streams[i].Confirmed, r.source.at.Streams[i].Rewound = offset(5), offset(5), true
		}
		r.gate.insert = 300
		r.sink.mark.Seen = change.Sequence{Commit: 250, LSN: 250}
		r.start()
		r.send(in(0, 5, r.rows("warm", 700, 200, "1")), in(1, 5, r.rows("warm", 701, 210, "2")))
		r.wantDrops("warm:1", "warm:2")
		r.wantMarks("behind what came again", [2]uint64{10, 10}, [2]uint64{10, 10})
		// After a crash it is to be set back still.
		r.pass(10 * time.Second)
		if confirmed := r.source.confirmations(); len(confirmed) > 0 {
			r.t.Errorf("confirmed %v", confirmed)
		}
		r.send(in(0, 20, r.rows("warm", 702, 310, "3")))
		r.wantDrops("warm:1", "warm:2", `warm:3={"id":"3"}@310`)
		r.pass(10 * time.Second)
		if confirmed := r.source.confirmations(); len(confirmed) != 1 || confirmed[0].stream != 0 || confirmed[0].position != offset(21) {
			r.t.Errorf("confirmed %v", confirmed)
		}
		if gaps := r.loop.Status().Gaps; gaps != 0 {
			r.t.Errorf("%d gaps: nothing is missing", gaps)
		}
	})
}

// Forward is another matter: what lies between is in no cache.
func TestAStreamThatWasSetForwardIsAGap(t *testing.T) {
	playTopics(t, func(r *rig) {
		st := &r.source.at.Streams[1]
		st.Begin, st.Confirmed, st.Rewound = offset(15), offset(15), true
		r.start()
		r.wantStatus("gaps", r.loop.Status().Gaps, 1)
		r.pass(sweepTime + time.Second)
		r.wantMarks("swept", [2]uint64{10, 15}, [2]uint64{10, 15})
	})
}

// A topic may hold changes of a primary that crashed, and which the one that is
// there has never had. They are not waited for, and set nothing, up to where the
// topic ended then.
func TestBehindANewOriginWhatATopicHoldsIsNotGated(t *testing.T) {
	playTopics(t, func(r *rig) {
		for _, mark := range []*guard.Watermark{&r.sink.mark, &r.sink.others[0]} {
			mark.Origin = "another"
		}
		r.gate.running[800] = true
		r.start()
		r.pass(sweepTime + time.Second)
		r.send(in(0, 19, r.rows("warm", 800, 200, "1")))
		r.wantDrops("warm:1")
		r.send(in(0, 20, r.rows("warm", 800, 210, "2")))
		r.wantDrops("warm:1")
		r.gate.set(func(g *gate) { delete(g.running, 800) })
		r.pass(time.Second)
		r.wantDrops("warm:1", `warm:2={"id":"2"}@210`)
	})
}

// So it is in the sessions that follow, which find the new origin in the watermark:
// a rebalance must not have them wait for a transaction that never was. The rows of
// an earlier primary's snapshot are written as little as its changes.
func TestWhatATopicHoldsOfAnEarlierOriginIsRememberedAsSuch(t *testing.T) {
	for _, gap := range []string{"", "an offset is gone"} { // which is said in place of the origin
		playTopics(t, func(r *rig) {
			r.source.at.Streams[0].Gap = gap
			for _, mark := range []*guard.Watermark{&r.sink.mark, &r.sink.others[0]} {
				mark.Origin = "another"
			}
			r.gate.running[800] = true
			r.start()
			r.pass(sweepTime + time.Second)
			r.reassign(40)
			if _, attached := r.source.count(); attached != 2 {
				r.t.Fatalf("attached %d times", attached)
			}
			row := r.rows("warm", 800, 210, "2")
			row[0].Scan = change.Initial
			r.send(in(0, 18, r.rows("warm", 800, 200, "1")), in(1, 19, row))
			r.wantDrops("warm:1", "warm:2")
			for _, w := range r.sink.all() {
				for i := range w.restores {
					r.t.Errorf("the row %s of another primary's snapshot is written", w.restores[i])
				}
			}
			// Behind it the gate stands.
			r.send(in(0, 20, r.rows("warm", 800, 220, "3")))
			r.pass(time.Second)
			r.wantDrops("warm:1", "warm:2")
		})
	}
}

// The transaction of a row that a snapshot has read is that of the snapshot, which
// may last for hours. The row was visible when it was read.
func TestARowOfASnapshotIsNotWaitedFor(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.gate.running[800] = true
		r.start()
		initial, incremental := r.rows("warm", 800, 90, "1"), r.rows("warm", 800, 90, "2")
		initial[0].Scan, incremental[0].Scan = change.Initial, change.Incremental
		r.send(in(0, 20, initial), in(1, 20, incremental))
		r.wantDrops("warm:1", "warm:2")
		all := r.sink.all()
		if !slices.ContainsFunc(all, func(w written) bool { return slices.Equal(w.restores, []string{"warm:1"}) }) {
			r.t.Errorf("warm:1 is not written: %+v", all)
		}
	})
}

// A topic that was cut off, and written to again, has other records where there were
// those of another primary.
func TestATopicThatWasCutOffHoldsNothingOfAnEarlierOriginAboveItsEnd(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.sink.mark.Lo, r.sink.mark.Ungated = offset(30), offset(30)
		r.gate.running[800] = true
		r.start()
		r.pass(sweepTime + time.Second)
		r.send(in(0, 20, r.rows("warm", 800, 200, "1")))
		r.pass(time.Second)
		r.wantDrops()
	})
}

// Whoever begins with a topic does not know what is in it. What is there when it
// begins SETs nothing, whatever place in whatever log it tells of: here a later one
// than ours, which a former primary had.
func TestWhatIsInATopicAtTheStartSetsNothing(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.sink.mark, r.sink.others[0] = guard.Watermark{}, guard.Watermark{}
		r.start()
		r.pass(sweepTime + time.Second)
		row := r.rows("warm", 0, 5010, "2")
		row[0].Scan = change.Initial
		r.send(in(0, 18, r.rows("warm", 700, 5000, "1")), in(1, 18, row), in(1, 19, r.rows("warm", 0, 5020, "3")))
		r.wantDrops("warm:1", "warm:2", "warm:3")
		for _, w := range r.sink.all() {
			for i := range w.restores {
				r.t.Errorf("the row %s of another primary's snapshot is written", w.restores[i])
			}
		}
	})
}

// A new cluster's log begins anew, below what a partition has seen of the old one's.
// Were that what counts, nothing of the new one would ever be SET again.
func TestWhatWasSeenOfAnotherLogCountsNoMore(t *testing.T) {
	for _, test := range []struct {
		name   string
		origin string
	}{
		{"the primary is another one", "another"},
		// The connector had stayed with the old one for longer than we have.
		{"the primary was another one before", origin.String()},
	} {
		t.Run(test.name, func(t *testing.T) {
			playTopics(t, func(r *rig) {
				for _, mark := range []*guard.Watermark{&r.sink.mark, &r.sink.others[0]} {
					mark.Seen, mark.Origin = change.Sequence{Commit: 5000, LSN: 5010}, test.origin
				}
				r.gate.insert = 300
				r.start()
				r.wantStatus("gaps", r.loop.Status().Gaps, 1)
				r.pass(sweepTime + time.Second)
				r.send(in(0, 18, r.rows("warm", 700, 5020, "0")), in(0, 20, r.rows("warm", 701, 310, "1")))
				r.wantDrops("warm:0", `warm:1={"id":"1"}@310`)
				// And in the sessions that follow, also where nothing came.
				r.gate.set(func(g *gate) { g.insert = 320 })
				r.reassign(30)
				r.pass(sweepTime + time.Second)
				r.wantStatus("gaps", r.loop.Status().Gaps, 1)
				r.send(in(1, 30, r.rows("warm", 702, 330, "2")))
				r.wantDrops("warm:0", `warm:1={"id":"1"}@310`, `warm:2={"id":"2"}@330`)
			})
		})
	}
}

// What a first start finds in a topic may be of another server, and of a later place
// in its log than ours has come to.
func TestWhatATopicHoldsOfAnotherLogIsNotSeen(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.sink.mark, r.sink.others[0] = guard.Watermark{}, guard.Watermark{}
		r.start()
		r.pass(sweepTime + time.Second)
		r.send(in(0, 18, r.rows("warm", 700, 5000, "1")), in(0, 20, r.rows("warm", 701, 200, "2")))
		r.wantDrops("warm:1", `warm:2={"id":"2"}@200`)
	})
}

// Nor is what another server's connector had read anew.
func TestAnotherServersSnapshotIsNotSeen(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.sink.mark.Seen, r.sink.others[0].Seen = change.Sequence{Commit: 50, LSN: 50}, change.Sequence{Commit: 50, LSN: 50}
		r.start()
		row := r.rows("warm", 0, 5000, "0")
		row[0].Scan = change.Initial
		r.send(in(0, 17, []change.Change{{Op: change.Restart, LSN: 5000, Reason: "anew"}}))
		r.pass(sweepTime + time.Second)
		r.send(in(0, 18, row))
		r.pass(sweepTime + time.Second)
		r.send(in(0, 20, r.rows("warm", 701, 200, "1")), in(1, 20, r.rows("warm", 702, 210, "2")))
		r.wantDrops("warm:0", `warm:1={"id":"1"}@200`, `warm:2={"id":"2"}@210`)
	})
}

// Without a database only the connector tells that it has gone to another log: it
// reads everything anew. What it sends then is not old, in whatever partition.
func TestAConnectorThatReadsAnewBeginsToBeSeenAnew(t *testing.T) {
	for _, told := range []bool{true, false} { // or found, if nobody was attached
		playTopics(t, func(r *rig) {
			r.gate.unknown = true
			for _, mark := range []*guard.Watermark{&r.sink.mark, &r.sink.others[0]} {
				mark.Seen = change.Sequence{Commit: 5000, LSN: 5010}
			}
			r.start()
			row := r.rows("warm", 0, 300, "1")
			row[0].Scan = change.Initial
			restart := change.Change{Op: change.Restart, LSN: 300, Reason: "anew"}
			if told {
				row = append([]change.Change{restart}, row...)
			}
			r.send(in(0, 20, row))
			r.pass(sweepTime + time.Second)
			r.send(r.now(in(0, 21, r.rows("warm", 701, 310, "2"))), r.now(in(1, 20, r.rows("warm", 702, 320, "3"))))
			// What it sends again is.
			r.send(r.now(in(0, 22, r.rows("warm", 700, 305, "4"))))
			r.wantDrops("warm:1", `warm:2={"id":"2"}@310`, `warm:3={"id":"3"}@320`, "warm:4")
			// A partition that lags brings the old log before its rows of the scan.
			row = r.rows("warm", 0, 300, "6")
			row[0].Scan = change.Initial
			r.send(in(1, 21, r.users(703, 5020, "5")), in(1, 22, row), r.now(in(1, 23, r.rows("warm", 704, 330, "7"))))
			r.wantDrops("warm:1", `warm:2={"id":"2"}@310`, `warm:3={"id":"3"}@320`, "warm:4", "user:5", "warm:6", `warm:7={"id":"7"}@330`)
			// Whoever goes on amid the rows has seen that scan already.
			r.sink.set(func(s *sink) { s.mark.Seen = change.Sequence{Commit: 300, LSN: 300} })
			swept := len(r.sink.sweeps())
			r.reassign(30)
			row = r.rows("warm", 0, 300, "5")
			row[0].Scan = change.Initial
			r.send(in(0, 23, row))
			r.pass(sweepTime + time.Second)
			if got := len(r.sink.sweeps()); got != swept {
				r.t.Errorf("swept again for the same scan")
			}
		})
	}
}

// A sweep that the reader waits for may take minutes. It must not hold up a rebalance:
// who joins waits for us, and what we are given waits to be read. The sweep is begun
// again, and rows that it would drop are kept back still, but nothing else.
func TestAnAwaitedSweepDoesNotHoldUpARebalance(t *testing.T) {
	row := func(r *rig) []change.Change {
		rows := r.rows("warm", 0, 90, "1")
		rows[0].Scan = change.Initial
		return in(0, 20, rows)
	}
	for _, test := range []struct {
		name  string
		await func(r *rig)
		// kept back: where the log was seen already, a row is only compared.
		kept bool
	}{
		{"behind a gap", func(r *rig) {
			r.source.at.Streams[0].Gap = "an offset is gone"
			r.start()
			r.send(in(1, 20, r.users(700, 80, "0"))) // which waits for nothing
			r.wantDrops("user:0")
			r.sink.set(func(s *sink) { s.batches = nil })
			r.send(row(r))
		}, true},
		{"before what is read anew", func(r *rig) {
			r.start()
			r.send(in(0, 20, []change.Change{{Op: change.Restart, LSN: 90, Reason: "anew"}}))
		}, true},
		{"before what was read anew", func(r *rig) {
			r.sink.mark.Seen = change.Sequence{Commit: 50, LSN: 50}
			r.start()
			r.send(row(r))
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			playTopics(t, func(r *rig) {
				changed := make(chan struct{})
				r.source.at.Reassigned = changed
				test.await(r)
				r.pass(time.Second)
				r.source.mu.Lock()
				r.source.at.Reassigned, r.source.at.Streams[0].Gap, r.source.changes = nil, "", nil
				r.source.mu.Unlock()
				close(changed)
				synctest.Wait()
				if _, attached := r.source.count(); attached != 2 {
					r.t.Fatalf("attached %d times", attached)
				}
				before := len(r.sink.sweeps())
				r.source.give(row(r))
				r.pass(sweepTime - time.Second)
				if got := len(r.drops()) == 0; got != test.kept {
					r.t.Errorf("kept back: %v", got)
				}
				r.pass(2 * time.Second)
				r.wantDrops("warm:1")
				if got := len(r.sink.sweeps()) - before; got != 1 { // the first pass began at once
					r.t.Errorf("%d more passes", got)
				}
				r.wantLogged("taking the stream over again", 0)
			})
		})
	}
}

// reassign begins another session, with the same partitions, which end at an offset
// now.
func (r *rig) reassign(end uint64) {
	r.source.mu.Lock()
	for i := range r.source.at.Streams {
		r.source.at.Streams[i].End, r.source.at.Streams[i].Gap = offset(end), ""
	}
	r.source.mu.Unlock()
	r.source.fail(change.ErrReassigned)
}

// now has changes be committed now, by the clock of the database.
func (r *rig) now(changes []change.Change) []change.Change {
	for i := range changes {
		changes[i].CommittedAt = time.Now().UnixMicro()
	}
	return changes
}

// Nobody says then where the log is, and a commit may be as young as it likes: what
// was there before may have been applied before.
func TestWithoutADatabaseWhatIsInATopicAtTheStartSetsNothing(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.gate.unknown = true
		r.start()
		r.send(r.now(in(0, 19, r.rows("warm", 700, 200, "1"))))
		r.send(r.now(in(0, 20, r.rows("warm", 701, 210, "2"))))
		r.wantDrops("warm:1", `warm:2={"id":"2"}@210`)
	})
}

// A number that no transaction of the primary has had yet is another server's: a
// former primary's, which had come further, or the connector is not where our
// database connection is. It would be waited for for ever. Its keys are dropped, and
// a person hears of it once.
func TestATransactionThatThePrimaryHasNeverBegunIsNotWaitedFor(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.gate.next = 1<<20 + 10
		r.start()
		r.pass(time.Second)
		r.send(in(0, 20, r.rows("warm", 800_000_000, 200, "1")), in(1, 20, r.rows("warm", 800_000_001, 210, "2")))
		r.wantDrops("warm:1", "warm:2")
		r.wantLogged("transaction=800000000 stream=kafka:t:0:g", 1)
		r.wantLogged("of another server", 1)
		// One that runs may have a number above XMax, too.
		r.send(in(0, 21, r.rows("warm", 1<<20+9, 220, "3")))
		r.pass(time.Minute)
		r.wantDrops("warm:1", "warm:2")
		r.wantLogged("transaction=1048585 stream=kafka:t:0:g", 1)
		r.gate.set(func(g *gate) { g.xmax = 1<<20 + 10 })
		r.pass(2 * time.Second)
		r.wantDrops("warm:1", "warm:2", `warm:3={"id":"3"}@220`)
	})
}

// A number that was the next one when the primary was asked last may be given since:
// only a snapshot that is younger than the record tells.
func TestAnOldSnapshotDoesNotMakeATransactionForeign(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.gate.next = 1 << 20
		r.start()
		r.pass(time.Second)
		r.send(in(0, 20, r.users(700, 200, "0")))
		r.gate.set(func(g *gate) { g.next = 1<<20 + 1 })
		r.send(in(0, 21, r.rows("warm", 1<<20, 210, "1")))
		r.wantDrops("user:0")
		r.gate.set(func(g *gate) { g.xmax = 1<<20 + 1 })
		r.pass(time.Second)
		r.wantDrops("user:0", `warm:1={"id":"1"}@210`)
	})
}

// A connector that reads everything anew does not tell what was deleted: all is
// swept, and the rows that follow are kept back until that has ended, which would
// drop them.
func TestARestartIsSweptBeforeItsRows(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.start()
		rows := r.rows("warm", 0, 300, "1")
		rows[0].Scan = change.Initial
		restart := change.Change{Op: change.Restart, Reason: "anew"}
		r.send(in(0, 20, r.users(700, 200, "0")), in(1, 20, append([]change.Change{restart}, rows...)))
		r.wantDrops("user:0")
		r.pass(sweepTime - time.Second)
		r.wantDrops("user:0")
		r.pass(2 * time.Second)
		if got := r.drops(); len(got) != 2 || !strings.HasPrefix(got[1], "warm:1") {
			r.t.Errorf("behind the sweep: %q", got)
		}
		if swept := r.sink.sweeps(); len(swept) != 2 || !strings.Contains(swept[0].templates, userTemplate) {
			r.t.Errorf("swept %v", swept)
		}
	})
}

// A connector that has read everything anew while nobody was attached has lost its
// history: the watermark has seen changes of the log. All is swept, once, before the
// rows, and they are compared only.
func TestACopyThatWasMadeWhileNobodyLookedIsAGap(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.start()
		r.send(in(0, 20, r.users(700, 200, "0")))
		for i, id := range []string{"1", "2"} {
			rows := r.rows("warm", 0, 300, id)
			rows[0].Scan = change.Initial
			r.send(in(0, uint64(30+10*i), rows))
		}
		r.wantDrops("user:0")
		r.pass(sweepTime + time.Second)
		if swept := r.sink.sweeps(); len(swept) != 2 || !strings.Contains(swept[0].templates, userTemplate) {
			r.t.Errorf("swept %v", swept)
		}
		if got := r.drops(); len(got) != 3 {
			r.t.Errorf("behind the sweep: %q", got)
		}
	})
}

// A topic, or a partition, that is new is no first start, whether the instance has
// others with it or had others before.
func TestANewStreamIsNoFirstStart(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.sink.others[0] = guard.Watermark{}
		r.start()
		r.wantLogged("first start", 0)
		r.wantLogged("a stream that is new to this Redis", 1)
		r.source.mu.Lock()
		r.source.at.Streams = []change.Stream{{Name: "kafka:u:0:g", End: offset(20)}}
		r.source.mu.Unlock()
		r.sink.set(func(s *sink) { s.names, s.mark = []string{"kafka:u:0:g"}, guard.Watermark{} })
		r.source.fail(change.ErrReassigned)
		r.wantLogged("first start", 0)
		r.wantLogged("a stream that is new to this Redis", 2)
	})
	playTopics(t, func(r *rig) {
		r.sink.mark, r.sink.others[0] = guard.Watermark{}, guard.Watermark{}
		r.start()
		r.wantLogged("first start", 1)
	})
}

// When the streams are others, what was read of the old ones is written before
// they are let go of.
func TestWhatWasReadIsWrittenBeforeStreamsAreLetGo(t *testing.T) {
	playTopics(t, func(r *rig) {
		r.start()
		blocked := make(chan struct{})
		r.sink.set(func(s *sink) { s.blocked = blocked })
		r.send(in(0, 20, r.users(700, 200, "1")), in(1, 20, r.users(701, 210, "2")))
		r.source.fail(change.ErrReassigned)
		if _, attached := r.source.count(); attached != 1 {
			r.t.Error("attached again before what was read is written")
		}
		r.source.mu.Lock()
		r.source.at.Streams = r.source.at.Streams[:1]
		r.source.mu.Unlock()
		r.sink.set(func(s *sink) { s.blocked, s.names = nil, s.names[:1] })
		close(blocked)
		synctest.Wait()
		r.wantDrops("user:1", "user:2")
		if _, attached := r.source.count(); attached != 2 {
			r.t.Errorf("attached %d times, want twice", attached)
		}
		r.wantLogged("taking the stream over again", 0)
	})
}
