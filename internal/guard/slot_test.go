package guard_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/unstale/unstale/internal/guard"
)

// The keys are those of the Redis Cluster specification ("Hash tags") and those
// where its rule is easily got wrong.
func TestSlotKeyIsWhatRedisHashes(t *testing.T) {
	for _, test := range []struct{ key, want string }{
		{"", ""},
		{"product:101", "product:101"},
		{"{user1000}.following", "user1000"},
		{"foo{}{bar}", "foo{}{bar}"},
		{"foo{{bar}}zap", "{bar"},
		{"foo{bar}{zap}", "bar"},
		{"{}x", "{}x"},
		{"a}b", "a}b"},
		{"a}{b}", "b"},
		{"a{b", "a{b"},
		{"a{", "a{"},
		{"a}b{", "a}b{"},
		{"}{", "}{"},
		{"{a}", "a"},
	} {
		if got := guard.SlotKey(test.key); got != test.want {
			t.Errorf("SlotKey(%q): got %q, want %q", test.key, got, test.want)
		}
	}
}

// The first is the check value of CRC-16/XMODEM; the others were answered by
// CLUSTER KEYSLOT.
func TestSlotsAreThoseOfRedis(t *testing.T) {
	for _, test := range []struct {
		key  string
		want uint16
	}{
		{"123456789", 0x31c3},
		{"", 0},
		{"foo", 12182},
		{"{foo}.bar", 12182},
		{"somekey", 11058},
	} {
		if got := guard.Slot(test.key); got != test.want {
			t.Errorf("Slot(%q): got %d, want %d", test.key, got, test.want)
		}
	}
}

func TestEachTagHashesToItsSlot(t *testing.T) {
	for slot := range uint16(guard.Slots) {
		tag := guard.Tag(slot)
		if got := guard.Slot(tag); got != slot {
			t.Fatalf("tag %q hashes to %d, want %d", tag, got, slot)
		}
		if strings.Trim(tag, "0123456789abcdefghijklmnopqrstuvwxyz") != "" {
			t.Fatalf("tag %q of slot %d: want letters and digits", tag, slot)
		}
		if got := guard.Slot(guard.WatermarkKey(slot, "1:2:unstale")); got != slot {
			t.Fatalf("the watermark of slot %d stands at %d", slot, got)
		}
	}
}

func TestSideKeys(t *testing.T) {
	for _, test := range []struct {
		key, want string
		ok        bool
	}{
		{"product:101", "{product:101}:l", true},
		{"{user:7}:cart", "{user:7}:l:{user:7}:cart", true},
		{"a{b}c{d}", "{b}:l:a{b}c{d}", true},
		{"a{b", "{a{b}:l", true},
		{"a}{b}", "{b}:l:a}{b}", true},
		{"", "", false},
		{"a}b", "", false},
		{"{}x", "", false},
		{"{}{x}", "", false},
	} {
		got, ok := guard.SideKey(test.key)
		if got != test.want || ok != test.ok {
			t.Errorf("SideKey(%q): got %q, %v, want %q, %v", test.key, got, ok, test.want, test.ok)
		}
	}
}

// A key that has no side key leaves what was gathered before it alone.
func TestAppendSideKeyLeavesTheRestAlone(t *testing.T) {
	got, ok := guard.AppendSideKey([]byte("before "), "a}b")
	if string(got) != "before " || ok {
		t.Errorf("got %q, %v", got, ok)
	}
	got, ok = guard.AppendSideKey([]byte("before "), "a")
	if string(got) != "before {a}:l" || !ok {
		t.Errorf("got %q, %v", got, ok)
	}
}

// keys draws texts in which braces and what side keys are made of are frequent.
func keys() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{
			"{", "}", ":", "l", ":l", "}:l", "}:l:", "a", "b", "", "\x00", "é", "\xff",
		}), 0, 8).Draw(t, "parts"), "")
	})
}

// Redis Cluster runs a script only if all its keys are of one slot, and a side
// key that named another key would let a change of one kill the lease of the
// other.
func TestASideKeySharesItsKeysSlotAndNamesNoOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := keys().Draw(t, "key")
		side, ok := guard.SideKey(key)
		if !ok {
			if valid := guard.SlotKey(key) != key || key != "" && !strings.Contains(key, "}"); valid {
				t.Fatalf("%q has no side key", key)
			}
			return
		}
		if got, want := guard.Slot(side), guard.Slot(key); got != want {
			t.Fatalf("side key %q of %q is of slot %d, want %d", side, key, got, want)
		}
		if got, ok := guard.DataKey(side); !ok || got != key {
			t.Fatalf("DataKey(%q): got %q, %v, want %q", side, got, ok, key)
		}
	})
}

func TestDataKeyFindsSideKeysOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := keys().Draw(t, "text")
		key, ok := guard.DataKey(text)
		if !ok {
			return
		}
		if side, ok := guard.SideKey(key); !ok || side != text {
			t.Fatalf("DataKey(%q) is %q, whose side key is %q, %v", text, key, side, ok)
		}
	})
	for _, text := range []string{"", "{", "{a", "{a}", "{a}:", "{a}:m", "{}:l", "{b}:l:{a}x", "{a}:l:a", "x{a}:l", "{a}:l:{}"} {
		if key, ok := guard.DataKey(text); ok {
			t.Errorf("DataKey(%q): got %q, want none", text, key)
		}
	}
}
