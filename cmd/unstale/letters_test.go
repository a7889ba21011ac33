package main

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/apply"
	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/deadletter"
	"github.com/unstale/unstale/internal/plan"
)

// A scriptedSource gives its changes, and Idle behind them.
type scriptedSource struct {
	apply.Source
	changes []change.Change
}

func (s *scriptedSource) Attach(context.Context) (change.Attachment, error) {
	return change.Attachment{Streams: []change.Stream{{Name: "1:2:slot"}}}, nil
}

func (s *scriptedSource) Resume(context.Context, []change.Position) error { return nil }

func (s *scriptedSource) Next(context.Context) (*change.Change, error) {
	if len(s.changes) == 0 {
		return &change.Change{Op: change.Idle}, nil
	}
	next := s.changes[0]
	s.changes = s.changes[1:]
	return &next, nil
}

// Of an undecodable row the log tells table, place and transaction. What comes
// from before the place where the stream resumes was kept before; what cannot be
// kept is not passed on.
func TestUndecodableChangesOfTheLogAreKept(t *testing.T) {
	products := &change.Relation{Schema: "public", Name: "products"}
	at := func(lsn uint64) change.Position { return change.Position{Timeline: 1, LSN: lsn, Row: 1} }
	bad := func(lsn uint64) change.Change {
		return change.Change{Op: change.Undecodable, Relation: products, XID: 7, Position: at(lsn), Reason: "short"}
	}
	source := &scriptedSource{changes: []change.Change{bad(50), {Op: change.Insert, Relation: products, Position: at(100)}, bad(100), bad(200)}}
	var kept []*deadletter.Letter
	var keepError error
	s := &logSource{Source: source, keep: func(_ context.Context, l *deadletter.Letter) error {
		kept = append(kept, l)
		return keepError
	}, entries: []plan.Entry{{Name: "product", Schema: "public", Table: "products"}, {Name: "order", Schema: "public", Table: "orders"}}}
	if _, err := s.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Resume(t.Context(), []change.Position{{Timeline: 1, LSN: 100}}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := []*deadletter.Letter{{
		Reason: "short", Table: "public.products", Entries: []string{"product"},
		Change: &deadletter.Change{Stream: "1:2:slot", Position: at(100).String(), XID: 7},
	}}
	if diff := cmp.Diff(want, kept, cmp.Comparer(func(a, b deadletter.Letter) bool {
		return a.Reason == b.Reason && a.Table == b.Table && cmp.Equal(a.Entries, b.Entries) && *a.Change == *b.Change
	})); diff != "" {
		t.Errorf("kept (-want +got)\n%s", diff)
	}
	keepError = errors.New("away")
	if c, err := s.Next(t.Context()); !errors.Is(err, keepError) || c != nil {
		t.Errorf("what could not be kept: %v, %v", c, err)
	}
}

// A record may hold anything: what is not text is not printed as text, and Avro is
// shown as JSON where its schema is known.
func TestBytesAreShownAsWhatTheyAre(t *testing.T) {
	for _, c := range []struct {
		bytes []byte
		want  string
	}{
		{nil, "null"},
		{[]byte{}, ""},
		{[]byte(`{"id":7}`), `{"id":7}`},
		{[]byte("zwölf\n"), "zwölf\n"},
		{[]byte("\x1b[2J"), "1b5b324a (4 bytes, in hex)"},
		{[]byte{0, 0xff}, "00ff (2 bytes, in hex)"},
	} {
		if got := viewBytes(c.bytes).String(); got != c.want {
			t.Errorf("%q is shown as %q, want %q", c.bytes, got, c.want)
		}
	}
	const schema = `{"type":"record","name":"Key","fields":[{"name":"id","type":"int"},{"name":"name","type":["null","string"]}]}`
	if got, err := avroJSON(schema, []byte{14, 2, 2, 'x'}); err != nil || string(got) != `{"id":7,"name":"x"}` {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := avroJSON(schema, []byte{14, 2, 2, 'x', 'y'}); err == nil {
		t.Error("bytes behind the end are passed over")
	}
}
