package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/connect"
	"github.com/unstale/unstale/internal/database"
	"github.com/unstale/unstale/internal/guard"
)

// A barrierWorld is a primary, a connector, two partitions of a topic and their
// watermarks, all of which go on between any two questions. Commit n is at n in the
// log, and one record.
type barrierWorld struct {
	random  *rand.Rand
	commits []int  // the partition of each
	handed  int    // to the producer: commits up to there
	acked   [2]int // by partition: records of it
	last    uint64 // commit of the record that was acknowledged last
	slot    uint64 // confirmed
	noted   uint64 // by Connect
	settled [2]int // by partition
	at      change.Position
	wrong   string
}

var barrierOrigin = change.Origin{System: 7, Database: 8, Timeline: 1}

// goOn does a few things that may happen.
func (w *barrierWorld) goOn() {
	for range w.random.IntN(6) {
		p := w.random.IntN(2)
		switch w.random.IntN(6) {
		case 0:
			w.commits = append(w.commits, p)
		case 1:
			w.handed = len(w.commits)
		case 2: // by each broker in its own time
			if n := w.commit(p, w.acked[p]); n > 0 && n <= w.handed {
				w.acked[p]++
				w.last = uint64(n)
			}
		case 3:
			w.slot = max(w.slot, w.last)
		case 4:
			w.noted = w.allAcked()
		case 5:
			w.settled[p] = min(w.settled[p]+1, w.acked[p])
		}
	}
}

// commit is that of record i of a partition; zero: there is none yet.
func (w *barrierWorld) commit(p, i int) int {
	for n, partition := range w.commits {
		if partition == p {
			if i--; i < 0 {
				return n + 1
			}
		}
	}
	return 0
}

// allAcked is up to which commit all are.
func (w *barrierWorld) allAcked() uint64 { return w.reached(w.acked) }

// reached is up to which commit all records are among the first of their partition.
func (w *barrierWorld) reached(first [2]int) uint64 {
	var seen [2]int
	for n, p := range w.commits {
		if seen[p]++; seen[p] > first[p] {
			return uint64(n)
		}
	}
	return uint64(len(w.commits))
}

func (w *barrierWorld) position(n uint64) change.Position {
	return change.Position{Timeline: barrierOrigin.Timeline, LSN: n}
}

func (w *barrierWorld) ends() map[string]change.Position {
	ends := map[string]change.Position{}
	for p, n := range w.acked {
		ends[fmt.Sprint(p)] = change.Position{Timeline: change.Offsets, LSN: uint64(n)}
	}
	return ends
}

// barrier is one that keeps itself in this world.
func (w *barrierWorld) barrier() *topicBarrier {
	return &topicBarrier{
		group: "g",
		confirmed: func(context.Context) (database.Confirmation, error) {
			w.goOn()
			return database.Confirmation{Origin: barrierOrigin, At: w.position(w.slot)}, nil
		},
		sent: func(context.Context) (uint64, error) {
			w.goOn()
			return w.noted, nil
		},
		ends: func(context.Context) (map[string]change.Position, error) {
			w.goOn()
			return w.ends(), nil
		},
		noted: func(_ context.Context, stream string) (guard.Barrier, error) {
			w.goOn()
			return guard.Barrier{Stream: stream, At: w.at}, nil
		},
		settle: func(_ context.Context, b *guard.Barrier) (*guard.End, error) {
			w.goOn()
			for i, end := range b.Ends {
				if p := int(end.Stream[0] - '0'); uint64(w.settled[p]) < end.At.LSN {
					return &b.Ends[i], nil
				}
			}
			if w.at = b.At; w.at.LSN > w.reached(w.settled) {
				w.wrong = fmt.Sprintf("%s is noted, and has settled up to %d only", w.at, w.reached(w.settled))
			}
			return nil, nil
		},
	}
}

