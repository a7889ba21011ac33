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
	return []any{int64(4), arguments[3], arguments[4], arguments[5], arguments[6], arguments[7]}
}

// What the next owner reads is what this one wrote, whatever bytes a position
// or a template has.
func TestAWatermarkIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		header := guard.ApplyHeader{
			Owner: "owner", Epoch: 4, N: 9,
			Lo: positions().Draw(t, "lo"), Settled: positions().Draw(t, "settled"),
			Note: &guard.Note{
				Origin: rapid.StringMatching(`[0-9/]{1,20}`).Draw(t, "origin"),
				Fingerprints: rapid.MapOf(rapid.StringMatching(`[a-z<>&"é]{1,5}`), rapid.Custom(func(t *rapid.T) guard.Fingerprint {
					return guard.Fingerprint{Key: rapid.String().Draw(t, "key"), Hash: rapid.String().Draw(t, "fingerprint")}
				})).Draw(t, "plan"),
				Sweeps: rapid.SliceOf(rapid.StringMatching(`[a-z:{}<>&\\é]{1,8}`)).Draw(t, "sweeps"),
			},
		}
		arguments := header.AppendArguments(nil)
		if got, want := len(arguments), guard.ApplyFields; got != want {
			t.Fatalf("got %d arguments, want %d", got, want)
		}
		got, err := guard.ParseOwn(stored(arguments))
		if err != nil {
			t.Fatal(err)
		}
		want := guard.Watermark{Epoch: 4, Lo: header.Lo, Settled: header.Settled, Origin: header.Note.Origin, Fingerprints: header.Note.Fingerprints, Sweeps: header.Note.Sweeps}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// Without a note the script must see empty texts, which leave the fields as
// they are; with a note that has no sweeps it must not.
func TestANoteWithoutSweepsOverwritesThem(t *testing.T) {
	header := guard.ApplyHeader{Owner: "o", Epoch: 1, N: 2, Lo: change.Position{LSN: 7}}
	lo := string(header.Lo.Append(nil))
	want := []string{"o", "1", "2", lo, string(change.Position{}.Append(nil)), "", "", "", "0"}
	if diff := cmp.Diff(want, header.AppendArguments(nil)); diff != "" {
		t.Errorf("without a note (-want +got):\n%s", diff)
	}
	header.Cluster = true
	header.Note = &guard.Note{Origin: "x", Fingerprints: guard.Fingerprints{}, Sweeps: []string{}}
	want[5], want[6], want[7], want[8] = "x", "{}", "[]", "1"
	if diff := cmp.Diff(want, header.AppendArguments(nil)); diff != "" {
		t.Errorf("with a note (-want +got):\n%s", diff)
	}
}

func TestAFirstOwnerFindsAnEmptyWatermark(t *testing.T) {
	got, err := guard.ParseOwn([]any{int64(1), "", "", "", "", ""})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(guard.Watermark{Epoch: 1}, got); diff != "" {
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
	f.Add(arguments[3], arguments[4], arguments[5], arguments[6], arguments[7], 6)
	f.Add("short", "", "", "null", "[]", 6)
	f.Add("", "", "", "[", "{}", 6)
	f.Add("FORMAT", "9", "", "", "", 2)
	f.Fuzz(func(t *testing.T, lo, settled, origin, plan, sweeps string, n int) {
		reply := []any{int64(1), lo, settled, origin, plan, sweeps, nil, []any{lo}}
		replies := []any{nil, lo, int64(n), reply, reply[:uint(n)%8], reply[1:7], reply[2:8], []any{lo, settled}, []any{reply, reply}, []any{"FORMAT", nil}, []any{int64(1), lo, settled, origin, plan, nil}}
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
