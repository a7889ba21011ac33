package guard_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/unstale/unstale/internal/change"
	"github.com/unstale/unstale/internal/guard"
)

func positions() *rapid.Generator[change.Position] {
	return rapid.Custom(func(t *rapid.T) change.Position {
		return change.Position{
			Timeline: rapid.Uint32().Draw(t, "timeline"),
			LSN:      rapid.Uint64().Draw(t, "lsn"),
			Row:      rapid.Uint64().Draw(t, "row"),
		}
	})
}

// stored plays Redis: it keeps what Apply's arguments say and gives it back as
// Own does.
func stored(arguments []string) any {
	return []any{int64(4), arguments[3], arguments[4], arguments[5], arguments[6], arguments[7], arguments[15], int64(1700000000000)}
}

// A column that was a text in between has left keys that no number is: whatever
// is not sure to have been the same all the time is swept as a whole.
func TestASweepIsNarrowOnlyWhereTheColumnsWereTheSame(t *testing.T) {
	numbers := guard.Fingerprint{Key: "a:{id}", Hash: "1", Letters: "i", Columns: "c"}
	with := func(change func(*guard.Fingerprint)) guard.Fingerprint {
		f := numbers
		change(&f)
		return f
	}
	wide := []guard.Sweep{{Key: "a:{id}"}, {Key: "a:{id}"}}
	for _, test := range []struct {
		name          string
		before, after guard.Fingerprint
		want          []guard.Sweep
	}{
		{"new", guard.Fingerprint{}, numbers, []guard.Sweep{{Key: "a:{id}", Letters: "i"}}},
		{"gone", numbers, guard.Fingerprint{}, []guard.Sweep{{Key: "a:{id}"}}},
		{"another column was added", numbers, with(func(f *guard.Fingerprint) { f.Hash = "2" }), []guard.Sweep{{Key: "a:{id}", Letters: "i"}, {Key: "a:{id}", Letters: "i"}}},
		{"another template", numbers, with(func(f *guard.Fingerprint) { f.Key = "b:{id}" }), []guard.Sweep{{Key: "a:{id}", Letters: "i"}, {Key: "b:{id}", Letters: "i"}}},
		{"was a text", with(func(f *guard.Fingerprint) { f.Letters, f.Columns = "", "b" }), numbers, wide},
		{"is a text", numbers, with(func(f *guard.Fingerprint) { f.Letters, f.Columns = "", "d" }), wide},
		{"was a text in between", numbers, with(func(f *guard.Fingerprint) { f.Columns = "d" }), wide},
		{"of an unknown owner", guard.Fingerprint{Key: "a:{id}"}, numbers, wide},
		{"without a catalog", guard.Fingerprint{Key: "a:{id}", Hash: "1"}, guard.Fingerprint{Key: "a:{id}", Hash: "2"}, wide},
	} {
		if diff := cmp.Diff(test.want, guard.Sweeps(test.before, test.after)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// What the next owner reads is what this one wrote, whatever bytes a position
// or a template has.
func TestAWatermarkIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		header := guard.ApplyHeader{
			Owner: "owner", Epoch: 4, N: 9,
			Lo: positions().Draw(t, "lo"), Settled: positions().Draw(t, "settled"),
			Note: &guard.Note{
				Origin:  rapid.StringMatching(`[0-9/]{1,20}`).Draw(t, "origin"),
				Ungated: rapid.SampledFrom([]change.Position{{}, {Timeline: change.Offsets}, {Timeline: change.Offsets, LSN: 1<<63 - 1}}).Draw(t, "ungated"),
				Fingerprints: rapid.MapOf(rapid.StringMatching(`[a-z<>&"é]{1,5}`), rapid.Custom(func(t *rapid.T) guard.Fingerprint {
					return guard.Fingerprint{Key: rapid.String().Draw(t, "key"), Hash: rapid.String().Draw(t, "fingerprint")}
				})).Draw(t, "plan"),
				Sweeps: rapid.SliceOf(rapid.Custom(func(t *rapid.T) guard.Sweep {
					return guard.Sweep{Key: rapid.StringMatching(`[a-z:{}<>&\\é]{1,8}`).Draw(t, "key"), Letters: rapid.StringMatching(`[iub*]{0,2}`).Draw(t, "letters")}
				})).Draw(t, "sweeps"),
			},
			Seen: change.Sequence{Commit: rapid.Uint64().Draw(t, "commit"), LSN: rapid.Uint64().Draw(t, "lsn")},
		}
		arguments := header.AppendArguments(nil)
		got, err := guard.ParseOwn(stored(arguments))
		if err != nil {
			t.Fatal(err)
		}
		want := guard.Watermark{Epoch: 4, Lo: header.Lo, Settled: header.Settled, Origin: header.Note.Origin, Ungated: header.Note.Ungated, Fingerprints: header.Note.Fingerprints, Sweeps: header.Note.Sweeps, Seen: header.Seen, Now: 1700000000000}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// Without a note the script must see empty texts, which leave the fields as
// they are; with a note that has no sweeps it must not.
func TestANoteWithoutSweepsOverwritesThem(t *testing.T) {
	header := guard.ApplyHeader{Owner: "o", Epoch: 1, N: 2, Lo: change.Position{LSN: 7}, Until: 12, Drops: 1, Forgets: 2, Strings: 3, Restores: 5, Hashes: 4, Reloads: 6, Removes: 7, Adds: 8, Voids: 9}
	lo := string(header.Lo.Append(nil))
	want := []string{"o", "1", "2", lo, string(change.Position{}.Append(nil)), "", "", "", "0", "12", "1", "2", "3", "5", "4", "", "6", "7", "8", "9"}
	if diff := cmp.Diff(want, header.AppendArguments(nil)); diff != "" {
		t.Errorf("without a note (-want +got):\n%s", diff)
	}
	header.Cluster = true
	header.Note = &guard.Note{Origin: "x", Fingerprints: guard.Fingerprints{}, Sweeps: []guard.Sweep{}}
	want[5], want[6], want[7], want[8] = "x", "{}", "[]", "1"
	if diff := cmp.Diff(want, header.AppendArguments(nil)); diff != "" {
		t.Errorf("with a note (-want +got):\n%s", diff)
	}
}

func TestAFirstOwnerFindsAnEmptyWatermark(t *testing.T) {
	got, err := guard.ParseOwn([]any{int64(1), "", "", "", "", "", "", int64(9)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(guard.Watermark{Epoch: 1, Now: 9}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Trying again does not make this release a newer one: a person must choose.
func TestAWatermarkOfANewerReleaseIsARefusal(t *testing.T) {
	_, err := guard.ParseOwn([]any{"FORMAT", "2"})
	if err == nil || !change.IsRefusal(err) {
		t.Fatalf("got %v, want a refusal", err)
	}
	if !strings.Contains(err.Error(), "format 2") {
		t.Errorf("got %q, want it to name the format", err)
	}
}

// Whatever stands in Redis, reading it ends in a watermark or an error.
func FuzzParseOwn(f *testing.F) {
	whole := guard.ApplyHeader{Lo: change.Position{LSN: 1}, Note: &guard.Note{Origin: "o", Fingerprints: guard.Fingerprints{"a": {Key: "a:{id}"}}}}
	arguments := whole.AppendArguments(nil)
	f.Add(arguments[3], arguments[4], arguments[5], arguments[6], arguments[7], "", 8)
	f.Add("short", "", "", "null", "[]", "short", 7)
	f.Add("", "", "", "[", "{}", "", 7)
	f.Add("", "", "1/2/3/4 ungated until offset x", "", "", "", 8)
	f.Add("FORMAT", "9", "", "", "", "", 2)
	f.Fuzz(func(t *testing.T, lo, settled, origin, plan, sweeps, seen string, n int) {
		reply := []any{int64(1), lo, settled, origin, plan, sweeps, seen, int64(n), []any{lo}}
		replies := []any{nil, lo, int64(n), reply, reply[:uint(n)%10], reply[1:9], reply[:8], []any{lo, settled}, []any{reply, reply}, []any{"FORMAT", nil}, []any{int64(1), lo, settled, origin, plan, nil, nil}}
		for _, reply := range replies {
			w, err := guard.ParseOwn(reply)
			if err != nil {
				continue
			}
			if w.Fingerprints != nil {
				var again guard.Fingerprints
				if err := json.Unmarshal([]byte(plan), &again); err != nil {
					t.Fatalf("accepted the plan %q: %v", plan, err)
				}
			}
		}
	})
}

// A reply that is not understood must never pass for a batch that is in.
func TestRepliesOfApply(t *testing.T) {
	for _, test := range []struct {
		reply any
		want  guard.Applied
		wrong bool
	}{
		{reply: []any{"OK", int64(0)}, want: guard.Applied{Status: guard.OK}},
		{reply: []any{"OK", int64(17), int64(1), int64(-4)}, want: guard.Applied{Status: guard.OK, Now: 17, Dropped: []guard.Dropped{{Number: 0}, {Number: 3, Cached: true}}}},
		{reply: []any{"DONE"}, want: guard.Applied{Status: guard.Done}},
		{reply: []any{"LOST"}, want: guard.Applied{Status: guard.Lost}},
		{reply: []any{"FENCED"}, want: guard.Applied{Status: guard.Fenced}},
		{reply: nil, wrong: true},
		{reply: "OK", wrong: true},
		{reply: []any{}, wrong: true},
		{reply: []any{"QUEUED"}, wrong: true},
		{reply: []any{"OK", "17"}, wrong: true},
		{reply: []any{"OK", int64(17), int64(0)}, wrong: true},
	} {
		got, err := guard.ParseApply(test.reply)
		if (err != nil) != test.wrong {
			t.Errorf("%v: got the error %v", test.reply, err)
		}
		if diff := cmp.Diff(test.want, got); err == nil && diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.reply, diff)
		}
	}
}
