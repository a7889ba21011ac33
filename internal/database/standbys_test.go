package database

import "testing"

// The setting has four forms, and a name matches whatever its case.
// https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES
func TestWhichStandbysAreSynchronous(t *testing.T) {
	known := []string{"eu-1", "us1"}
	for _, tc := range []struct {
		setting  string
		includes bool
		without  string
	}{
		{"", false, ""},
		{"a, b", false, "a, b"},
		{"*", true, `"eu-1", us1`},
		{"UNSTALE", true, ""},
		{"a, unstale", true, "a"},
		{"2 (a, unstale, b)", true, "2 (a, b)"},
		{"first 2(unstale,*)", true, `FIRST 2 ("eu-1", us1)`},
		{`ANY 3 ("Un""stale" , "unstale",a)`, true, `ANY 2 ("Un""stale", a)`},
		{`"a(b", unstale`, true, `"a(b"`},
		{"FIRST 1 (unstaler)", false, "FIRST 1 (unstaler)"},
	} {
		s := parseStandbys(tc.setting)
		if got := s.includes("unstale"); got != tc.includes {
			t.Errorf("%q includes unstale: got %v, want %v", tc.setting, got, tc.includes)
		}
		if got := s.without("unstale", known).String(); got != tc.without {
			t.Errorf("%q without unstale: got %q, want %q", tc.setting, got, tc.without)
		}
	}
}

func FuzzStandbys(f *testing.F) {
	f.Add(`ANY 3 ("Un""stale" , "unstale",a)`)
	f.Add(`"`)
	f.Add(`((`)
	f.Fuzz(func(t *testing.T, setting string) {
		got := parseStandbys(setting).without("unstale", nil)
		if got.includes("unstale") {
			t.Errorf("%q without unstale still includes it: %q", setting, got)
		}
		if again := parseStandbys(got.String()); len(again.names) != len(got.names) {
			t.Errorf("%q is read back as %q", got.String(), again.names)
		}
	})
}