// Whatever happens between two questions, what is noted has settled, and that moves.
// Each rule, left out, is caught.
func TestWhatTheBarrierNotesHasSettled(t *testing.T) {
	for _, test := range []struct {
		name    string
		without func(*barrierWorld, *topicBarrier)
	}{
		{"all rules", nil},
		{"ends before the position", func(w *barrierWorld, b *topicBarrier) {
			var before map[string]change.Position
			confirmed := b.confirmed
			b.confirmed = func(ctx context.Context) (database.Confirmation, error) {
				before = w.ends()
				return confirmed(ctx)
			}
			b.ends = func(context.Context) (map[string]change.Position, error) { return before, nil }
		}},
		{"ends before Connect is asked", func(w *barrierWorld, b *topicBarrier) {
			var before map[string]change.Position
			sent := b.sent
			b.sent = func(ctx context.Context) (uint64, error) {
				before = w.ends()
				return sent(ctx)
			}
			b.ends = func(context.Context) (map[string]change.Position, error) { return before, nil }
		}},
		{"the partition of another instance", func(w *barrierWorld, b *topicBarrier) {
			ends := b.ends
			b.ends = func(ctx context.Context) (map[string]change.Position, error) {
				found, err := ends(ctx)
				delete(found, "1")
				return found, err
			}
		}},
		{"what Connect has committed", func(w *barrierWorld, b *topicBarrier) {
			b.sent = func(context.Context) (uint64, error) { return 1 << 40, nil } // the slot alone
		}},
		{"the wait", func(w *barrierWorld, b *topicBarrier) {
			settle := b.settle
			b.settle = func(ctx context.Context, barrier *guard.Barrier) (*guard.End, error) {
				barrier.Ends = nil
				return settle(ctx, barrier)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			wrong, moved := "", 0
			for seed := range uint64(100) {
				synctest.Test(t, func(t *testing.T) {
					w := &barrierWorld{random: rand.New(rand.NewPCG(seed, 1))}
					b := w.barrier()
					if test.without != nil {
						test.without(w, b)
					}
					for range 60 {
						if _, err := b.look(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					if w.wrong != "" && wrong == "" {
						wrong = fmt.Sprintf("seed %d: %s", seed, w.wrong)
					}
					moved += int(w.at.LSN)
				})
			}
			switch {
			case test.without == nil && wrong != "":
				t.Error(wrong)
			case test.without == nil && moved == 0:
				t.Error("nothing was noted")
			case test.without != nil && wrong == "":
				t.Error("it is not caught")
			}
		})
	}
}

// A quiet barrier asks the primary and Redis, once a second each, and nobody else.
func TestABarrierThatDoesNotMoveCostsTwoQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := map[string]int{}
		b := &topicBarrier{
			group: "g",
			confirmed: func(context.Context) (database.Confirmation, error) {
				asked["primary"]++
				return database.Confirmation{Origin: barrierOrigin, At: change.Position{Timeline: 1, LSN: 5}}, nil
			},
			noted: func(_ context.Context, stream string) (guard.Barrier, error) {
				asked[stream]++
				return guard.Barrier{Stream: stream, At: change.Position{Timeline: 1, LSN: 5}}, nil
			},
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		b.run(ctx)
		if len(asked) != 2 || asked["primary"] > 65 || asked["7:8:g"] != asked["primary"] {
			t.Errorf("asked %v", asked)
		}
	})
}

// What can come no more is not waited for: the topic was made anew, or the primary is
// another one. What only lags is, for as long as it takes.
func TestABarrierIsBegunAnewWhereItsPartitionsAreGone(t *testing.T) {
	for _, test := range []struct {
		name    string
		happens func(topics map[string]change.Position, primary *database.Confirmation)
	}{
		{"it lags", nil},
		{"a topic made anew", func(topics map[string]change.Position, _ *database.Confirmation) {
			delete(topics, "old")
			topics["new"] = change.Position{Timeline: change.Offsets}
		}},
		{"a promoted standby", func(_ map[string]change.Position, primary *database.Confirmation) { primary.Origin.Timeline = 2 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				topics := map[string]change.Position{"old": {Timeline: change.Offsets, LSN: 3}}
				primary := database.Confirmation{Origin: barrierOrigin, At: change.Position{Timeline: 1, LSN: 5}}
				happened := false
				began := time.Now()
				b := &topicBarrier{
					confirmed: func(context.Context) (database.Confirmation, error) { return primary, nil },
					sent:      func(context.Context) (uint64, error) { return 5, nil },
					ends:      func(context.Context) (map[string]change.Position, error) { return topics, nil },
					noted:     func(context.Context, string) (guard.Barrier, error) { return guard.Barrier{}, nil },
					settle: func(_ context.Context, b *guard.Barrier) (*guard.End, error) {
						if test.happens != nil && !happened && time.Since(began) > time.Second {
							happened = true
							test.happens(topics, &primary)
						}
						if time.Since(began) < time.Minute {
							return &b.Ends[0], nil
						}
						return nil, nil
					},
				}
				moved, err := b.look(t.Context())
				if took := time.Since(began); err != nil || moved != (test.happens == nil) || moved != (took >= time.Minute) {
					t.Errorf("moved %v after %s, %v", moved, took, err)
				}
			})
		})
	}
}

// What stands in the way is said once, when it has for a while, and that it does no
// more.
func TestABarrierThatStandsStillIsSaid(t *testing.T) {
	var log bytes.Buffer
	b := &topicBarrier{logger: slog.New(slog.NewTextHandler(&log, nil))}
	now := time.Unix(1_000_000, 0)
	for _, err := range []error{errors.New("away"), nil, &change.Refusal{Problem: "another slot", Mend: "write it"}} {
		for range 70 {
			now = now.Add(unclearMax / 60)
			b.tell(err, now)
		}
	}
	b.tell(nil, now)
	if text := log.String(); strings.Count(text, "does not move") != 2 || strings.Count(text, "moves again") != 2 || !strings.Contains(text, `mend="write it"`) {
		t.Errorf("said:\n%s", text)
	}
}

// What another connector has sent, or this one under another prefix, is no word about
// our topics.
func TestWhatIsSentIsOfTheConnectorOfOurSlot(t *testing.T) {
	answers := map[string]string{
		"/connectors/shop/config":  `{"slot.name":"shop_slot","topic.prefix":"cdc"}`,
		"/connectors/shop/offsets": `{"offsets":[{"partition":{"server":"former"},"offset":{"lsn":9,"lsn_commit":9}},{"partition":{"server":"cdc"},"offset":{"lsn":8,"lsn_commit":7}}]}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, answers[r.URL.Path]) }))
	defer server.Close()
	client, err := connect.NewClient(server.URL, connect.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	k := config.Connect{Connector: "shop", Slot: "shop_slot"}
	if sent, err := sentBy(t.Context(), client, k); sent != 7 || err != nil {
		t.Errorf("sent %d, %v, want 7", sent, err)
	}
	k.Slot = "unstale"
	if _, err := sentBy(t.Context(), client, k); !change.IsRefusal(err) || !strings.Contains(err.Error(), `"shop_slot"`) {
		t.Errorf("of another slot: %v", err)
	}
	k.Slot, answers["/connectors/shop/config"] = "shop_slot", `{"slot.name":"shop_slot","topic.prefix":"new"}`
	if sent, err := sentBy(t.Context(), client, k); sent != 0 || err != nil {
		t.Errorf("of a new prefix: %d, %v", sent, err)
	}
}
