package pgsource

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
)

// A stream that counts as a synchronous standby waits for itself.
func TestSynchronousStandbyNames(t *testing.T) {
	for setting, want := range map[string]bool{
		"":                            false,
		"*":                           true,
		`"*"`:                         true,
		"a, b":                        false,
		"FIRST 2 (a, *)":              true,
		"ANY 1 (a, Unstale)":          true,
		`2 ("unstale", b)`:            true,
		`"un""stale", unstaled`:       false,
		"unstale_standby, my-unstale": false,
	} {
		if got := namesStandby(setting, applicationName); got != want {
			t.Errorf("%s: got %v, want %v", setting, got, want)
		}
	}
}

// Names are what their owners made them.
func TestStatementsQuoteNames(t *testing.T) {
	tables := []Table{{Schema: "public", Name: "products"}, {Schema: `my "schema"`, Name: "Weird Table"}}
	got := []string{createPublication("un stale", 170000, tables), createPublication("p", 180000, nil), addTables(`p"`, tables[1:]), quoteText("o'clock")}
	want := []string{
		`CREATE PUBLICATION "un stale" FOR TABLE ONLY "public"."products", ONLY "my ""schema"""."Weird Table" WITH (publish_via_partition_root = true);`,
		`CREATE PUBLICATION "p" WITH (publish_via_partition_root = true, publish_generated_columns = stored);`,
		`ALTER PUBLICATION "p""" ADD TABLE ONLY "my ""schema"""."Weird Table";`,
		`'o''clock'`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLSNText(t *testing.T) {
	for text, want := range map[string]uint64{"0/0": 0, "16/B374D848": 0x16b374d848, "FFFFFFFF/FFFFFFFF": 1<<64 - 1} {
		got, err := parseLSN(text)
		if err != nil || got != want || formatLSN(got) != text {
			t.Errorf("%s: got %x, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1", "1/", "/1", "1/2/3", "x/1", "100000000/1"} {
		if _, err := parseLSN(text); err == nil {
			t.Errorf("%q is taken for an LSN", text)
		}
	}
}

// A parameter of the connection string must not stand beside ours in another
// spelling: the server would take either.
func TestOurParametersReplaceOthers(t *testing.T) {
	config := &pgconn.Config{RuntimeParams: map[string]string{"TimeZone": "Europe/Paris", "search_path": "x", "application_name": "me"}}
	setParams(config, map[string]string{"timezone": "UTC", "application_name": "unstale"})
	want := map[string]string{"timezone": "UTC", "search_path": "x", "application_name": "unstale"}
	if diff := cmp.Diff(want, config.RuntimeParams); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
