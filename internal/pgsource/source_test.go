package pgsource

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// A server that takes no bytes must not keep us from ending, neither with an
// update under way nor with the last one still to be sent.
func TestCloseEndsInTimeWhereTheServerTakesNothing(t *testing.T) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	certificates := web.TLS.Certificates
	for name, c := range map[string]struct {
		secure, sending bool
		within, want    time.Duration
	}{
		"idle":               {false, false, time.Minute, closeMax},
		"update under way":   {false, true, time.Minute, closeMax},
		"little time":        {false, false, time.Second, time.Second},
		"little and sending": {false, true, time.Second, time.Second},
		"idle, TLS":          {true, false, time.Minute, closeMax},
		"sending, TLS":       {true, true, time.Minute, closeMax},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, other := net.Pipe()
				defer other.Close()
				if c.secure {
					secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
					greeted := make(chan error, 1)
					go func() { greeted <- tls.Server(other, &tls.Config{Certificates: certificates}).Handshake() }()
					if err := secure.Handshake(); err != nil {
						t.Fatal(err)
					}
					if err := <-greeted; err != nil {
						t.Fatal(err)
					}
					conn = secure
				}
				s := &Source{options: Options{Logger: slog.New(slog.DiscardHandler)}, conn: conn}
				s.stream = newStream(conn, 1<<16, everyColumn)
				s.reporter = newReporter(conn, 10*time.Second, lsn(0x100))
				if c.sending {
					s.reporter.ask()
					synctest.Wait()
				}
				ctx, cancel := context.WithTimeout(t.Context(), c.within)
				defer cancel()
				begin := time.Now()
				err := s.Close(ctx)
				if took := time.Since(begin); took != c.want {
					t.Errorf("took %v, want %v: %v", took, c.want, err)
				}
			})
		})
	}
}
