package database

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// Of two spellings of one setting the server would take the one that comes last, and a
// map has no order.
func TestAnAddressSetsNoSettingOfTexts(t *testing.T) {
	config, err := pgx.ParseConfig("postgres://app@127.0.0.1:1/shop?TimeZone=Europe/Berlin&DATESTYLE=German&search_path=shop")
	if err != nil {
		t.Fatal(err)
	}
	FixTexts(config)
	want := map[string]string{
		"search_path": "shop", "timezone": "UTC", "datestyle": "ISO", "intervalstyle": "postgres", "bytea_output": "hex", "extra_float_digits": "1",
	}
	if diff := cmp.Diff(want, config.RuntimeParams); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
