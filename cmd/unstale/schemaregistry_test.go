package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unstale/unstale/internal/config"
	"github.com/unstale/unstale/internal/kafkasource"
)

// A record whose schema does not exist becomes a dead letter, after a while. So
// only the registry may say that: a proxy, or a path where no registry is, says
// 404 of everything.
func TestOnlyTheRegistryItselfKnowsThatASchemaIsNotThere(t *testing.T) {
	page := "<html>" + strings.Repeat("sorry\n", 1000) + "</html>"
	for _, tt := range []struct {
		name   string
		status int
		answer string
		absent bool
		want   string // of the path on
	}{
		{"Apicurio 3.0.9", 404, `{"message":"No content with ID '7' was found.","error_code":40403}`, true, ": 404 Not Found: No content with ID '7' was found."},
		{"Apicurio 3.0.9, another API", 404, `{"message":"RESTEASY003210: Could not find resource\n for full path","error_code":404}`, false, ": 404 Not Found: RESTEASY003210: Could not find resource for full path; " + isItRegistry},
		{"Apicurio 3.0.9, no API", 404, `{"title":"RESTEASY003210: Could not find resource","status":404}`, false, ": 404 Not Found; " + isItRegistry},
		{"a proxy", 404, page, false, ": 404 Not Found; " + isItRegistry},
		{"a proxy without a word", 404, "", false, ": 404 Not Found; " + isItRegistry},
		{"a proxy whose registry is away", 502, page, false, ": 502 Bad Gateway"},
		{"another login", 401, `{"error_code":401,"message":"Unauthorized"}`, false, ": 401 Unauthorized: Unauthorized; look at username and password of source.kafka.schema_registry"},
		{"much to say", 500, `{"error_code":50001,"message":"` + strings.Repeat("x", 1000) + `"}`, false, ": 500 Internal Server Error: " + strings.Repeat("x", registryMessageMax) + "…"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.status)
			_, _ = w.Write([]byte(tt.answer))
		}))
		ask, err := schemaRegistry(config.Endpoint{URL: config.URL(strings.Replace(server.URL, "http://", "http://app:hunter2@", 1))})
		if err != nil {
			t.Fatal(err)
		}
		_, err = ask(t.Context(), 7)
		server.Close()
		if errors.Is(err, kafkasource.ErrNoSchema) != tt.absent {
			t.Errorf("%s: absent is %v: %v", tt.name, !tt.absent, err)
		}
		want := "GET " + server.URL + "/schemas/ids/7" + tt.want
		if tt.absent {
			want = kafkasource.ErrNoSchema.Error() + ": " + want
		}
		if err == nil || cmp.Diff(want, err.Error()) != "" {
			t.Errorf("%s: got  %v\nwant %s", tt.name, err, want)
		}
	}
}

// Something that answers everything with 200 has no schemas.
func TestAnAnswerWithoutASchemaIsNone(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }))
	defer server.Close()
	ask, err := schemaRegistry(config.Endpoint{URL: config.URL(server.URL)})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := ask(t.Context(), 7); err == nil || errors.Is(err, kafkasource.ErrNoSchema) {
		t.Errorf("got %q, %v", text, err)
	}
}

// There are three servers with files for TLS.
func TestAFileOfTheRegistryThatIsNotThereIsTheRegistrys(t *testing.T) {
	_, err := schemaRegistry(config.Endpoint{URL: "https://registry", TLS: config.TLS{CAFile: "/nowhere/ca.pem"}})
	if err == nil || !strings.HasPrefix(err.Error(), "source.kafka.schema_registry: read tls.ca_file") {
		t.Errorf("got %v", err)
	}
}
