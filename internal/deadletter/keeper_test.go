package deadletter_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/deadletter"
)

// A fakeStore has the offsets of what was kept.
type fakeStore struct {
	offsets []int64
	err     error
	counted map[string]int // by topic
}

func (s *fakeStore) append(_ context.Context, l *deadletter.Letter) error {
	if s.err == nil {
		s.offsets = append(s.offsets, l.Record.Offset)
	}
	return s.err
}

func (s *fakeStore) Deadletter(topic, _ string) { s.counted[topic]++ }

func newKeeper(rateMax int) (*deadletter.Keeper, *fakeStore, *bytes.Buffer) {
	s, log := &fakeStore{counted: map[string]int{}}, &bytes.Buffer{}
	return deadletter.NewKeeper(deadletter.Options{
		Append: s.append, RateMax: rateMax, Observer: s, Logger: slog.New(slog.NewTextHandler(log, nil)),
	}), s, log
}

func of(offset int64, reason string) *deadletter.Letter {
	return &deadletter.Letter{Reason: reason, Record: &deadletter.Record{Topic: "cdc.public.products", Offset: offset, Timestamp: time.UnixMilli(offset)}}
}

// A topic of which nothing can be read stays where it is. If every minute had its
// letters it would crawl on until all of it was letters.
func TestAboveTheRateNothingIsKeptForAsLongAsItIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, s, _ := newKeeper(2)
		for offset := range int64(2) {
			if err := k.Keep(t.Context(), of(offset, "bad")); err != nil {
				t.Fatal(err)
			}
		}
		for n := range int64(100) { // for eight minutes the loop comes back with it, or another
			err := k.Keep(t.Context(), of(2+n%2, "bad"))
			// What is said once must be the same.
			if !change.IsRefusal(err) || !strings.Contains(err.Error(), "from cdc.public.products:0:2 on (bad)") || !strings.Contains(err.Error(), "deadletter_max_rate") {
				t.Fatalf("the third in a minute: %v", err)
			}
			time.Sleep(5 * time.Second)
		}
		time.Sleep(time.Minute) // it could be read, and others too
		if err := k.Keep(t.Context(), of(7, "bad")); err != nil {
			t.Errorf("after a minute without any: %v", err)
		}
		if diff := cmp.Diff([]int64{0, 1, 7}, s.offsets); diff != "" {
			t.Errorf("kept (-want +got)\n%s", diff)
		}
	})
}

func TestLettersThatAreFewInAMinuteAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, s, _ := newKeeper(2)
		for offset := range int64(20) {
			if err := k.Keep(t.Context(), of(offset, "bad")); err != nil {
				t.Fatalf("letter %d: %v", offset, err)
			}
			time.Sleep(31 * time.Second)
		}
		if len(s.offsets) != 20 {
			t.Errorf("%d kept, want 20", len(s.offsets))
		}
	})
}

// With none allowed, each holds its partition.
func TestARateOfZeroKeepsNothing(t *testing.T) {
	k, s, _ := newKeeper(0)
	if err := k.Keep(t.Context(), of(0, "bad")); !change.IsRefusal(err) || len(s.offsets) > 0 {
		t.Errorf("got %v, kept %v", err, s.offsets)
	}
}

// What the store does not confirm is not kept: the change comes again. When the
// stream is taken over again, for another reason, its letter is there already,
// and takes nothing of the rate.
func TestALetterIsKeptWhenItsStoreHasConfirmedIt(t *testing.T) {
	k, s, _ := newKeeper(1)
	s.err = errors.New("away")
	for range 3 {
		if err := k.Keep(t.Context(), of(5, "bad")); !errors.Is(err, s.err) {
			t.Fatalf("got %v", err)
		}
	}
	s.err = nil
	for range 3 {
		if err := k.Keep(t.Context(), of(5, "bad")); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]int64{5}, s.offsets); diff != "" {
		t.Errorf("kept (-want +got)\n%s", diff)
	}
	if s.counted["cdc.public.products"] != 1 {
		t.Errorf("counted %v", s.counted)
	}
	// A topic that was made anew has another record at the same offset.
	anew := of(5, "bad")
	anew.Record.Timestamp = anew.Record.Timestamp.Add(time.Hour)
	if err := k.Keep(t.Context(), anew); !change.IsRefusal(err) {
		t.Errorf("another record at the same place is taken for the same: %v", err)
	}
}

// Each reason is said once, and there is an end to reasons.
func TestALetterIsSaidOnceAReason(t *testing.T) {
	k, s, log := newKeeper(-1)
	for offset := range int64(300) {
		reason := "bad"
		if offset >= 200 {
			reason = fmt.Sprint("schema ", offset)
		}
		if err := k.Keep(t.Context(), of(offset, reason)); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "err=bad"); n != 1 {
		t.Errorf("said %d times", n)
	}
	if n := strings.Count(log.String(), "\n"); n != 64 {
		t.Errorf("%d lines, want 64", n)
	}
	if s.counted["cdc.public.products"] != 300 {
		t.Errorf("counted %v", s.counted)
	}
}
