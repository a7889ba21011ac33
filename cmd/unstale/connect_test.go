package main

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/unstale/unstale/internal/config"
)

// With jit on, the server compiles the statements over the catalog, for up to
// two seconds of a processor each, and the look comes every five. What a
// connection says at its beginning outranks what is set for a role or a database.
func TestTheLookAtTheCatalogIsNotCompiled(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	said := make(chan map[string]string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		message, err := pgproto3.NewBackend(conn, conn).ReceiveStartupMessage()
		if startup, ok := message.(*pgproto3.StartupMessage); err == nil && ok {
			said <- startup.Parameters
		}
	}()
	options, err := databaseConfig(&config.Config{Database: config.Database{
		URL: config.URL("postgres://unstale@" + listener.Addr().String() + "/shop?sslmode=disable&JIT=on"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	look := &catalog{config: options, logger: slog.New(slog.DiscardHandler)}
	if _, err := look.Look(ctx); err == nil {
		t.Fatal("a server that hangs up was looked at")
	}
	want := map[string]string{"user": "unstale", "database": "shop", "application_name": "unstale", "jit": "off"}
	select {
	case got := <-said:
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("parameters of the connection (-want +got):\n%s", diff)
		}
	case <-ctx.Done():
		t.Error("nobody connected")
	}
}
